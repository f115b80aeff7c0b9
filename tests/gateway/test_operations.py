"""What an operator asks of the outbox: the answers are bounded, and nothing is given up by a slip of the pen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.events import from_json, to_json
from edgefn.gateway import operations
from edgefn.gateway.commands import MAX_ANSWER, CommandError
from edgefn.gateway.operations import PAGE, Operations
from edgefn.store import Commit, NewItem, Refused, Store
from tests.store.helpers import START, a_store, item


class Desk:
    """Operations on a store, with two uplinks that stand still."""

    def __init__(self, store: Store, page: int = PAGE) -> None:
        self.store = store
        self.kicked = 0
        self.operations = Operations(store, self._states, self._kick, page)

    async def _states(self) -> dict[str, dict[str, Any]]:
        stats = {name: await self.store.stats(name) for name in ("cloud", "archive")}
        return {name: {"state": "stopped", "rows": one.rows} for name, one in stats.items()}

    def _kick(self) -> None:
        self.kicked += 1

    async def ask(self, verb: str, **arguments: Any) -> Any:
        async def tell(news: Any) -> None: ...

        answer = to_json(await self.operations.verbs[verb](arguments, tell))
        assert len(answer) < MAX_ANSWER - 1000
        return from_json(answer)

    async def commit(self, *items: NewItem) -> None:
        await self.store.commit(Commit(items))

    async def bury(self, n: int) -> None:
        """The cloud refuses what has waited longest."""
        items = await self.store.peek(n, uplink="cloud")
        why = {one.id: Refused("http_422", "no such site") for one in items}
        await self.store.acknowledge("cloud", why, refused=why)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_store(tmp_path / "edgefn.db", uplinks=("cloud", "archive")) as store:
        yield Desk(store)


async def test_the_status_counts_what_waits_and_what_was_given_up(desk: Desk) -> None:
    await desk.commit(item(n=1), item(n=2), item("alert/spike", n=1, priority=2))
    await desk.bury(1)
    await desk.ask("outbox-purge", stream="alert/spike")
    status = await desk.ask("outbox-status")
    assert (status["gateway"], status["dead"]) == ("gw-1", 1)
    assert {name: one["rows"] for name, one in status["uplinks"].items()} == {"cloud": 1, "archive": 2}
    streams = {one["name"]: (one["rows"], one["priority"], one["dropped"]) for one in status["streams"]}
    assert streams == {"summary/minute": (2, "normal", {}), "alert/spike": (0, "high", {"purged": 1})}
    assert status["bytes"] == sum(one["bytes"] for one in status["streams"]) > 0


async def test_a_peek_shows_rows_as_the_cloud_will_see_them_the_oldest_first(desk: Desk) -> None:
    await desk.commit(*(item(n=n) for n in range(3)), item("alert/spike", n=9, priority=2))
    answer = await desk.ask("outbox-peek", limit=2)
    first = answer["items"][0]
    assert first["item"] == {
        "id": first["key"],
        "gateway": "gw-1",
        "epoch": desk.store.epoch,
        "stream": "summary/minute",
        "seq": 1,
        "ts": START,
        "data": {"n": 0},
    }
    assert (first["priority"], first["bytes"], first["unsynced"]) == ("normal", 7, False)
    rest = await desk.ask("outbox-peek", after=answer["next"])
    assert [row["item"]["data"]["n"] for row in rest["items"]] == [2, 9]
    assert rest["next"] is None
    only = await desk.ask("outbox-peek", stream="alert/spike", uplink="cloud")
    assert [row["priority"] for row in only["items"]] == ["high"]
    assert (await desk.store.stats("cloud")).rows == 4  # and all stay where they are


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 6000), max_size=150), limit=st.integers(1, 1000), page=st.integers(3000, 20_000))
async def test_pages_together_have_every_row_once_and_none_is_too_large(
    desk: Desk, sizes: list[int], limit: int, page: int
) -> None:
    await desk.ask("outbox-purge", uplink="cloud")
    await desk.ask("outbox-purge", uplink="archive")
    await desk.commit(*(NewItem("s", b'"' + b"x" * size + b'"', START, n % 3) for n, size in enumerate(sizes)))
    one = Desk(desk.store, page)
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        answer = await one.ask("outbox-peek", limit=limit, after=after)
        assert len(json.dumps(answer["items"])) < page * 1.2 or len(answer["items"]) == 1
        for row in answer["items"]:
            seen.append(row["bytes"] - 2)
            assert ("item" in row) != ("error" in row)
            assert ("error" in row) == (row["bytes"] > page - 2000)
        after = answer["next"]
    assert seen == sizes


async def test_a_thousand_long_rows_fit_into_answers(desk: Desk) -> None:
    await desk.commit(*(NewItem("s", b'"' + b'\\"' * 400 + b'"', START) for _ in range(1000)))
    answer = await desk.ask("outbox-peek", limit=1000)
    assert 100 < len(answer["items"]) < 1000
    assert answer["next"] == answer["items"][-1]["position"]


async def test_what_is_no_json_is_shown_with_how_it_begins(desk: Desk) -> None:
    await desk.commit(NewItem("s", b"\xff" * 5000, START))
    (row,) = (await desk.ask("outbox-peek"))["items"]
    assert "not_utf8" in row["error"]
    assert len(row["begins"]) == 1000
    await desk.bury(1)
    (letter,) = (await desk.ask("dead-peek"))["letters"]
    assert "bad_json" in letter["error"]


async def test_dead_letters_are_shown_sent_again_and_thrown_away(desk: Desk) -> None:
    await desk.commit(*(item(n=n) for n in range(5)))
    await desk.bury(4)
    letters = (await desk.ask("dead-peek"))["letters"]
    assert [(one["uplink"], one["reason"], one["detail"], one["data"]) for one in letters] == [
        ("cloud", "http_422", "no such site", {"n": n}) for n in range(4)
    ]
    assert letters[0]["at"] == "2025-06-15T15:06:40.000Z"
    assert await desk.ask("dead-requeue", ids=[letters[0]["id"], letters[1]["id"], 99_999]) == {"requeued": 2}
    assert desk.kicked == 1
    assert (await desk.store.stats("cloud")).rows == 3
    assert await desk.ask("dead-purge", ids=[letters[2]["id"]]) == {"purged": 1}
    assert await desk.ask("dead-requeue", all=True) == {"requeued": 1}
    assert (await desk.ask("dead-peek"))["letters"] == []


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        ({"stream": "a"}, {"cloud": 2, "archive": 2}),
        ({"uplink": "cloud"}, {"cloud": 0, "archive": 5}),
        ({"stream": "a", "uplink": "archive"}, {"cloud": 5, "archive": 2}),
        ({"stream": "nowhere"}, {"cloud": 5, "archive": 5}),
    ],
)
async def test_a_purge_gives_up_what_it_names_and_counts_it(
    desk: Desk, selection: dict[str, str], left: dict[str, int]
) -> None:
    await desk.commit(*(item("a", n) for n in range(3)), *(item("b", n) for n in range(2)))
    purged = (await desk.ask("outbox-purge", **selection))["purged"]
    assert {name: (await desk.store.stats(name)).rows for name in left} == left
    assert sum(drop.n for drop in await desk.store.drops() if drop.reason == "purged") == purged


async def test_a_long_purge_tells_how_far_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "NEWS", 0.0)
    news: list[Any] = []

    async def tell(one: Any) -> None:
        news.append(one)

    await desk.commit(*(item("a", n) for n in range(5000)))
    assert await desk.operations.purge({"stream": "a"}, tell) == {"purged": 5000}
    counts = [one["waiting"]["cloud"] for one in news]
    assert counts == sorted(counts, reverse=True)
    assert any(0 < n < 5000 for n in counts)


@pytest.mark.parametrize(
    ("verb", "arguments", "error"),
    [
        ("outbox-purge", {}, 'it needs {"stream": "…"} or {"uplink": "…"}'),
        ("outbox-purge", {"uplink": "cloud", "strem": "a"}, "unknown field `strem`; it takes stream, uplink"),
        ("outbox-purge", {"uplink": "clowd"}, "there is no uplink 'clowd'; there are archive, cloud"),
        ("outbox-peek", {"uplink": "clowd"}, "there is no uplink 'clowd'"),
        ("outbox-peek", {"limit": 1001}, "`int` <= 1000"),
        ("outbox-peek", {"after": "x"}, "Expected `int`"),
        ("outbox-status", {"all": True}, "it takes nothing"),
        ("dead-requeue", {}, 'it needs {"ids": [1, 2]} or {"all": true}'),
        ("dead-purge", {"ids": [1], "all": True}, 'it needs {"ids": [1, 2]} or {"all": true}'),
    ],
)
async def test_what_is_not_meant_clearly_is_refused(
    desk: Desk, verb: str, arguments: dict[str, Any], error: str
) -> None:
    await desk.commit(item("a"))
    with pytest.raises(CommandError) as caught:
        await desk.ask(verb, **arguments)
    assert error in str(caught.value)
    assert (await desk.store.stats("cloud")).rows == 1
