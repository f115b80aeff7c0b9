"""Events between a driver and the broker: sent at once, or kept as a bounded tail while the broker is away."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import NamedTuple, Protocol

from edgefn.errors import NotConnectedError
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

MAX_EVENTS = 1000
MAX_BYTES = 2 << 20
AT_ONCE = 50  # QoS 1 events on their way together; the bus has a window of 100 for all drivers


class Publisher(Protocol):
    """What drivers ask of the bus."""

    @property
    def connected(self) -> asyncio.Event: ...

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None: ...


class Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int


class Tail:
    """A queue that keeps the newest events, at most MAX_EVENTS and MAX_BYTES of them.

    What it gives up is counted under `drivers.dropped.tail_full`, and what the broker refuses under
    `drivers.dropped.<error>`. Events leave in order. One whose connection was lost before the PUBACK is sent again: its
    `src` and `seq` tell the receiver that it is the same.
    """

    def __init__(self, bus: Publisher, metrics: Metrics) -> None:
        self.dropped = 0
        self._bus = bus
        self._metrics = metrics
        self._events: deque[Outgoing] = deque()
        self._bytes = 0
        self._sending: list[Outgoing] = []
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, event: Outgoing) -> None:
        self._events.append(event)
        self._bytes += len(event.payload)
        while len(self._events) + len(self._sending) > MAX_EVENTS or self._bytes > MAX_BYTES:
            if not self._events:
                break
            self._bytes -= len(self._events.popleft().payload)
            self._drop("tail_full")
        self._filled.set()
        self._idle.clear()

    async def drained(self) -> None:
        """Returns when nothing waits."""
        await self._idle.wait()

    async def run(self) -> None:
        """Sends until it is cancelled."""
        while True:
            if not self._events:
                self._filled.clear()
                self._idle.set()
                await self._filled.wait()
            await self._bus.connected.wait()
            self._sending = [self._events.popleft() for _ in range(min(AT_ONCE, len(self._events)))]
            results = await asyncio.gather(
                *(self._bus.publish(*event) for event in self._sending), return_exceptions=True
            )
            again = []
            for event, result in zip(self._sending, results, strict=True):
                if isinstance(result, NotConnectedError):
                    again.append(event)
                    continue
                self._bytes -= len(event.payload)
                if isinstance(result, Exception):
                    log.error("an event for %s is not published: %s", event.topic, result)
                    self._drop(type(result).__name__)
            self._sending = []
            self._events.extendleft(reversed(again))

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        self._metrics.count("drivers.dropped", reason=reason)
