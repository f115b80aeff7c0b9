"""What is stored with the engine's commits and what without, also while the store refuses and engines die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from edgefn import link
from edgefn.clock import SystemClock
from edgefn.errors import StoreDiskError
from edgefn.functions.invocation import Cover, Invocation
from edgefn.functions.journal import Completion, Journal
from edgefn.functions.memory import Memory
from edgefn.gateway.commits import Commits
from edgefn.gateway.results import Row
from edgefn.metrics import Metrics
from edgefn.store import Commit, Item, NewItem

ITEM = NewItem("summary/f", b"1", 1)


class _Uplinks:
    def items(self, items: Iterable[NewItem]) -> Iterable[NewItem]:
        return items

    def kick(self) -> None: ...

    def expect_commits(self, _: float) -> None: ...


class _Time:
    steady = asyncio.Lock()


class Desk:
    """Commits with a store that takes nothing until it is told to."""

    lean = False

    def __init__(self) -> None:
        self.refuses, self.tries = True, asyncio.Event()
        self.taken: list[Commit] = []
        self.generation = 1
        self.told: list[int] = []
        clock = SystemClock()
        self.journal = Journal(lambda name: Memory(name), clock.monotonic, Metrics())
        self.journal.engine_started(1)
        self.commits = Commits(
            self,  # type: ignore[arg-type]
            _Uplinks(),  # type: ignore[arg-type]
            self.journal,
            _Time(),  # type: ignore[arg-type]
            self,
            generation=lambda: self.generation,
            tell_interval=lambda _: None,
            clock=clock,
            metrics=Metrics(),
            interval=0,
            daily_writes=0,
        )

    async def commit(self, commit: Commit) -> list[Item]:
        self.tries.set()
        if self.refuses:
            raise StoreDiskError("edgefn.db: the disk is full")
        self.taken.append(commit)
        return []

    def rows(self, message: link.Message) -> list[Row]:
        return []

    def stored(self, message: link.Message, rows: Sequence[Row]) -> None:
        self.told.append(message["number"])

    def event(self) -> None:
        """One of the engine's, and its invocation is done."""
        event = Invocation("a", "f", "t", b"", durable=True, cover=Cover(self.generation))
        self.journal.add(event)
        self.journal.complete(Completion(event, [ITEM]))

    def add(self, number: int = 1) -> None:
        self.commits.add({"number": number, "parts": [["window", True, b"x"]]}, self.generation)


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    one = Desk()
    task = asyncio.create_task(one.commits.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_a_commit_covers_is_stored_with_it_and_not_by_itself() -> None:
    """Stored alone, a crash before the engine's commit would bring the event again."""
    one = Desk()
    one.refuses = False
    one.event()
    one.add()  # it waits for its turn
    await one.commits.flush()
    assert not one.taken
    task = asyncio.create_task(one.commits.run())
    async with asyncio.timeout(5):
        while not one.told:
            await asyncio.sleep(0)
    task.cancel()
    (commit,) = one.taken
    assert (list(commit.items), [part.owner for part in commit.checkpoint]) == ([ITEM], ["window"])


async def test_what_only_a_forgotten_commit_covers_waits_for_the_next_engine() -> None:
    one = Desk()
    one.refuses = False
    one.event()
    one.add()
    one.generation = 2
    await one.commits.forget()
    one.journal.engine_started(2)
    await one.commits.flush()
    assert not one.taken
    assert one.journal.knows("a")  # it comes again
    one.add()
    task = asyncio.create_task(one.commits.run())
    async with asyncio.timeout(5):
        while not one.told:
            await asyncio.sleep(0)
    task.cancel()
    assert [list(commit.items) for commit in one.taken] == [[ITEM]]


@pytest.mark.parametrize("of_engine", [True, False])
async def test_a_new_engine_does_not_wait_for_a_store_that_refuses(*, of_engine: bool) -> None:
    async with desk() as one:
        if of_engine:
            one.add()
        else:
            one.journal.complete(Completion(Invocation("t", "f", "every", b""), [ITEM]))
        await one.tries.wait()
        await asyncio.sleep(0.01)
        one.generation = 2
        async with asyncio.timeout(0.5):
            await one.commits.forget()


async def test_a_store_that_refuses_does_not_keep_a_gateway_from_stopping(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefn.gateway.commits.STOP", 0.05, raising=False)
    async with desk() as one:
        one.journal.complete(Completion(Invocation("t", "f", "every", b""), [ITEM]))
        await one.tries.wait()
        await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            await one.commits.flush()
    assert "the store takes nothing" in caplog.text
