"""What is found at the start: another process, another program, a newer schema, damage, and what a crash left."""

# ruff: noqa: ASYNC221
# A test has nothing else to do meanwhile.
from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgefn.errors import ConfigError, StoreError
from edgefn.metrics import Metrics
from edgefn.store import Commit, Drop
from edgefn.store.files import WalTail, read_wal_tail, wal_path
from tests.store.helpers import a_store, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def with_items(path: Path, n: int) -> str:
    async with a_store(path) as store:
        for number in range(n):
            await store.commit(Commit([item("a", number)]))
        return store.epoch


async def crashed(path: Path, n: int) -> str:
    """A store as a power cut leaves it: with its log, and without the mark of a proper end."""
    async with a_store(path) as store:
        for number in range(n):
            await store.commit(Commit([item("a", number)]))
        copies = {file: file.read_bytes() for file in (path, wal_path(path))}
        epoch = store.epoch
    for file, data in copies.items():
        file.write_bytes(data)
    return epoch


async def test_two_fresh_stores_have_different_epochs(tmp_path: Path) -> None:
    first, second = await with_items(tmp_path / "1.db", 0), await with_items(tmp_path / "2.db", 0)
    assert first != second
    assert len(first) == 8


async def test_the_folder_is_made_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "store.db"
    await with_items(path, 0)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_second_process_is_told_who_has_the_store(path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from tests.store.helpers import a_store
async def main():
    async with a_store(Path({str(path)!r})):
        pass
asyncio.run(main())
"""
    async with a_store(path):
        second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "StoreInUseError" in second.stderr
    assert "has this store open" in second.stderr
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_there_is_one_connection_to_the_file_and_no_shared_memory(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item("a")]))
        assert not path.with_name("store.db-shm").exists()
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT * FROM item_1")
        other.close()


async def test_closing_twice_is_harmless_and_a_closed_store_says_so(path: Path) -> None:
    store = a_store(path)
    async with store:
        await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.commit(Commit([item()]))


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/edgefn")):
        with pytest.raises(StoreError, match=f"cannot write in the folder {folder}.*make it writable"):
            await a_store(folder / "store.db").__aenter__()


async def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    await with_items(path, 1)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"version 99 and this edgefn knows up to 2; install the newer"):
        await a_store(path).__aenter__()
    assert path.read_bytes() == before


async def test_the_database_of_another_program_is_refused_and_not_touched(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        await a_store(path).__aenter__()
    assert path.read_bytes() == before


async def test_another_program_in_our_file_is_told_apart_from_damage(path: Path) -> None:
    await with_items(path, 1)
    db = sqlite3.connect(path)
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another program has it open"):
        await a_store(path).__aenter__()
    db.close()


def not_a_database(path: Path) -> None:
    path.write_bytes(b"a letter, not a database. " * 500)


def torn_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    mark_unclean(path)


def zeros_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)


def mark_unclean(path: Path) -> None:
    try:
        with sqlite3.connect(path) as db:
            db.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
    except sqlite3.DatabaseError:
        pass  # too damaged for that as well
    finally:
        db.close()


@pytest.mark.parametrize("damage", [not_a_database, torn_in_half, zeros_in_the_middle])
async def test_a_damaged_file_is_set_aside_and_a_fresh_one_begun(path: Path, damage: object) -> None:
    epoch = await with_items(path, 200)
    damage(path)  # type: ignore[operator]
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        assert store.report.fresh
        assert store.report.set_aside is not None
        assert store.report.set_aside.name == "store.db.damaged-20250615T150640Z-salvaged"
        assert store.report.set_aside.stat().st_size > 0
        assert store.epoch != epoch
        assert metrics.counters["store.set_aside"] == 1
        [first] = await store.commit(Commit([item("a")]))
        assert first.seq == 1
    path.write_bytes(b"again, in the same second " * 500)
    async with a_store(path) as store:
        assert store.report.set_aside is not None
        assert store.report.set_aside.name.endswith("Z-2-salvaged")


async def test_an_empty_file_is_a_fresh_store(path: Path) -> None:
    path.touch()
    async with a_store(path) as store:
        assert store.report.fresh
        assert store.report.set_aside is None


async def test_after_a_crash_everything_is_there_in_the_same_epoch(path: Path) -> None:
    epoch = await crashed(path, 20)
    async with a_store(path) as store:
        assert not store.report.clean
        assert not store.report.torn
        assert (store.epoch, store.report.lost) == (epoch, 0)
        assert [one.seq for one in await store.read("cloud", 99)] == list(range(1, 21))
        assert (await store.stats("cloud")).rows == 20


async def test_missing_rows_are_found_after_a_crash_and_counted(path: Path) -> None:
    epoch = await with_items(path, 9)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM item_1 WHERE seq IN (3, 4)")
    db.close()
    mark_unclean(path)
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        assert store.report.lost == 2
        assert await store.drops() == [Drop(epoch, "a", "", "lost", 2)]
        assert metrics.counters["outbox.dropped.lost"] == 2
        assert (await store.stats("cloud")).rows == 7
    mark_unclean(path)
    async with a_store(path) as store:
        assert store.report.lost == 0


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["middle", "header"])
async def test_a_log_with_a_flipped_bit_begins_a_new_epoch_so_that_no_key_comes_twice(path: Path, where: str) -> None:
    """SQLite drops all commits after the flip and says nothing: their numbers would be given out again."""
    epoch = await crashed(path, 40)
    flip(wal_path(path), wal_path(path).stat().st_size // 2 if where == "middle" else 17)
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        assert store.report.torn or store.report.fresh
        assert store.epoch != epoch
        before = await store.read("cloud", 99)
        assert len(before) < 40
        [new] = await store.commit(Commit([item("a")]))
        assert new.seq == 1
        assert new.epoch == store.epoch
        assert {one.epoch for one in before} <= {epoch}
        assert [one.key for one in await store.read("cloud", 99)] == [one.key for one in (*before, new)]


async def test_a_half_written_last_commit_is_no_reason_for_a_new_epoch(path: Path) -> None:
    epoch = await crashed(path, 10)
    wal = wal_path(path)
    wal.write_bytes(wal.read_bytes()[:-100])
    async with a_store(path) as store:
        assert store.epoch == epoch
        assert [one.seq for one in await store.read("cloud", 99)] == list(range(1, 10))


async def test_a_number_that_was_never_given_out_begins_a_new_epoch(path: Path) -> None:
    epoch = await with_items(path, 3)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE account SET next_seq = 2 WHERE id = 1")
    db.close()
    mark_unclean(path)
    async with a_store(path) as store:
        assert store.epoch != epoch


def test_without_a_log_there_is_nothing_to_compare(path: Path) -> None:
    assert read_wal_tail(path) == WalTail()
    wal_path(path).write_bytes(b"")
    assert read_wal_tail(path) == WalTail()


@pytest.mark.parametrize("gateway", ["", "Pi", "a/b"])
def test_a_gateway_id_that_would_spoil_keys_is_refused(path: Path, gateway: str) -> None:
    from edgefn.clock import SystemClock
    from edgefn.store import open_store

    with pytest.raises(ConfigError, match="gateway id"):
        open_store(path, gateway=gateway, clock=SystemClock(), metrics=Metrics())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
async def test_what_root_makes_belongs_to_the_owner_of_the_folder(path: Path) -> None:
    os.chown(path.parent, 1234, 1234)
    await with_items(path, 1)
    assert {file.stat().st_uid for file in path.parent.iterdir()} == {1234}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE stream SET name = 'summary/minutf'",
        "UPDATE stream SET epoch = '00000000'",
        "UPDATE account SET next_seq = 2 WHERE id = 1",
    ],
)
async def test_no_key_is_given_twice_where_a_bit_of_its_stream_has_flipped(path: Path, sql: str) -> None:
    async with a_store(path) as store:
        first = await store.commit(Commit([item(n=n) for n in range(5)]))
    db = sqlite3.connect(path)
    with db:
        db.execute(sql)
    db.close()
    async with a_store(path) as store:
        assert store.report.set_aside is not None
        later = await store.commit(Commit([item(n=n) for n in range(5, 10)]))
        kept = await store.read("cloud", 100)
    payloads = {one.key: one.payload for one in (*first, *later)}
    assert len(payloads) == 10
    assert all(payloads.get(one.key, one.payload) == one.payload for one in kept)
