"""What an uplink refused for good is kept whole, comes back under its key, or is thrown away, and always accounted for."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgefn.metrics import Metrics
from edgefn.store import Commit, Drop, Refused, dead
from tests.store.helpers import START, TurnedClock, a_store, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_a_refused_item_is_kept_with_what_the_far_side_said_and_blocks_nothing(path: Path) -> None:
    clock = TurnedClock()
    async with a_store(path, clock=clock) as store:
        stored = await store.commit(Commit([item("a", n) for n in range(3)]))
        clock.turn(2)
        ids = [one.id for one in stored]
        await store.acknowledge("cloud", ids, refused={ids[1]: Refused("http_400", "no such column")})
        assert await store.read("cloud", 9) == []
        assert await store.drops() == []
    async with a_store(path) as store:
        [letter] = await store.dead(9)
        assert (letter.key, letter.stream, letter.payload) == (stored[1].key, "a", stored[1].payload)
        assert (letter.uplink, letter.at) == ("cloud", START + 2_000_000_000)
        assert (letter.kind, letter.reason, letter.detail) == ("item", "http_400", "no such column")
        assert await store.dead(9, after=letter.id) == []


async def test_a_requeued_item_goes_to_the_uplink_that_refused_it_under_its_old_key(path: Path) -> None:
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        stored = await store.commit(Commit([item("a", n) for n in range(3)]))
        ids = [one.id for one in stored]
        await store.acknowledge("cloud", ids, refused={ids[0]: Refused("no"), ids[2]: Refused("no")})
        [first, second] = await store.dead(9)
        assert await store.requeue([first.id, first.id, 999]) == 1
        assert await store.dead(9) == [second]
        [again] = await store.read("cloud", 9)
        assert (again.key, again.ts, again.payload) == (stored[0].key, stored[0].ts, stored[0].payload)
        assert len(await store.read("lab", 9)) == 3
        await store.acknowledge("cloud", [again.id])
        assert await store.requeue(None) == 1
        await store.commit(Commit([item("a", 3)]))
        assert [one.seq for one in await store.read("cloud", 9)] == [3, 4]
        await store.acknowledge("lab", ids)
        await store.acknowledge("cloud", [one.id for one in await store.read("cloud", 9)])
        assert [(one.rows, one.bytes) for one in await store.streams()] == [(1, 7)]  # the newest waits for the lab
        assert await store.drops() == []
    unclean(path)
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        assert store.report.lost == 0


def unclean(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
    db.close()


async def test_letters_of_a_removed_uplink_stay_until_they_are_purged(path: Path) -> None:
    async with a_store(path) as store:
        [stored] = await store.commit(Commit([item("a")]))
        await store.acknowledge("cloud", [], refused={stored.id: Refused("no")})
        await store.use_uplinks(["lab"])
        assert await store.requeue(None) == 0
        assert await store.purge_dead(None) == 1
        assert await store.dead(9) == []
        assert await store.drops() == [Drop(store.epoch, "a", "cloud", "purged", 1)]


@pytest.mark.parametrize("bound", ["MAX_ROWS", "MAX_BYTES"])
async def test_letters_are_bounded_and_the_oldest_go_and_are_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(dead, bound, 3 if bound == "MAX_ROWS" else 300)
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        stored = await store.commit(Commit([item("a", n, size=100) for n in range(5)]))
        for one in stored:
            await store.acknowledge("cloud", [], refused={one.id: Refused("r" * 500, "d" * 5000)})
        assert [letter.key for letter in await store.dead(9)] == [one.key for one in stored[2:]]
        assert {(len(letter.reason), len(letter.detail)) for letter in await store.dead(9)} == {(64, 1000)}
        assert await store.drops() == [Drop(store.epoch, "a", "cloud", "refused", 2)]
        assert metrics.counters["outbox.dropped.refused"] == 2


async def test_a_damaged_letter_is_not_sent_again(path: Path) -> None:
    async with a_store(path) as store:
        [stored] = await store.commit(Commit([item("a")]))
        await store.acknowledge("cloud", [], refused={stored.id: Refused("no")})
    with sqlite3.connect(path) as db:
        db.execute("UPDATE dead SET payload = x'00'")
    db.close()
    async with a_store(path) as store:
        assert await store.requeue(None) == 0
        assert await store.read("cloud", 9) == []
        assert await store.drops() == [Drop(store.epoch, "a", "cloud", "damaged", 1)]
