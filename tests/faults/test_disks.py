"""Writes and fsyncs that fail, a disk that is gone for a while or full: what is confirmed is there once, the rest whole."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC251
# A test has nothing else to do meanwhile.
from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgefn.errors import StoreError
from edgefn.store import Commit
from tests.faults import LONG, SEED
from tests.faults.books import Books
from tests.faults.world import World
from tests.faults.writer import the_store
from tests.store.helpers import a_store, item

ROUNDS = 40 if LONG else 3
STEPS = 300 if LONG else 100
ENDLESS = 1_000_000
PATIENCE = 30.0
MEGABYTE = 1 << 20

pytestmark = [pytest.mark.faults, pytest.mark.timeout(ROUNDS * 30 + 60)]


class Writer:
    """A process at work on a store, and what it says."""

    def __init__(self, world: World, notes: Path, seed: int, books: Books, steps: int) -> None:
        self._books = books
        self._notes = notes
        notes.write_bytes(b"")
        command = [sys.executable, "-m", "tests.faults.writer", str(world.folder), str(notes), str(seed)]
        self.process = subprocess.Popen([*command, str(books.next), str(steps)], env=world.environment)
        self._read = 0

    def notes(self) -> list[dict[str, Any]]:
        """What is new. It goes into the books."""
        data = self._notes.read_bytes()[self._read :]
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        new = [json.loads(line) for line in data.splitlines()]
        for note in new:
            self._books.enter(**note)
        return new

    def until(self, wanted: Callable[[dict[str, Any]], bool], n: int) -> None:
        """It has noted so many such things from now on."""
        self.notes()
        deadline = time.monotonic() + PATIENCE
        while n > 0:
            assert self.process.poll() is None, "the writer has ended"
            assert time.monotonic() < deadline, f"{n} notes more were to come"
            time.sleep(0.01)
            n -= sum(map(wanted, self.notes()))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.notes()


@contextmanager
def writer(world: World, notes: Path, seed: int, books: Books, steps: int = ENDLESS) -> Iterator[Writer]:
    """At the end it is killed, whatever it does."""
    one = Writer(world, notes, seed, books, steps)
    try:
        yield one
    finally:
        one.end()


def is_stored(note: dict[str, Any]) -> bool:
    return "stored" in note


def is_refused(note: dict[str, Any]) -> bool:
    return "refused" in note


def is_told(note: dict[str, Any]) -> bool:
    return "told" in note


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "disk").mkdir()
    return World(tmp_path / "disk", tmp_path / "control", seed=SEED)


async def exact(world: World, books: Books) -> None:
    async with the_store(world.folder) as store:
        assert store.report.set_aside is None
        assert not await books.check(store)


async def test_when_one_in_twenty_writes_and_fsyncs_fails_the_account_is_exact(world: World, tmp_path: Path) -> None:
    """Killed after each round, a failed commit may be found whole: the log has it, and only the fsync was missing."""
    books = Books()
    refused = 0
    for number in range(ROUNDS):
        world.fail(syncs=0.05, writes=0.05 if number % 2 else 0.0)
        with writer(world, tmp_path / "notes", SEED * 1000 + number, books, STEPS) as one:
            while one.process.poll() is None:
                time.sleep(0.01)
            refused += sum(map(is_refused, one.notes()))
        world.fail()
        await exact(world, books)
    print(f"{world.failed} calls failed, {refused} of {len(books.wanted)} commits were refused")  # noqa: T201
    assert refused > 0


async def test_a_disk_that_comes_back_takes_commits_again_in_the_same_process(world: World, tmp_path: Path) -> None:
    books = Books()
    with writer(world, tmp_path / "notes", SEED, books) as one:
        for _ in range(ROUNDS):
            one.until(is_stored, 20)
            world.break_disk()
            one.until(is_refused, 20)
            world.heal_disk()
        one.until(is_told, 5)
    await exact(world, books)
    print(f"{world.failed} calls failed, {len(books.stored)} of {len(books.wanted)} commits are stored")  # noqa: T201


async def test_a_full_disk_drains_and_fills_again(world: World, tmp_path: Path) -> None:
    """Full, nothing more goes in, and what is there goes out: the room that it leaves is used again."""
    books = Books()
    with writer(world, tmp_path / "notes", SEED, books) as one:
        one.until(is_stored, 20)
        for _ in range(ROUNDS):
            world.leave_room(MEGABYTE // 2)
            one.until(is_refused, 20)
            one.until(is_told, 5)
            world.leave_room(None)
            one.until(is_stored, 20)
    await exact(world, books)


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0.1)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_program_that_holds_the_file_is_told_of_and_when_it_has_gone_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    hold = [sys.executable, "-c", HOLD, str(path)]
    async with a_store(path) as store:
        before = await store.commit(Commit([item("a", 1)]))
        # The other way round: who comes later cannot get in.
        late = subprocess.run(hold, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert "database is locked" in late.stderr
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=r"store\.db: .*another program has it open: close that program"):
            await a_store(path).__aenter__()
        holder.communicate("")
    async with a_store(path) as store:
        assert await store.read("cloud", 9) == before
