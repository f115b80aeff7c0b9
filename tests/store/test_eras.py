"""Rows of several boots, some of which never knew the time: what is put right, what stays, and what says so."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.clock import NS, STEP
from edgefn.errors import StoreError
from edgefn.store import Commit, Store, eras
from edgefn.store.ledger import Era, Ledger
from edgefn.store.schema import MIGRATIONS
from edgefn.timestamps import to_iso
from tests.store.helpers import START, a_store, item

HOUR = 3600 * NS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def put(store: Store, ts: int) -> None:
    own = dataclasses.replace(item("own", ts=ts), payload=b'{"ts":"%s"}' % to_iso(ts).encode())
    await store.commit(Commit([own, dataclasses.replace(own, stream="device", own_clock=False)]))


async def told(store: Store) -> list[tuple[int, bool]]:
    """Of the rows by the gateway's clock: what they are stamped by now, and whether that is doubtful."""
    rows = await store.read("cloud", 1000, oldest_first=True)
    assert all(json.loads(row.payload)["ts"] == to_iso(row.ts) for row in rows)
    assert [row.ts for row in rows if row.stream == "device"] == [START] * (len(rows) // 2)
    return [(row.ts - START, row.unsynced) for row in rows if row.stream == "own"]


async def test_rows_of_before_the_clock_was_right_move_when_it_is(path: Path) -> None:
    async with a_store(path) as store:
        await store.begin_era("b1", 0, False)
        await put(store, START)
        assert await told(store) == [(0, True)]
        await store.begin_era("b1", 8 * HOUR, True)
        assert await told(store) == [(8 * HOUR, False)]
    async with a_store(path) as store:
        assert await told(store) == [(8 * HOUR, False)]


async def test_a_boot_that_never_knew_the_time_leaves_rows_that_say_so(path: Path) -> None:
    async with a_store(path) as store:
        await store.begin_era("b1", 0, False)
        await put(store, START)
    async with a_store(path) as store:
        await store.begin_era("b2", 5 * HOUR, False)
        await put(store, START)
        await store.begin_era("b2", 6 * HOUR, True)
        await put(store, START)
        assert await told(store) == [(0, True), (HOUR, False), (0, False)]
        # What was right stays as it is, whatever the clock is set to later.
        await store.begin_era("b2", 20 * HOUR, True)
        assert await told(store) == [(0, True), (HOUR, False), (0, False)]


async def test_a_clock_that_is_set_while_doubtful_moves_rows_and_leaves_them_doubtful(path: Path) -> None:
    async with a_store(path) as store:
        await store.begin_era("b1", 0, False)
        await put(store, START)
        await store.begin_era("b1", HOUR, False)
        await put(store, START)
        assert await told(store) == [(HOUR, True), (0, True)]
        await store.begin_era("b1", 0, False)
        assert await told(store) == [(0, True), (-HOUR, True)]


async def test_a_step_that_the_disk_refuses_leaves_rows_in_the_era_before(path: Path) -> None:
    async with a_store(path) as store:
        await store.begin_era("b1", 0, False)
        await put(store, START)
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON era WHEN new.id = 2 BEGIN SELECT RAISE (ABORT, 'no'); END"
        await store._database.transact(lambda db, _: db.execute(refuse) and None)
        with pytest.raises(StoreError):
            await store.begin_era("b1", 8 * HOUR, True)
        await put(store, START)
        assert await told(store) == [(0, True)] * 2
        await store._database.transact(lambda db, _: db.execute("DROP TRIGGER refuse") and None)
        await store.begin_era("b1", 8 * HOUR, True)
        assert await told(store) == [(8 * HOUR, False)] * 2


async def test_starting_again_and_again_keeps_one_era(path: Path) -> None:
    for n in range(5):
        async with a_store(path) as store:
            await store.begin_era("b1", n, True)
            await put(store, START)
            assert await store.newest_era() == Era(1, "b1", 0, True)


async def test_eras_are_forgotten_when_nothing_is_stored(path: Path) -> None:
    async with a_store(path) as store:
        for boot in range(5):
            await store.begin_era(f"b{boot}", boot * HOUR, False)
        assert sorted(store._ledger.eras) == [1]
        await put(store, START)
        for boot in range(5, 8):
            await store.begin_era(f"b{boot}", boot * HOUR, False)
        assert sorted(store._ledger.eras) == [1, 2, 3, 4]
        await store.acknowledge("cloud", [row.id for row in await store.read("cloud", 2)])
        await store.begin_era("b9", 0, True)
        assert sorted(store._ledger.eras) == [1]
    async with a_store(path) as store:
        assert await store.newest_era() == Era(1, "b9", 0, True)


def test_a_store_that_never_drains_keeps_those_that_have_rows_in_whatever_order() -> None:
    db, ledger = in_memory()
    kept = set()
    for boot in range(3 * eras.MANY):
        eras.begin(db, ledger, f"b{boot}", boot * HOUR, False)
        if boot % 50 == 0:
            kept.add(ledger.era)
            _insert(db, 4 * (10_000 - boot), ledger.era)
        assert kept <= ledger.eras.keys()
        assert len(ledger.eras) <= eras.MANY + 1
    ledger.load(db)
    assert kept <= ledger.eras.keys()
    db.close()


def in_memory() -> tuple[sqlite3.Connection, Ledger]:
    db, ledger = sqlite3.connect(":memory:", isolation_level=None), Ledger()
    db.executescript("".join(MIGRATIONS))
    db.execute("INSERT INTO meta VALUES ('epoch', 'e')")
    ledger.load(db)
    return db, ledger


_times = st.sampled_from([0, HOUR, -HOUR, 5 * HOUR, STEP, STEP - 1])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["b1", "b2", "b3"]), _times, st.booleans(), st.integers(0, 2)), max_size=25))
def test_every_row_is_where_the_plain_rule_puts_it(steps: list[tuple[str, int, bool, int]]) -> None:
    """A doubtful row moves to the newest offset of its boot, until that is right; each boot comes once."""
    db, ledger = in_memory()
    rows: list[list[object]] = []  # id, boot, offset, shift, doubtful: as they should be
    id_ = 0
    for boot, offset, synced, stored in sorted(steps, key=lambda step: step[0]):
        eras.begin(db, ledger, boot, offset, synced)
        for row in rows:
            if row[1] == boot and row[4]:
                row[3], row[4] = offset - int(str(row[2])), not synced
        for _ in range(stored):
            id_ += 4
            _insert(db, id_, ledger.era)
            rows.append([id_, boot, offset, 0, not synced])
        if stored == 0 and rows:
            db.execute("DELETE FROM item_0 WHERE id = ?", (rows.pop(0)[0],))
        ledger.load(db)
    for id_, _, _, shift, doubtful in rows:  # type: ignore[assignment]
        era = ledger.eras[db.execute("SELECT era FROM item_0 WHERE id = ?", (id_,)).fetchone()[0]]
        assert abs(era.shift - int(str(shift))) < 2 * STEP
        assert era.synced == (not doubtful)
    db.close()


def _insert(db: sqlite3.Connection, id_: int, era: int) -> None:
    columns = "id, stream, seq, ts, pending, crc, payload, era"
    db.execute(f"INSERT INTO item_0 ({columns}) VALUES (?, 1, 1, 0, 1, 0, x'', ?)", (id_, era))
