"""What an operator sees of the outbox and can do with it: peek, streams, purge; and what an uplink has spent."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from edgefn.store import Commit, Drop, Refused, Spent, reading
from tests.store.helpers import a_store, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_peeking_shows_the_oldest_first_and_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SCAN_ROWS", 4)
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        lab = dataclasses.replace(item("c"), uplinks=frozenset({"lab"}))
        stored = await store.commit(Commit([item("ab"[n % 2], n, n % 3) for n in range(20)] + [lab]))
        assert await store.peek(3) == stored[:3]
        assert await store.peek(99) == stored
        assert await store.peek(99, after=stored[7].id) == stored[8:]
        assert await store.peek(3, stream="b") == [one for one in stored if one.stream == "b"][:3]
        assert await store.peek(99, uplink="cloud") == stored[:-1]
        assert await store.peek(99, stream="c", uplink="lab") == stored[-1:]
        assert await store.peek(99, stream="z") == []
        assert (await store.stats("lab")).rows == 21


async def test_streams_tell_what_they_hold_and_what_was_given_up(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item("a", priority=2, size=50), item("b", size=70), item("a", size=50)]))
        await store.purge(stream="b")
        assert [(one.name, one.rows, one.bytes, one.priority, dict(one.dropped)) for one in await store.streams()] == [
            ("a", 2, 100, 2, {}),
            ("b", 0, 0, 1, {"purged": 1}),
        ]
        assert {one.epoch for one in await store.streams()} == {store.epoch}


async def test_purging_gives_up_what_waits_now_and_counts_it(path: Path) -> None:
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        await store.commit(Commit([item("ab"[n % 2], n, n % 3) for n in range(12)]))
        assert await store.purge(stream="a", uplink="lab") == 6
        assert {one.stream for one in await store.read("lab", 99)} == {"b"}
        assert len(await store.read("cloud", 99)) == 12
        assert await store.purge(stream="b") == 6
        assert await store.purge() == 6
        assert await store.purge() == 0
        assert await store.drops() == [
            Drop(store.epoch, "a", "", "purged", 6),
            Drop(store.epoch, "a", "lab", "purged", 6),
            Drop(store.epoch, "b", "", "purged", 6),
        ]
        [new] = await store.commit(Commit([item("a")]))
        assert await store.read("lab", 9) == [new]


async def test_streams_of_an_earlier_epoch_are_forgotten_when_there_is_nothing_more_to_tell(path: Path) -> None:
    async with a_store(path) as store:
        stored = await store.commit(Commit([item(name) for name in ("sent", "held", "dropped", "dead")]))
        await store.acknowledge("cloud", [stored[0].id, stored[3].id], refused={stored[3].id: Refused("no")})
        await store.purge(stream="dropped")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '00000000' WHERE name = 'epoch'")
    db.close()
    async with a_store(path) as store:
        assert [one.name for one in await store.streams()] == ["dead", "dropped", "held"]
        [new] = await store.commit(Commit([item("sent")]))
        assert new.key == "gw-1/00000000/sent/1"
        await store.acknowledge("cloud", [one.id for one in await store.read("cloud", 9)])
        await store.requeue(None)
    async with a_store(path) as store:
        assert [one.name for one in await store.streams()] == ["dead", "dropped", "sent"]
        assert [one.stream for one in await store.read("cloud", 9)] == ["dead"]


async def test_what_an_uplink_has_spent_is_kept(path: Path) -> None:
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        assert await store.spent("cloud") is None
        await store.acknowledge("cloud", [], spent=Spent(20_000, 77))
        [one] = await store.commit(Commit([item("a")]))
        await store.acknowledge("cloud", [one.id])
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        assert await store.spent("cloud") == Spent(20_000, 77)
        assert await store.spent("lab") is None
