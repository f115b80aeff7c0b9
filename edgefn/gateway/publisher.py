"""Summaries and alerts on their way to the local broker, in order, without holding anything else up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from edgefn.bus import Bus
from edgefn.errors import EdgefnError, NotConnectedError
from edgefn.gateway.results import Publication
from edgefn.metrics import Metrics

MAX_QUEUE = 10_000
WINDOW = 50  # publications under way at once: waiting for each PUBACK cost 40 ms an alert


class Publisher:
    """At least once for QoS 1: what the broker has not acknowledged is published again when it is back."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics
        self._queue: deque[Publication] = deque()
        self._more = asyncio.Event()
        self._free = asyncio.Semaphore(WINDOW)

    def add(self, publications: Iterable[Publication]) -> None:
        for publication in publications:
            if len(self._queue) >= MAX_QUEUE:
                self._queue.popleft()
                self._metrics.count("local.dropped", reason="queue_full")
            self._queue.append(publication)
        self._more.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as under_way:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._queue:
                    # Tasks start in the order in which they are made, and each hands its message over at its first step.
                    await self._free.acquire()
                    if self._queue:
                        under_way.create_task(self._publish(self._queue.popleft()))
                    else:
                        self._free.release()

    async def _publish(self, one: Publication) -> None:
        try:
            while True:
                try:
                    await self._bus.publish(one.topic, one.payload, one.qos, one.retain)
                    return
                except NotConnectedError:
                    await self._bus.connected.wait()
        except EdgefnError as error:
            self._metrics.count("local.dropped", reason=type(error).__name__)
        finally:
            self._free.release()
