"""Commits: each of the engine's units goes into the store together with what Python handlers have done, and is then confirmed.

One transaction at a time. A refused one is tried again until the store takes it; what the engine puts out waits meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from edgefn import link
from edgefn.clock import NS, Clock
from edgefn.errors import StoreDamagedError, StoreError
from edgefn.functions.journal import Cut, Journal
from edgefn.gateway.results import Row
from edgefn.gateway.timekeeping import Timekeeper
from edgefn.gateway.uplinks import Uplinks
from edgefn.gateway.wear import WriteBudget, written_bytes
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit, Item, Store

log = logging.getLogger(__name__)

STOP = 5.0  # seconds that a stopping gateway waits for the commit that is under way
RETRY = (1.0, 30.0)  # seconds: the first wait after the store has refused a commit, and the longest
FULL = "the disk is full: the store does not grow, and new items use the room of those that were sent"


class Confirmed(Protocol):
    """What becomes of a commit. Called from the task of the commits, in their order."""

    def rows(self, message: link.Message) -> list[Row]:
        """What the engine has put out with it."""

    def stored(self, message: link.Message, rows: Sequence[Row]) -> None:
        """It is in the store: tells the engine, and publishes."""


class Commits:
    """The queue of commits, the state of the store, and how often the engine is to commit."""

    def __init__(
        self,
        store: Store,
        uplinks: Uplinks,
        journal: Journal,
        time: Timekeeper,
        confirmed: Confirmed,
        *,
        generation: Callable[[], int],
        tell_interval: Callable[[int], None],
        clock: Clock,
        metrics: Metrics,
        interval: int,
        daily_writes: int,
    ) -> None:
        self.interval = interval  # ns
        self.newest: dict[str, tuple[str, int]] = {}  # stream → epoch and number of its newest item
        self._store = store
        self._uplinks = uplinks
        self._journal = journal
        self._time = time
        self._confirmed = confirmed
        self._generation = generation
        self._tell_interval = tell_interval
        self._clock = clock
        self._metrics = metrics
        self._budget = WriteBudget(daily_writes, interval)
        self._queue: asyncio.Queue[link.Message] = asyncio.Queue(1)  # the engine sends one and waits
        self._idle = asyncio.Event()  # no commit of an engine is under way
        self._idle.set()
        self._new_engine = asyncio.Event()  # is about to begin
        self._turn = asyncio.Lock()  # of the commit that is under way
        self._last = clock.monotonic()
        self._trouble = ""

    @property
    def state(self) -> str:
        """How the store is, in words."""
        if self._trouble:
            return self._trouble
        return FULL if self._store.lean else "ok"

    def trouble(self, what: str) -> None:
        """Something is wrong with the store that no commit has met."""
        self._trouble = what

    def add(self, message: link.Message, generation: int) -> None:
        """One of the engine's commits has come. What Python handlers were given before it, it covers."""
        self._journal.cover(generation)
        self._queue.put_nowait({**message, "engine": generation})

    async def forget(self) -> None:
        """A new engine begins: what the one before has sent and is not being stored cannot be confirmed to it."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._new_engine.set()
        try:
            await self._idle.wait()
        finally:
            self._new_engine.clear()

    async def run(self) -> None:
        """Stores each commit of the engine, and what Python handlers have done when the engine has nothing to commit."""
        while True:
            message = await self._next()
            if message is not None:
                self._idle.clear()
            try:
                async with self._turn:
                    await self._commit(message)
            finally:
                self._idle.set()

    async def _next(self) -> link.Message | None:
        """The engine's next commit; None when it is time for one of the Python handlers alone."""
        while True:
            getting = asyncio.ensure_future(self._queue.get())
            changed = asyncio.ensure_future(self._journal.changed.wait())
            try:
                await asyncio.wait({getting, changed}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    due = (self._last + self.interval - self._clock.monotonic()) / NS
                    await asyncio.wait({getting}, timeout=max(0.0, due))
                return getting.result() if getting.done() else None
            finally:
                getting.cancel()
                changed.cancel()

    async def flush(self) -> None:
        """What Python handlers have done at the end."""
        try:
            async with asyncio.timeout(STOP):
                await self._turn.acquire()
        except TimeoutError:
            log.error(
                "the store takes nothing: what Python handlers have done is lost, or is done again where it is durable"
            )
            return
        try:
            await self._commit(None, patient=False)
        finally:
            self._turn.release()

    async def _commit(self, message: link.Message | None, *, patient: bool = True) -> None:
        self._last = self._clock.monotonic()
        if message is None:
            cut = self._journal.cut(with_engine=False)
            if cut:
                await self._put(None, cut, patient)
            return
        stored = await self._put(message, None, patient)
        if stored is None:
            return  # of an engine that has died since: its events come again
        rows, items = stored
        self._metrics.count("summaries.made", len(items))
        self._confirmed.stored(message, rows)

    async def _put(
        self, message: link.Message | None, cut: Cut | None, patient: bool
    ) -> tuple[list[Row], list[Item]] | None:
        """As often as it takes, while the engine that waits for it lives; a new one must not wait for the disk.

        The engine's rows are made anew each time: while the disk refuses, the clock may be put right.
        """
        delay, longest = RETRY
        while True:
            try:
                async with self._time.steady:
                    rows = self._confirmed.rows(message) if message is not None else []
                    # After the rows, which may start Python handlers: these go into the same commit.
                    cut = cut or self._journal.cut(with_engine=message is not None)
                    items = [*self._uplinks.items(row.item() for row in rows), *self._uplinks.items(cut.items)]
                    stored = await self._store.commit(Commit(items, [*_parts(message), *cut.parts], cut.letters))
            except StoreDamagedError:
                raise
            except StoreError as error:
                if not self._trouble:
                    log.error("%s; handlers go on, and what they put out waits", error)
                self._trouble = str(error)
                if not patient:
                    return None
                await self._pause(delay, message)
                delay = min(delay * 2, longest)
                if message is not None and message["engine"] != self._generation():
                    message = None  # what the Python handlers have done is stored all the same
                    self._idle.set()
                continue
            if self._trouble:
                log.warning("the store takes commits again")
            self._trouble = ""
            self._journal.stored(cut)
            for item in stored:
                self.newest[item.stream] = (item.epoch, item.seq)
            self._watch_writes()
            self._uplinks.kick()
            return (rows, stored) if message is not None else None

    async def _pause(self, delay: float, message: link.Message | None) -> None:
        """Until the store is asked again: at once, where it is a new engine that waits."""
        if message is None:
            await asyncio.sleep(delay)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._new_engine.wait()

    def _watch_writes(self) -> None:
        """Lets the engine commit less often where the disk gets more than its budget."""
        written = written_bytes()
        interval = self._budget.interval(written, self._clock.monotonic())
        if interval != self.interval:
            self.interval = interval
            self._tell_interval(interval)
        self._uplinks.expect_commits(interval / NS)
        self._metrics.gauge("store.written_bytes", written)
        self._metrics.gauge("engine.commit_interval_s", interval / NS)


def _parts(message: link.Message | None) -> list[CheckpointPart]:
    parts: list[Any] = message["parts"] if message is not None else []
    return [CheckpointPart(owner, "snapshot" if snapshot else "delta", data) for owner, snapshot, data in parts]
