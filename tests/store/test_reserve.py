"""A full disk: the store gives up its ballast, drains, stays within its file, and takes the room again when there is some."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.store import Commit, Store, reserve
from edgefn.store.database import Database
from edgefn.store.reserve import Ballast
from edgefn.store.schema import PAGE_SIZES
from tests.store.helpers import TurnedClock, a_store, item

MB = 1 << 20


class Disk:
    """Says how much is free, and refuses writes on command, as SQLite tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int = 1 << 40) -> None:
        self.free = free
        self.refused = 0
        original = Database._attempt

        def attempt(database: Database, db: sqlite3.Connection, works: list[object]) -> object:
            if not self.free:
                self.refused += 1
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise error
            return original(database, db, works)  # type: ignore[arg-type]

        def give_up(ballast: Ballast) -> None:
            self.free += ballast.held
            gives_up(ballast)

        gives_up = Ballast.give_up
        monkeypatch.setattr(Database, "_attempt", attempt)
        monkeypatch.setattr(Ballast, "free", property(lambda _: self.free))
        monkeypatch.setattr(Ballast, "give_up", give_up)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def pragma(store: Store, name: str) -> object:
    return store._database.read(lambda db, _: db.execute(f"PRAGMA {name}").fetchone()[0])


@pytest.mark.parametrize(
    ("size", "free", "held"),
    [
        (8 * MB, 1 << 40, 8 * MB),
        (8 * MB, 16 * MB, 16 * MB // 10 // 4096 * 4096),
        (8 * MB, 2 * MB, 0),  # a tenth of that would be of no use
        (0, 1 << 40, 0),
    ],
)
def test_a_ballast_is_really_there_and_takes_a_tenth_of_what_is_free_at_the_most(
    path: Path, size: int, free: int, held: int
) -> None:
    ballast = Ballast(path, size, free=lambda _: free)
    ballast.make()
    assert ballast.held == held
    if held:
        assert ballast.path.stat().st_blocks * 512 >= held
        assert ballast.path.stat().st_mode & 0o777 == 0o600
    ballast.give_up()
    ballast.give_up()
    assert ballast.held == 0


async def test_a_setting_of_less_gives_the_rest_back(path: Path) -> None:
    async with a_store(path, ballast=8 * MB) as store:
        assert store._reserve.ballast.held == 8 * MB
    async with a_store(path, ballast=MB) as store:
        assert store._reserve.ballast.held == MB
    async with a_store(path, ballast=0) as store:
        assert store._reserve.ballast.held == 0


async def test_on_a_full_disk_the_ballast_goes_and_the_transaction_comes_through(path: Path, disk: Disk) -> None:
    metrics = Metrics()
    async with a_store(path, metrics=metrics, ballast=MB) as store:
        disk.free = 0
        [one] = await store.commit(Commit([item("a")]))
        assert store.lean
        assert metrics.counters["store.ballast_given_up"] == 1
        assert "store.failed" not in metrics.counters
        await store.acknowledge("cloud", [one.id])
        disk.free = 0
        with pytest.raises(StoreError, match="full: make room"):
            await store.commit(Commit([item("a")]))
        assert metrics.counters["store.ballast_given_up"] == 1


async def test_a_lean_store_does_not_grow_and_uses_what_it_deletes(path: Path, disk: Disk) -> None:
    async with a_store(path, ballast=MB) as store:
        stored = await store.commit(Commit([item("a", n, size=1000) for n in range(200)]))
        disk.free = 0
        await store.acknowledge("cloud", [stored[0].id])
        disk.free = 100  # as another program leaves it
        pages = await pragma(store, "page_count")
        with pytest.raises(StoreError):
            await store.commit(Commit([item("b", n, size=1000) for n in range(200)]))
        await store.acknowledge("cloud", [one.id for one in stored])
        assert len(await store.commit(Commit([item("b", n, size=1000) for n in range(150)]))) == 150
        assert await pragma(store, "page_count") == pages


async def test_the_room_is_taken_again_when_there_is_twice_of_it_and_not_before_ten_seconds(
    path: Path, disk: Disk
) -> None:
    clock = TurnedClock()
    async with a_store(path, clock=clock, ballast=MB) as store:
        disk.free = 0
        await store.commit(Commit([item("a")]))
        disk.free = 1 << 40
        await store.commit(Commit([item("a")]))
        assert store.lean
        clock.turn(61)
        disk.free = 10 * reserve.LEAST
        await store.commit(Commit([item("a")]))
        assert store.lean
        clock.turn(61)
        disk.free = 1 << 40
        await store.commit(Commit([item("a")]))
        assert not store.lean
        assert store._reserve.ballast.held == MB
        bound = await pragma(store, "max_page_count")
        assert isinstance(bound, int)
        assert bound * PAGE_SIZES[0] > 64 * MB


async def test_the_bound_of_the_file_is_no_full_disk(path: Path) -> None:
    """The last line of defence, behind the quota of payloads: reached, it costs no ballast."""
    async with a_store(path, max_bytes=1 << 40, ballast=MB) as store:
        await store._database.read(lambda db, _: db.execute("PRAGMA max_page_count = 40").fetchone())
        with pytest.raises(StoreError, match="full"):
            await store.commit(Commit([item("a", n, size=1000) for n in range(200)]))
        assert store._reserve.ballast.held == MB
        assert not store.lean


@pytest.mark.parametrize("size", [40, 100, 400, 1500, 2100, 3000, 8000])
async def test_the_quota_of_payloads_bites_before_the_bound_of_the_file(path: Path, size: int) -> None:
    """Rows, their headers and half-empty pages together take at most three times the payload."""
    async with a_store(path, max_bytes=1 << 40, ballast=0) as store:
        n = 2 * MB // size
        for _ in range(2):
            await store.commit(Commit([item("summary/comfort", size=size) for _ in range(n)]))
        pages = await pragma(store, "page_count")
        bound = await pragma(store, "max_page_count")
        assert isinstance(pages, int)
        assert isinstance(bound, int)
    assert pages * PAGE_SIZES[0] < (2 if size >= 100 else 3) * 2 * n * size + MB


async def test_a_start_on_a_full_disk_gives_up_the_ballast_too(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_store(path, ballast=MB) as store:
        await store.commit(Commit([item("a")]))
    disk.free = 0
    original = Store._open

    def no_room(store: Store) -> sqlite3.Connection:
        if not disk.free:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        return original(store)

    monkeypatch.setattr(Store, "_open", no_room)
    metrics = Metrics()
    async with a_store(path, ballast=MB, metrics=metrics) as store:
        assert store.lean
        assert metrics.counters["store.ballast_given_up"] == 1
        assert len(await store.read("cloud", 9)) == 1
        disk.free = 4 * MB
    assert Ballast(path, MB).held == MB  # kept of what the log gave back, for the next start


SMALL_DISK = """
import asyncio, os, sys
from pathlib import Path
from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.store import Commit
from tests.store.helpers import TurnedClock, a_store, item

folder = Path(sys.argv[1])
path = folder / "store.db"
clock = TurnedClock()
committed, delivered = 0, []

def junk(name):
    "Another program takes all that is left."
    with open(folder / name, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

async def fill(store):
    global committed
    while True:
        try:
            committed += len(await store.commit(Commit([item("a", n, size=900) for n in range(20)])))
        except StoreError:
            return

async def drain(store, most=10**9):
    while most > 0 and (batch := await store.read("cloud", min(50, most))):
        await store.acknowledge("cloud", [one.id for one in batch])
        delivered.extend(one.seq for one in batch)
        most -= len(batch)

async def main():
    metrics = Metrics()
    open_it = lambda: a_store(path, clock=clock, metrics=metrics, max_bytes=1 << 40, ballast=8 << 20)
    async with open_it() as store:
        await fill(store)
        print("filled", committed)
        assert store.lean and committed > 5000, committed
        await drain(store, 3000)
        await fill(store)
        junk("junk1")
        await drain(store, 1000)
        await fill(store)
    junk("junk2")
    async with open_it() as store:     # a start on a full disk after a clean stop
        assert store.report.clean, store.report
        await drain(store, 1000)
        await fill(store)
        junk("junk3")
        await drain(store)
        assert (await store.stats("cloud")).rows == 0
    junk("junk4")
    async with open_it() as store:
        assert store.report.lost == 0
        await store.commit(Commit([item("a")]))
        for name in ("junk1", "junk2", "junk3", "junk4"):
            (folder / name).unlink(missing_ok=True)
        clock.turn(100)
        await store.commit(Commit([item("a")]))
        await drain(store)
        assert await store.drops() == []
    assert delivered == list(range(1, committed + 3)), (len(delivered), committed)
    print("given up", metrics.counters["store.ballast_given_up"], "items", len(delivered))

asyncio.run(main())
"""


def test_a_disk_of_16_mb_that_fills_up_is_drained_and_filled_and_started_on_again(tmp_path: Path) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=16m tmpfs {small}"
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("needs a user namespace in which a tmpfs may be mounted")
    command = f'{mount} && exec "$0" -c "$1" {small}'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command, sys.executable, SMALL_DISK],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stdout + done.stderr
