"""After an unclean end all rows are counted: the newest before anything is stored, the others while items flow."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit, Drop, Store, audit, store
from tests.store.helpers import a_store, item

ROWS = 60


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "STEP", 4)
    monkeypatch.setattr(audit, "AT_ONCE", 8)
    monkeypatch.setattr(store, "PAUSE", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def filled(path: Path, *changes: str) -> str:
    """A store of 20 rows each of the streams a, b and c that was not closed in order, changed since; its epoch."""
    async with a_store(path) as one:
        for n in range(ROWS // 3):
            await one.commit(Commit([item("a", n, 0), item("b", n, 1), item("c", n, 2)]))
        epoch = one.epoch
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
        for change in changes:
            db.execute(change)
    db.close()
    return epoch


async def test_a_long_backlog_is_counted_after_the_start(path: Path) -> None:
    epoch = await filled(path)
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as one:
        assert not one.report.clean
        assert one._ledger.census is not None  # not through yet
        await one.audited()
        assert one._ledger.census is None
        assert (one.epoch, await one.drops(), (await one.stats("cloud")).rows) == (epoch, [], ROWS)
        assert metrics.counters == {}
    async with a_store(path) as one:
        assert one.report.clean


async def test_missing_rows_are_counted_as_lost(path: Path) -> None:
    epoch = await filled(path, "DELETE FROM item_1 WHERE seq IN (3, 4)", "DELETE FROM item_2 WHERE seq = 2")
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as one:
        assert one.report.lost == 0
        await one.audited()
        assert await one.drops() == [Drop(epoch, "b", "", "lost", 2), Drop(epoch, "c", "", "lost", 1)]
        assert metrics.counters == {"outbox.dropped.lost": 3}
        assert (await one.stats("cloud")).rows == ROWS - 3
    async with a_store(path, metrics=metrics) as one:
        assert one.report.clean
        assert metrics.counters == {"outbox.dropped.lost": 3}


async def test_a_number_that_was_forgotten_begins_a_new_epoch(path: Path) -> None:
    """Far from the newest rows, so that only the audit meets it."""
    epoch = await filled(path, "UPDATE item_1 SET seq = 1000 WHERE seq = 2")
    async with a_store(path) as one:
        assert one.epoch == epoch
        await one.audited()
        assert one.epoch != epoch
        [new] = await one.commit(Commit([item("b")]))
        assert (new.epoch, new.seq) == (one.epoch, 1)


async def test_one_among_the_newest_begins_it_before_anything_is_stored(path: Path) -> None:
    epoch = await filled(path, "UPDATE account SET next_seq = 15, crc = NULL WHERE id = 2")
    async with a_store(path) as one:
        assert one.epoch != epoch
        assert one.report.torn


async def test_one_that_is_not_through_begins_again_with_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path, "DELETE FROM item_1 WHERE seq = 3")
    monkeypatch.setattr(store, "PAUSE", 1000.0)
    async with a_store(path) as one:
        assert await one.drops() == []
    monkeypatch.setattr(store, "PAUSE", 0.0)
    async with a_store(path) as one:
        assert not one.report.clean
        await one.audited()
        assert [(drop.stream, drop.reason, drop.n) for drop in await one.drops()] == [("b", "lost", 1)]


async def some_work(one: Store, chance: random.Random) -> None:
    """Items come and go, and now and then a transaction is rolled back."""
    for _ in range(chance.randrange(3)):
        await one.commit(Commit([item(chance.choice("abc"), priority=chance.randrange(3))]))
    waiting = [item.id for item in await one.read("cloud", 100, oldest_first=chance.random() < 0.5)]
    some = chance.sample(waiting, min(len(waiting), chance.randrange(8)))
    acknowledging = one.acknowledge("cloud", some)
    if chance.random() < 0.2:
        # In one transaction with a wrong commit: what it did is rolled back, and done again by itself.
        wrong = one.commit(Commit([item("a")], [CheckpointPart("x", "part")]))  # type: ignore[arg-type]
        done, failed = await asyncio.gather(acknowledging, wrong, return_exceptions=True)
        assert done is None
        assert isinstance(failed, StoreError)
    else:
        await acknowledging


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("lost", [0, 3])
async def test_items_flow_meanwhile_and_the_counts_are_exact(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, lost: int
) -> None:
    chance = random.Random(seed)
    missing = sorted(chance.sample(range(2, ROWS // 3 - 3), lost))
    await filled(path, f"DELETE FROM item_1 WHERE seq IN ({', '.join(map(str, missing))})")
    recounts = []
    recount = audit.recount
    monkeypatch.setattr(audit, "recount", lambda db, ledger: recounts.append(1) or recount(db, ledger))
    async with a_store(path) as one:
        while one._ledger.census is not None:
            await some_work(one, chance)
        assert len(recounts) == (1 if lost else 0)
        assert sum(drop.n for drop in await one.drops()) == lost
        left = len(await one.read("cloud", 1000))
        assert (await one.stats("cloud")).rows == left
        assert sum(stream.rows for stream in await one.streams()) == left
