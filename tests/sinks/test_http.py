"""Every item arrives at a web service, whatever becomes of the answers; what is refused is one item at a time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.errors import AccessError, NotConnectedError
from edgefn.metrics import Metrics
from edgefn.sinks import Refusal
from edgefn.sinks import http as http_module
from edgefn.sinks.http import HttpOptions, HttpSink
from tests.sinks.helpers import stored
from tests.sinks.service import (
    Service,
    answers,
    answers_half,
    chokes_on,
    drips,
    forgets_to_answer,
    no_more_than,
    results,
)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service() as service:
        yield service


async def connected(service: Service, **options: Any) -> HttpSink:
    sink = HttpSink(HttpOptions(service.url, **options), gateway="gw-1")
    await sink.connect()
    return sink


async def sent(service: Service, *seqs: int, **options: Any) -> list[Refusal]:
    sink = await connected(service, **options)
    try:
        return list(await sink.send([stored(seq) for seq in seqs]))
    finally:
        await sink.close()


# What goes out


async def test_a_batch_is_one_post_of_json(service: Service) -> None:
    await sent(service, 1, 2)
    [(headers, body)] = service.posts
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("edgefn/")
    assert body.startswith(b'{"items":[{"id":"gw-1/0a1b2c3d/summary/minute/1"')
    assert service.seqs() == [1, 2]


async def test_msgpack_has_the_same_items(service: Service) -> None:
    await sent(service, *range(1, 40), encoding="msgpack")
    packed = dict(service.received)
    service.received.clear()
    await sent(service, *range(1, 40))
    assert service.received == packed
    assert service.posts[0][0]["Content-Type"] == "application/msgpack"


async def test_large_bodies_are_compressed_and_small_ones_are_not(service: Service) -> None:
    sink = await connected(service)
    await sink.send([stored(1)])
    await sink.send([stored(seq) for seq in range(2, 1000)])
    assert [headers.get("Content-Encoding") for headers, _ in service.posts] == [None, "gzip"]
    assert sink.bytes_sent < sum(len(body) for _, body in service.posts) / 5
    await sink.close()
    await sent(service, *range(1000, 2000), compress=False)
    assert service.posts[-1][0].get("Content-Encoding") is None
    assert service.seqs() == list(range(1, 2000))


async def test_the_key_of_a_batch_stays_and_differs_from_that_of_another(service: Service) -> None:
    for seqs in ((1, 2), (1, 2), (1, 2, 3)):
        await sent(service, *seqs)
    first, again, other = [headers["Idempotency-Key"] for headers, _ in service.posts]
    assert first == again != other


async def test_token_and_headers_go_along(service: Service, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    await sent(service, 1, token_file=str(token), headers={"X-Tenant": "plant 7"})
    headers, _ = service.posts[0]
    assert (headers["Authorization"], headers["X-Tenant"]) == ("Bearer s3cret", "plant 7")


async def test_a_new_token_is_used_after_the_old_one_was_refused(service: Service, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    sink = await connected(service, token_file=str(token))
    service.faults.append(answers(401))
    with pytest.raises(AccessError, match=r"answers 401; set token_file"):
        await sink.send([stored(1)])
    token.write_text("new")
    await sink.connect()
    assert await sink.send([stored(1)]) == []
    assert service.posts[-1][0]["Authorization"] == "Bearer new"
    await sink.close()


async def test_a_token_that_is_missing_is_named_and_nothing_is_sent(service: Service, tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"token_file = '.*none' cannot be used: No such file"):
        await sent(service, 1, token_file=str(tmp_path / "none"))


async def test_a_token_that_systemd_hands_over(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("handed over")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    await sent(service, 1, token_file="/somewhere/else/token")
    assert service.posts[0][0]["Authorization"] == "Bearer handed over"


async def test_proxies_of_the_environment_are_left_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await sent(service, 1) == []


async def test_a_key_in_the_query_goes_along_and_is_not_told(service: Service) -> None:
    service.faults.append(answers(403))
    sink = HttpSink(HttpOptions(f"{service.url}?code=s3cret"), gateway="gw-1")
    await sink.connect()
    with pytest.raises(AccessError) as trouble:
        await sink.send([stored(1)])
    assert "s3cret" not in str(trouble.value)
    await sink.connect()
    assert await sink.send([stored(1)]) == []
    assert service.queries == ["code=s3cret"] * 2
    await sink.close()


# What comes back


@pytest.mark.parametrize("fault", [forgets_to_answer, answers_half, drips, answers(500), answers(503), answers(408)])
async def test_an_answer_that_is_lost_or_late_brings_all_again(service: Service, fault: Any) -> None:
    sink = await connected(service, timeout_s=0.1)
    service.faults.append(fault)
    batch = [stored(seq) for seq in (1, 2, 3)]
    with pytest.raises(NotConnectedError) as trouble:
        await sink.send(batch)
    assert service.url in str(trouble.value)
    assert not isinstance(trouble.value, AccessError)
    await sink.connect()
    assert await sink.send(batch) == []
    assert service.seqs() == [1, 2, 3]
    first, again = [headers["Idempotency-Key"] for headers, _ in service.posts]
    assert first == again
    await sink.close()


async def test_the_far_side_says_when_to_come_again(service: Service) -> None:
    service.faults.append(answers(429, {"Retry-After": "17"}))
    with pytest.raises(NotConnectedError) as trouble:
        await sent(service, 1)
    assert trouble.value.retry_after == 17


async def test_one_refused_item_is_named_in_the_results(service: Service) -> None:
    bad, worse = stored(2), stored(4)
    service.faults.append(
        results({"id": bad.key, "status": 422, "error": "no unit"}, {"id": worse.key, "error": {"code": 7}})
    )
    assert await sent(service, 1, 2, 3, 4) == [
        Refusal(bad.id, "http_422", "no unit"),
        Refusal(worse.id, "rejected", '{"code":7}'),
    ]
    assert service.seqs() == [1, 3]


async def test_an_item_that_cannot_be_taken_now_brings_all_again(service: Service) -> None:
    service.faults.append(results({"id": stored(2).key, "status": 503}))
    with pytest.raises(NotConnectedError, match=r"answers 503 for gw-1/.*/2"):
        await sent(service, 1, 2)


async def test_results_for_an_item_that_was_not_sent_are_not_believed(service: Service) -> None:
    service.faults.append(
        answers(200, {"Content-Type": "application/json"}, '{"results":[{"id":"gw-9/2","status":400}]}')
    )
    with pytest.raises(NotConnectedError, match=r"refuses 'gw-9/2', which was not sent"):
        await sent(service, 1)


async def test_too_large_a_batch_is_sent_in_pieces_and_in_order(service: Service) -> None:
    service.always = no_more_than(3)
    metrics = Metrics()
    sink = HttpSink(HttpOptions(service.url), gateway="gw-1", metrics=metrics)
    await sink.connect()
    assert await sink.send([stored(seq) for seq in range(1, 12)]) == []
    await sink.close()
    assert service.seqs() == list(range(1, 12))
    assert metrics.counters == {"sink.http.split.http_413": 3}


async def test_an_item_that_is_too_large_alone_is_refused(service: Service) -> None:
    service.always = no_more_than(0)
    assert await sent(service, 1) == [Refusal(stored(1).id, "http_413", "")]


@pytest.mark.parametrize("status", [400, 422])
async def test_bad_items_are_found_and_the_others_arrive_in_order(service: Service, status: int) -> None:
    service.always = chokes_on(status, 3, 8)
    refused = await sent(service, *range(1, 12))
    assert refused == [Refusal(stored(seq).id, f"http_{status}", f"item {seq} has no unit") for seq in (3, 8)]
    assert service.seqs() == [1, 2, 4, 5, 6, 7, 9, 10, 11]
    assert len(service.posts) < 16


async def test_an_answer_longer_than_is_read_is_asked_for_in_pieces(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "LONGEST_ANSWER", 150)
    service.always = results({"id": stored(2).key, "status": 400})
    assert [one.reason for one in await sent(service, 1, 2, 3, 4)] == ["http_400"]
    assert set(service.seqs()) == {1, 3, 4}


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 415])
async def test_wrong_settings_send_nothing_to_the_dead_letters(service: Service, status: int) -> None:
    service.faults.append(answers(status, text="<h1>No\n such   thing</h1>"))
    with pytest.raises(AccessError, match=rf"{service.url}: the service answers {status} \(<h1>No such thing</h1>\); "):
        await sent(service, 1, 2)


async def test_a_redirect_is_told_and_not_followed(service: Service) -> None:
    service.faults.append(answers(308, {"Location": "http://127.0.0.1:1/else"}))
    with pytest.raises(AccessError, match=r"answers 308 and points to http://127\.0\.0\.1:1/else"):
        await sent(service, 1)


async def test_an_exact_account_over_a_service_that_fails_half_the_time(service: Service) -> None:
    chance = random.Random(4)
    faults = [forgets_to_answer, answers_half, answers(500), answers(503, {"Retry-After": "1"}), answers(429)]
    service.faults.extend(chance.choice(faults) for _ in range(30))
    chance.shuffle(service.faults)
    service.always = chokes_on(422, 50, 51, 120)
    sink = await connected(service)
    refused: list[int] = []
    for start in range(1, 200, 20):
        batch = [stored(seq) for seq in range(start, start + 20)]
        while True:
            try:
                await sink.connect()
                refused += [refusal.item_id >> 2 for refusal in await sink.send(batch)]
                break
            except NotConnectedError:
                continue
    await sink.close()
    assert refused == [50, 51, 120]
    assert service.seqs() == [seq for seq in range(1, 201) if seq not in refused]
    assert service.copies > 0


@settings(deadline=None, max_examples=25)
@given(st.sets(st.integers(1, 20)), st.integers(1, 20))
async def test_bisection_refuses_what_is_bad_and_nothing_else(bad: set[int], n: int) -> None:
    async with Service() as service:
        service.always = chokes_on(400, *bad)
        refused = await sent(service, *range(1, n + 1))
        assert [one.item_id >> 2 for one in refused] == [seq for seq in range(1, n + 1) if seq in bad]
        assert service.seqs() == [seq for seq in range(1, n + 1) if seq not in bad]
