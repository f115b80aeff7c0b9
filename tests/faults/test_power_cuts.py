"""The power goes at any moment: the store opens, what was confirmed is there once, and no key is ever given twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import LONG, SEED
from tests.faults.books import Books
from tests.faults.power import Disk, Record, content_of, put, records
from tests.faults.world import World
from tests.faults.writer import the_store, work

RUNS = 26 if LONG else 2
CUTS = 40 if LONG else 12  # of each run
NOTES = "notes"
STEPS = 300 if LONG else 60
AFTER = 4  # steps on what a cut has left
EARLY = 0.25  # of the cuts come while the store is being opened, which is a hundred calls

pytestmark = [pytest.mark.faults, pytest.mark.timeout(RUNS * 60 + 60)]

Content = dict[str, bytes]


@dataclass(frozen=True)
class Run:
    """A writer from the first call to the last: what the folder had before, and the calls."""

    folder: Path
    before: Content
    records: list[Record]

    def moments(self, books: Books, at: list[int]) -> Iterator[tuple[int, Disk, Books]]:
        """Disk and books at those moments; both are good until the next."""
        disk = Disk(self.folder, self.before)
        notes: set[int] = set()
        for number, record in enumerate(self.records):
            if number in at:
                yield number, disk, books
            if record.kind in "CO" and record.paths[0].endswith(f"/{NOTES}"):
                notes.add(record.inode)
            if record.inode not in notes:
                disk.advance(record)
            elif record.kind == "W":
                books.enter(**json.loads(record.data))


def run(folder: Path, seed: int, books: Books, *, synchronous: str = "FULL") -> Run:
    """A writer in the folder as it is."""
    before = content_of(folder)
    log = folder.with_name("log")
    log.unlink(missing_ok=True)
    world = World(folder, folder.with_name("control"), log=log)
    notes = world.folder / NOTES  # in the log with the writes, and so in their order
    command = [sys.executable, "-m", "tests.faults.writer", str(world.folder), str(notes)]
    subprocess.run([*command, str(seed), str(books.next), str(STEPS), synchronous], env=world.environment, check=False)
    notes.unlink()
    return Run(world.folder, before, records(log))


async def findings(found: Content, folder: Path, books: Books, seed: int) -> list[str]:
    """What is wrong with a store after a cut, and after going on with it."""
    put(found, folder)
    rng = random.Random(seed)
    async with the_store(folder) as store:
        if store.report.set_aside:
            books.findings.append(f"the store was set aside: {store.report}")
        await books.check(store)
        await work(store, rng, books.next, AFTER, books.enter)
    async with the_store(folder) as store:
        return await books.check(store)


def early_and_late(rng: random.Random, calls: int) -> list[int]:
    return sorted(rng.randrange(min(calls, 150) if rng.random() < EARLY else calls) for _ in range(CUTS))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """For the writer, and for what the cuts leave."""
    writing, found = tmp_path / "writing", tmp_path / "found"
    writing.mkdir()
    found.mkdir()
    return writing, found


async def test_a_power_cut_at_any_moment_loses_nothing_that_was_confirmed(folders: tuple[Path, Path]) -> None:
    """Each run begins with what a cut of the run before has left, so that recovery is cut as well."""
    writing, found = folders
    books, cuts = Books(), 0
    for number in range(RUNS):
        seed = SEED * 1000 + number
        rng = random.Random(seed)
        one = run(writing, seed, books)
        at = early_and_late(rng, len(one.records))
        going_on = rng.choice(at)
        for moment, disk, then in one.moments(books.copy(), at):
            content, then = disk.cut(rng), then.copy()
            if moment == going_on:
                books = then.copy()
                put(content, writing)
            wrong = await findings(content, found, then, seed)
            assert not wrong, f"run {seed}, call {moment} of {len(one.records)}: {wrong[:3]}"
            cuts += 1
    print(f"{cuts} cuts of {RUNS} runs")  # noqa: T201 - the account of a long run


async def test_without_syncing_the_same_cuts_do_lose_what_was_confirmed(folders: tuple[Path, Path]) -> None:
    """The control: the simulation would see it."""
    writing, found = folders
    one = run(writing, SEED, Books(), synchronous="OFF")
    rng = random.Random(SEED)
    hurt = 0
    at = sorted(rng.sample(range(len(one.records) // 2, len(one.records)), CUTS))
    for _, disk, then in one.moments(Books(), at):
        hurt += bool(await findings(disk.cut(rng), found, then.copy(), SEED))
    print(f"{hurt} of {CUTS} cuts lost something")  # noqa: T201
    assert hurt > CUTS // 4
