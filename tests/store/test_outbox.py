"""Items go in with dense numbers, come out in order, and leave when every uplink has them."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.errors import ConfigError, StoreError
from edgefn.metrics import Metrics
from edgefn.store import Commit, Drop, reading
from tests.store.helpers import TurnedClock, a_store, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_items_are_numbered_per_stream_and_named_for_ever(path: Path) -> None:
    async with a_store(path) as store:
        stored = await store.commit(Commit([item("a"), item("b"), item("a")]))
        assert [(one.stream, one.seq) for one in stored] == [("a", 1), ("b", 1), ("a", 2)]
        assert stored[2].key == f"gw-1/{store.epoch}/a/2"
        assert (stored[2].gateway, stored[2].epoch) == ("gw-1", store.epoch)
        assert await store.read("cloud", 10) == stored


async def test_numbers_go_on_after_a_restart_even_when_nothing_is_left(path: Path) -> None:
    async with a_store(path) as store:
        epoch = store.epoch
        stored = await store.commit(Commit([item("a"), item("a")]))
        await store.acknowledge("cloud", [one.id for one in stored])
    async with a_store(path) as store:
        assert store.epoch == epoch
        assert store.report.clean
        [again] = await store.commit(Commit([item("a")]))
        assert again.seq == 3


async def test_reading_again_gives_the_same_until_acknowledged(path: Path) -> None:
    async with a_store(path) as store:
        stored = await store.commit(Commit([item(n=n) for n in range(5)]))
        assert await store.read("cloud", 2) == stored[:2]
        assert await store.read("cloud", 2) == stored[:2]
        await store.acknowledge("cloud", [one.id for one in stored[:2]])
        await store.acknowledge("cloud", [one.id for one in stored[:2]])  # late and twice: harmless
        assert await store.read("cloud", 9) == stored[2:]


async def test_high_priority_first_or_oldest_first(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item("low", priority=0), item("normal"), item("high", priority=2), item("low")]))
        assert [one.stream for one in await store.read("cloud", 9)] == ["high", "normal", "low", "low"]
        assert [one.stream for one in await store.read("cloud", 3, oldest_first=True)] == ["low", "normal", "high"]


async def test_a_stream_keeps_one_priority_while_it_has_rows_so_that_it_stays_in_order(path: Path) -> None:
    async with a_store(path) as store:
        stored = await store.commit(Commit([item("a", priority=1), item("a", priority=2)]))
        assert [(one.seq, one.priority) for one in stored] == [(1, 1), (2, 1)]
        await store.acknowledge("cloud", [one.id for one in stored])
        [later] = await store.commit(Commit([item("a", priority=2)]))
        assert later.priority == 2


async def test_reading_after_a_position_gives_what_was_stored_since(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SCAN_ROWS", 4)
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        await store.commit(Commit([item("a"), item("b", priority=0)]))
        position = store.position()
        assert await store.read("cloud", 9, after=position) == []
        only_lab = dataclasses.replace(item("a"), uplinks=frozenset({"lab"}))
        await store.commit(Commit([only_lab] * 9))
        [live] = await store.commit(Commit([item("b", priority=0)]))
        assert await store.read("cloud", 9, after=position) == [live]
        assert [(one.stream, one.seq) for one in await store.read("cloud", 9)] == [("a", 1), ("b", 1), ("b", 2)]


async def test_a_row_says_when_it_was_made_by_the_clock_that_only_goes_forward(path: Path) -> None:
    clock = TurnedClock()
    async with a_store(path, clock=clock) as store:
        clock.turn(5)
        [stored] = await store.commit(Commit([item("a")]))
        assert (stored.made, stored.unsynced) == (5_000_000_000, False)
        assert await store.read("cloud", 1) == [stored]


async def test_a_batch_is_bounded_by_bytes_but_never_empty(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item(n=n, size=100) for n in range(5)] + [item("big", size=900)]))
        assert len(await store.read("cloud", 9, max_bytes=250)) == 2
        assert len(await store.read("cloud", 9, max_bytes=250, oldest_first=True)) == 2
        assert len(await store.read("cloud", 9, max_bytes=1)) == 1


async def test_an_item_stays_until_every_uplink_has_it(path: Path) -> None:
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        stored = await store.commit(Commit([item(n=n) for n in range(3)]))
        await store.acknowledge("cloud", [one.id for one in stored])
        assert await store.read("cloud", 9) == []
        assert await store.read("lab", 9) == stored
        assert (await store.stats("cloud")).rows == 0
        assert (await store.stats("lab")).rows == 3
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        assert [one.key for one in await store.read("lab", 9)] == [one.key for one in stored]


async def test_an_item_may_be_for_some_uplinks_only(path: Path) -> None:
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        only_lab = dataclasses.replace(item("a"), uplinks=frozenset({"lab"}))
        nobody = dataclasses.replace(item("a"), uplinks=frozenset())
        await store.commit(Commit([only_lab, nobody]))
        assert (await store.stats("cloud")).rows == 0
        assert [one.seq for one in await store.read("lab", 9)] == [1]
        assert await store.drops() == [Drop(store.epoch, "a", "", "no_uplink", 1)]
        with pytest.raises(ConfigError, match=r"'moon'.*known: 'cloud', 'lab'"):
            await store.commit(Commit([dataclasses.replace(item("a"), uplinks=frozenset({"moon"}))]))


async def test_an_uplink_added_later_starts_with_new_items_and_a_removed_one_holds_nothing(path: Path) -> None:
    async with a_store(path, uplinks=("cloud",)) as store:
        await store.commit(Commit([item("a")]))
        await store.use_uplinks(["cloud", "lab"])
        assert await store.read("lab", 9) == []
        await store.commit(Commit([item("a")]))
        assert [one.seq for one in await store.read("lab", 9)] == [2]
        await store.use_uplinks(["lab"])
        assert await store.drops() == [Drop(store.epoch, "a", "cloud", "uplink_removed", 2)]
        with pytest.raises(ConfigError, match="cloud"):
            await store.read("cloud", 9)
        [left] = await store.read("lab", 9)
        await store.acknowledge("lab", [left.id])
        await store.use_uplinks(["next", "lab"])  # it gets the bit that was free
        await store.commit(Commit([item("a")]))
        assert [one.seq for one in await store.read("next", 9)] == [3]


async def test_one_uplink_passes_over_what_waits_for_another_in_bounded_steps(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SCAN_ROWS", 4)
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        stored = await store.commit(Commit([item(n=n) for n in range(30)]))
        await store.acknowledge("lab", [one.id for one in stored[:25]])
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        seen: list[int] = []
        while batch := await store.read("lab", 9):
            seen += [one.seq for one in batch]
            assert (await store.stats("lab")).oldest_s == 0
            await store.acknowledge("lab", [one.id for one in batch])
        assert seen == [26, 27, 28, 29, 30]


async def test_an_expired_item_is_dropped_when_its_turn_comes(path: Path) -> None:
    clock = TurnedClock()
    async with a_store(path, clock=clock) as store:
        await store.commit(Commit([dataclasses.replace(item("a"), ttl=10), item("a")]))
        assert len(await store.read("cloud", 9)) == 2
        clock.turn(1)
        assert [one.seq for one in await store.read("cloud", 9)] == [2]
        assert [(drop.reason, drop.n) for drop in await store.drops()] == [("expired", 1)]


async def test_over_the_quota_the_oldest_of_the_lowest_priority_goes(path: Path) -> None:
    metrics = Metrics()
    async with a_store(path, max_bytes=1000, metrics=metrics) as store:
        await store.commit(Commit([item("high", n, 2, 100) for n in range(4)]))
        await store.commit(Commit([item("low", n, 0, 100) for n in range(4)]))
        await store.commit(Commit([item("normal", n, 1, 100) for n in range(5)]))
        left = await store.read("cloud", 99)
        assert [(one.stream, one.seq) for one in left] == (
            [("high", n) for n in (1, 2, 3, 4)] + [("normal", n) for n in (1, 2, 3, 4, 5)] + [("low", 4)]
        )
        await store.commit(Commit([item("normal", n, 1, 100) for n in range(4)]))
        assert [one.seq for one in await store.read("cloud", 99) if one.stream == "normal"] == [4, 5, 6, 7, 8, 9]
        assert (await store.stats("cloud")).bytes == 1000
        assert metrics.counters["outbox.dropped.quota"] == 7
        await store.acknowledge("cloud", [left[4].id])  # was on its way when the quota took it
        assert sum(drop.n for drop in await store.drops()) == 7


async def test_age_and_size_of_what_waits(path: Path) -> None:
    clock = TurnedClock()
    async with a_store(path, clock=clock) as store:
        assert await store.stats("cloud") == reading.Stats(0, 0, None)
        stored = await store.commit(Commit([item("a", size=50), item("b", size=50, priority=0)]))
        clock.turn(3)
        assert await store.stats("cloud") == reading.Stats(2, 100, 3.0)
        await store.acknowledge("cloud", [one.id for one in stored])
        assert await store.stats("cloud") == reading.Stats(0, 0, None)


@pytest.mark.parametrize(
    "damage",
    [
        "payload = CAST('{\"n\":9}' AS BLOB)",
        "seq = 7",
        "ts = ts + 1",
        "expires = 5000000000000000000",
        "era = 1",
        "own = 0",
        "made = made + 1",
        "summary = x'00'",
        "crc = crc + 1",
        "stream = 99",
    ],
)
async def test_a_damaged_row_is_dropped_and_never_sent(path: Path, damage: str) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item("a", n=n) for n in range(3)]))
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE item_1 SET {damage} WHERE seq = 2")
    db.close()
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        assert [one.seq for one in await store.read("cloud", 9)] == [1, 3]
        assert [drop.reason for drop in await store.drops()] == ["damaged"]
        assert metrics.counters["outbox.dropped.damaged"] == 1


@pytest.mark.parametrize("wrong", [item(""), item("a", priority=3), item("a", ts=1 << 70)])
async def test_a_wrong_item_stores_nothing_of_its_commit(path: Path, wrong: object) -> None:
    async with a_store(path) as store:
        with pytest.raises(StoreError, match="an item of stream"):
            await store.commit(Commit([item("a"), wrong]))  # type: ignore[list-item]
        assert (await store.stats("cloud")).rows == 0
        [first] = await store.commit(Commit([item("a")]))
        assert first.seq == 1


_step = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=6)),
    st.tuples(st.just("send"), st.tuples(st.sampled_from(["cloud", "lab"]), st.integers(1, 5), st.booleans())),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_step, max_size=15))
async def test_whatever_happens_every_stream_adds_up_and_ascends(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    """Given out = delivered + dropped + stored, for each uplink, with a quota that bites."""
    path = tmp_path_factory.mktemp("model") / "store.db"
    given_out: dict[str, int] = defaultdict(int)
    delivered: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in ("cloud", "lab")}
    store = a_store(path, uplinks=("cloud", "lab"), max_bytes=400)
    await store.__aenter__()
    for what, arguments in steps:
        if what == "commit":
            new = [item(stream, 0, priority, 40) for stream, priority in arguments]  # type: ignore[attr-defined]
            for one in await store.commit(Commit(new)):
                given_out[one.stream] += 1
                assert one.seq == given_out[one.stream]
        elif what == "send":
            uplink, limit, oldest_first = arguments  # type: ignore[misc]
            batch = await store.read(uplink, limit, oldest_first=oldest_first)
            for one in batch:
                delivered[uplink][one.stream].append(one.seq)
            await store.acknowledge(uplink, [one.id for one in batch])
        else:
            await store.close()
            store = a_store(path, uplinks=("cloud", "lab"), max_bytes=400)
            await store.__aenter__()
    dropped: dict[str, int] = defaultdict(int)
    for drop in await store.drops():
        dropped[drop.stream] += drop.n
    for uplink in ("cloud", "lab"):
        waiting = await store.read(uplink, 1000)
        assert (await store.stats(uplink)).rows == len(waiting)
        for one in waiting:
            delivered[uplink][one.stream].append(one.seq)
        for stream, seqs in delivered[uplink].items():
            assert seqs == sorted(set(seqs))
            assert given_out[stream] - dropped[stream] <= len(seqs) <= given_out[stream]
    await store.close()


async def test_a_row_that_nobody_waits_for_any_more_is_damaged_and_counted(path: Path) -> None:
    """Such a row would have been deleted: a bit of the mark of who must still have it has flipped."""
    async with a_store(path) as store:
        await store.commit(Commit([item(n=n) for n in range(3)]))
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE item_1 SET pending = 0 WHERE seq = 2")
    db.close()
    async with a_store(path) as store:
        assert [one.seq for one in await store.read("cloud", 10)] == [1, 3]
        assert [(drop.reason, drop.n) for drop in await store.drops()] == [("damaged", 1)]
        assert await store.peek(10) == await store.read("cloud", 10)
