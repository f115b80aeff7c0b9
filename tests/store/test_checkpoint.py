"""Saved state: a snapshot and the deltas since, together with the items of the same commit."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit
from tests.store.helpers import a_store, item


def parts(*some: tuple[str, str, bytes]) -> Commit:
    return Commit(checkpoint=[CheckpointPart(owner, kind, data) for owner, kind, data in some])  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_a_snapshot_replaces_and_deltas_follow_in_order_over_a_restart(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(parts(("a", "snapshot", b"old"), ("a", "delta", b"lost"), ("b", "delta", b"1")))
        await store.commit(parts(("a", "snapshot", b"new"), ("b", "delta", b"2"), ("a", "delta", b"x")))
    async with a_store(path) as store:
        await store.commit(parts(("a", "delta", b"y")))
        assert await store.load_checkpoint() == {"a": [b"new", b"x", b"y"], "b": [b"1", b"2"]}


async def test_a_drop_removes_the_owner(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(parts(("a", "snapshot", b"1"), ("b", "snapshot", b"2")))
        await store.commit(parts(("a", "drop", b""), ("never seen", "drop", b"")))
        assert await store.load_checkpoint() == {"b": [b"2"]}
        await store.commit(parts(("a", "delta", b"again")))
        assert (await store.load_checkpoint())["a"] == [b"again"]


async def test_items_and_state_are_stored_together_or_not_at_all(path: Path) -> None:
    async with a_store(path) as store:
        wrong = CheckpointPart("a", "part", b"")  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="'part'; use snapshot, delta or drop"):
            await store.commit(Commit([item()], [CheckpointPart("a", "snapshot", b"1"), wrong]))
        assert await store.read("cloud", 9) == []
        assert await store.load_checkpoint() == {}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checkpoint SET data = x'00' WHERE owner = 'a' AND n = 0",
        "UPDATE checkpoint SET data = 'text' WHERE owner = 'a' AND n = 1",
        "DELETE FROM checkpoint WHERE owner = 'a' AND n = 1",
        "UPDATE checkpoint SET n = 5 WHERE owner = 'a' AND n = 1",
    ],
)
async def test_an_owner_with_a_damaged_part_starts_afresh_and_the_others_do_not(path: Path, damage: str) -> None:
    async with a_store(path) as store:
        await store.commit(parts(*[("a", "snapshot", b"1"), ("a", "delta", b"2"), ("a", "delta", b"3")]))
        await store.commit(parts(("b", "snapshot", b"4")))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'STRICT', '') WHERE name = 'checkpoint'")
    db.close()
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        assert await store.load_checkpoint() == {"b": [b"4"]}
        assert metrics.counters["checkpoint.damaged"] == 1
        await store.commit(parts(("a", "delta", b"fresh")))
        assert await store.load_checkpoint() == {"a": [b"fresh"], "b": [b"4"]}


async def test_a_part_that_turns_up_under_another_name_spoils_both(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(
            parts(("a", "snapshot", b"1"), ("a", "delta", b"2"), ("a", "delta", b"3"), ("b", "delta", b""))
        )
    with sqlite3.connect(path) as db:
        db.execute("UPDATE checkpoint SET owner = 'b' WHERE owner = 'a' AND n = 1")
    db.close()
    async with a_store(path) as store:
        assert await store.load_checkpoint() == {}
