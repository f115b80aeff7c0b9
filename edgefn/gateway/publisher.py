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


class Publisher:
    """At least once for QoS 1: what the broker has not acknowledged is published again when it is back."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics
        self._queue: deque[Publication] = deque()
        self._more = asyncio.Event()

    def add(self, publications: Iterable[Publication]) -> None:
        for publication in publications:
            if len(self._queue) >= MAX_QUEUE:
                self._queue.popleft()
                self._metrics.count("local.dropped", reason="queue_full")
            self._queue.append(publication)
        self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._queue:
                one = self._queue[0]
                try:
                    await self._bus.publish(one.topic, one.payload, one.qos, one.retain)
                except NotConnectedError:
                    await self._bus.connected.wait()
                    continue
                except EdgefnError as error:
                    self._metrics.count("local.dropped", reason=type(error).__name__)
                if self._queue and self._queue[0] is one:
                    self._queue.popleft()
