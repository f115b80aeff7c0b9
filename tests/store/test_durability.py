"""What a commit promises: whole or not at all, merged when many wait, kept when the process is killed."""

# ruff: noqa: ASYNC220
# A test has nothing else to do meanwhile.
from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit, Store
from edgefn.store.database import MAX_MERGED, Database
from edgefn.store.ledger import Ledger
from tests.store.helpers import a_store, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of merged calls in each transaction."""
    groups: list[int] = []
    original = Database._transaction

    def counting(self: Database, db: sqlite3.Connection, works: list[object]) -> object:
        groups.append(len(works))
        return original(self, db, works)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_transaction", counting)
        yield groups


async def test_commits_that_wait_share_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_store(path) as store:
        with counted(monkeypatch) as groups:
            results = await asyncio.gather(*(store.commit(Commit([item("a", n)])) for n in range(200)))
        assert [one.seq for [one] in results] == list(range(1, 201))
        assert max(groups) == MAX_MERGED
        assert sum(groups) == 200
        assert len(groups) == 4


async def test_a_patient_acknowledgement_shares_the_next_transaction_or_is_written_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_store(path) as store:
        [one] = await store.commit(Commit([item("a")]))
        with counted(monkeypatch) as groups:
            patient = asyncio.create_task(store.acknowledge("cloud", [one.id], patience=1000))
            for _ in range(10):
                await asyncio.sleep(0)
            assert groups == []
            [two] = await store.commit(Commit([item("a")]))
            await patient
            assert groups == [2]
            await store.acknowledge("cloud", [two.id], patience=0.01)
            assert groups == [2, 1]
        [three] = await store.commit(Commit([item("a")]))
        patient = asyncio.create_task(store.acknowledge("cloud", [three.id], patience=1000))
        await asyncio.sleep(0)
        await store.close()
        await patient


async def test_a_wrong_commit_does_not_spoil_those_it_was_merged_with(path: Path) -> None:
    async with a_store(path) as store:
        good, bad, also_good = await asyncio.gather(
            store.commit(Commit([item("a")])),
            store.commit(Commit([item("a"), item("a", priority=9)])),
            store.commit(Commit([item("a")])),
            return_exceptions=True,
        )
        assert isinstance(bad, StoreError)
        assert [one.seq for one in await store.read("cloud", 9)] == [1, 2]
        assert good[0].seq == 1  # type: ignore[index]
        assert also_good[0].seq == 2  # type: ignore[index]


class Gate:
    """Holds the database's thread inside a transaction until the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def hold(self, db: sqlite3.Connection, ledger: Ledger) -> None:
        self.entered.set()
        assert self.opened.wait(10)


async def held(store: Store) -> tuple[Gate, asyncio.Task[None]]:
    gate = Gate()
    holding = asyncio.create_task(store._database.transact(gate.hold))
    await asyncio.to_thread(gate.entered.wait, 10)
    return gate, holding


async def test_a_commit_cancelled_before_its_turn_does_not_happen(path: Path) -> None:
    async with a_store(path) as store:
        gate, holding = await held(store)
        waiting = asyncio.create_task(store.commit(Commit([item("a")])))
        await asyncio.sleep(0)
        waiting.cancel()
        gate.opened.set()
        await holding
        assert (await store.commit(Commit([item("b")])))[0].seq == 1
        assert [one.stream for one in await store.read("cloud", 9)] == ["b"]


async def test_a_commit_cancelled_while_it_runs_happens_whole_and_leaves_nothing_open(path: Path) -> None:
    async with a_store(path) as store:
        gate, holding = await held(store)
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        gate.opened.set()
        stored = await store.commit(Commit([item("a")], [CheckpointPart("x", "snapshot", b"1")]))
        assert await store.read("cloud", 9) == stored


async def test_closing_finishes_what_waits(path: Path) -> None:
    async with a_store(path) as store:
        gate, holding = await held(store)
        waiting = asyncio.create_task(store.commit(Commit([item("a")])))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        gate.opened.set()
        await asyncio.gather(holding, waiting, closing)
    async with a_store(path) as store:
        assert store.report.clean
        assert len(await store.read("cloud", 9)) == 1


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """A disk on which no file can grow past `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_on_a_full_disk_a_commit_fails_whole_and_can_be_tried_again(path: Path) -> None:
    metrics = Metrics()
    async with a_store(path, metrics=metrics) as store:
        await store.commit(Commit([item("a")]))
        commit = Commit([item("a", n, size=1000) for n in range(500)], [CheckpointPart("x", "snapshot", b"1")])
        with files_end_at(200_000):
            with pytest.raises(StoreError, match=r"store\.db: .*(full|disk|I/O)"):
                await store.commit(commit)
            assert (await store.stats("cloud")).rows == 1
            assert len(await store.read("cloud", 9)) == 1
            assert metrics.counters["store.failed"] == 1
        stored = await store.commit(commit)
        assert [one.seq for one in stored] == list(range(2, 502))
        assert (await store.stats("cloud")).rows == 501
        assert await store.load_checkpoint() == {"x": [b"1"]}
    async with a_store(path) as store:
        assert store.report.clean
        assert [one.seq for one in await store.read("cloud", 999)] == list(range(1, 502))


async def test_a_file_at_its_page_limit_can_still_be_drained(path: Path) -> None:
    async with a_store(path) as store:

        def limit(db: sqlite3.Connection, _: Ledger) -> None:
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 20}")

        await store._database.read(limit)
        committed = 0

        async def fill() -> None:
            nonlocal committed
            while True:
                await store.commit(Commit([item("a", n, size=1000) for n in range(10)]))
                committed += 10

        with pytest.raises(StoreError, match="make room"):
            await fill()
        assert committed > 0
        batch = await store.read("cloud", 50)
        await store.acknowledge("cloud", [one.id for one in batch])
        [one] = await store.commit(Commit([item("a")]))
        assert one.seq == committed + 1


WRITER = """
import asyncio, random, sys
from pathlib import Path
from edgefn.clock import SystemClock
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit, NewItem, open_store

async def main(path, seed):
    rng = random.Random(seed)
    async with open_store(path, gateway="gw-1", clock=SystemClock(), metrics=Metrics(), uplinks=["cloud"]) as store:
        async def write(stream):
            while True:
                new = [NewItem(stream, b"{}", 0, priority=rng.randrange(3)) for _ in range(rng.randrange(1, 9))]
                stored = await store.commit(Commit(new, [CheckpointPart(stream, rng.choice(["snapshot", "delta"]), b"x")]))
                print("stored", stream, stored[-1].seq, store.epoch, flush=True)
        async def send():
            while True:
                batch = await store.read("cloud", rng.randrange(1, 20), oldest_first=rng.random() < 0.5)
                for one in batch[: len(batch) // 2]:
                    print("sent", one.stream, one.seq, store.epoch, flush=True)
                await store.acknowledge("cloud", [one.id for one in batch[: len(batch) // 2]])
        await asyncio.gather(write("a"), write("b"), send())

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.faults
async def test_kill_9_loses_nothing_that_was_confirmed_and_invents_nothing(path: Path) -> None:
    rng = random.Random(1)
    confirmed: dict[str, int] = {"a": 0, "b": 0}
    sent: dict[str, set[int]] = {"a": set(), "b": set()}
    epochs: set[str] = set()
    for round_ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(round_)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rng.randrange(1, 60))]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        for words in (line.split() for line in lines):
            if len(words) == 4:  # the last line may be cut
                what, stream, seq, epoch = words
                epochs.add(epoch)
                if what == "stored":
                    confirmed[stream] = max(confirmed[stream], int(seq))
                else:
                    sent[stream].add(int(seq))
        async with a_store(path) as store:
            assert not store.report.clean
            assert store.report.lost == 0
            left: dict[str, list[int]] = {"a": [], "b": []}
            for one in await store.read("cloud", 100_000):
                left[one.stream].append(one.seq)
            for stream, seqs in left.items():
                assert seqs == sorted(seqs)
                everything = sent[stream] | set(seqs)
                assert everything == set(range(1, len(everything) + 1))
                assert len(everything) >= confirmed[stream] > 0
            assert await store.drops() == []
    assert len(epochs) == 1
