"""An uplink over a fake cloud, a store and a clock that a test turns; and what a cloud does with what it gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefn.metrics import Metrics
from edgefn.store import Commit, Item, Store
from edgefn.uplink import Uplink, UplinkOptions
from tests.sinks.helpers import FakeSink
from tests.store.helpers import TurnedClock, a_store, item


class Consumer:
    """What a cloud does with at-least-once delivery: counts each key once, and sees whether a stream ever skips."""

    def __init__(self) -> None:
        self.next: dict[tuple[str, str], int] = {}
        self.counted = 0
        self.repeated = 0

    def take(self, message: dict[str, Any]) -> None:
        stream, seq = (message["epoch"], message["stream"]), message["seq"]
        expected = self.next.get(stream, 1)
        if seq < expected:
            self.repeated += 1
            return
        assert seq == expected, f"{stream}: {seq} came before {expected}"
        self.next[stream] = seq + 1
        self.counted += 1


class Sleeps:
    """The waiting of an uplink: the test sees how long it wants to, and lets it go on."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        done = asyncio.Event()
        self._asked.put_nowait((seconds, done))
        await done.wait()

    async def ask(self) -> float:
        """How long it wants to wait; it goes on waiting."""
        async with asyncio.timeout(10):
            seconds, self._last = await self._asked.get()
        return seconds

    def go(self) -> None:
        """The wait that was asked for last is over."""
        self._last.set()

    async def next(self) -> float:
        seconds = await self.ask()
        self._last.set()
        return seconds

    @property
    def none(self) -> bool:
        return self._asked.empty()


@dataclass
class Bench:
    store: Store
    sink: FakeSink
    uplink: Uplink
    sleeps: Sleeps
    metrics: Metrics
    clock: TurnedClock

    async def commit(self, *streams: str, priority: int = 1, size: int = 0) -> list[Item]:
        stored = await self.store.commit(Commit([item(stream, priority=priority, size=size) for stream in streams]))
        self.uplink.kick()
        return stored

    async def empty(self) -> None:
        async with asyncio.timeout(10):
            while (await self.store.stats("cloud")).rows:
                await asyncio.sleep(0.001)


class PassingTime:
    """The waiting of an uplink where each wait turns the clock: time passes as fast as the test runs."""

    def __init__(self, clock: TurnedClock) -> None:
        self._clock = clock
        self.slept = 0.0

    async def __call__(self, seconds: float) -> None:
        self._clock.turn(seconds)
        self.slept += seconds
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def bench(
    path: Path, *, name: str = "cloud", time_passes: bool = False, clock: TurnedClock | None = None, **options: Any
) -> AsyncIterator[Bench]:
    clock, metrics, sink, sleeps = clock or TurnedClock(), Metrics(), FakeSink(), Sleeps()
    options = {"batch_age_ms": 0, "patience_s": 0, **options}
    async with a_store(path, clock=clock, metrics=metrics) as store:
        uplink = Uplink(
            name,
            store,
            sink,
            clock=clock,
            metrics=metrics,
            options=UplinkOptions(**options),
            sleep=PassingTime(clock) if time_passes else sleeps,
            uniform=lambda _, ceiling: ceiling,
        )
        yield Bench(store, sink, uplink, sleeps, metrics, clock)


@contextlib.asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[Bench]:
    async with bench(path, **options) as one:
        task = asyncio.create_task(one.uplink.run())
        yield one
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settled() -> None:
    """Everything that can go on without waiting has gone on; the store's thread included."""
    for _ in range(20):
        await asyncio.sleep(0.001)
