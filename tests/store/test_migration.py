"""A store that version 1 has written is taken up with all that is in it."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from edgefn.errors import StoreError
from edgefn.store import Commit, Drop, schema
from tests.store.helpers import TurnedClock, a_store, item

VERSION_1 = Path(__file__).with_name("version1.sql")  # a dump of a file that version 1 has written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1.read_text())
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    return path


async def test_rows_accounts_drops_and_state_are_taken_up(path: Path) -> None:
    clock = TurnedClock()
    async with a_store(path, uplinks=("cloud", "lab"), clock=clock) as store:
        assert store.report.clean
        assert not store.report.fresh
        rows = await store.read("cloud", 9)
        assert [(one.stream, one.seq, one.priority, len(one.payload)) for one in rows] == [
            ("alert/spike", 1, 2, 7),
            *[("summary/minute", n, 1, 7) for n in (1, 2, 3, 4)],
            ("summary/slow", 1, 0, 100),
        ]
        assert {(one.epoch, one.made, one.unsynced) for one in rows} == {("02fda134", 0, False)}
        assert {(one.name, one.rows, one.bytes) for one in await store.streams()} == {
            ("alert/spike", 1, 7),
            ("summary/minute", 4, 28),
            ("summary/slow", 1, 100),
        }
        assert [(await store.stats(name)).rows for name in ("cloud", "lab")] == [6, 4]
        assert await store.drops() == [Drop("02fda134", "summary/minute", "lab", "refused", 1)]
        assert await store.load_checkpoint() == {"keys rooms/+": [b"state"]}
        clock.turn(1000)
        assert 4 not in [one.seq for one in await store.read("cloud", 9)]  # it had an end
        [new] = await store.commit(Commit([dataclasses.replace(item("summary/minute"), summary=b"1")]))
        assert (new.seq, new.epoch) == (5, "02fda134")
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        assert store.report.clean
        assert len(await store.read("cloud", 9)) == 6


async def test_a_step_that_fails_leaves_version_1_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (schema._V1, schema._V2 + "CREATE TABLE meta (again);"))
    with pytest.raises((StoreError, sqlite3.Error), match="meta"):
        await a_store(path, uplinks=None).__aenter__()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert [row[1] for row in db.execute("PRAGMA table_info(item_1)")][-1] == "payload"
    db.close()
