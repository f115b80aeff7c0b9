"""Events between a driver and the store: a bounded tail of those that are not sent yet and those not confirmed yet."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from edgefn.clock import NS, Clock
from edgefn.drivers.unconfirmed import Outgoing, Unconfirmed
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

    @property
    def on_connect(self) -> list[Callable[[], Awaitable[None]]]: ...

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None: ...


class Tail:
    """A queue that keeps the newest events of a driver, at most MAX_EVENTS and MAX_BYTES of them.

    Events leave in order. One whose connection was lost before the PUBACK is sent again, and so is one of QoS 1 that the
    gateway has not confirmed (`edgefn.drivers.unconfirmed` says when): its `src` and `seq` tell that it is the same.
    What is given up is counted under `drivers.dropped.tail_full`, or under `drivers.unconfirmed.tail_full` where the broker
    has acknowledged it, and what the broker refuses under `drivers.dropped.<error>`.
    """

    def __init__(self, bus: Publisher, metrics: Metrics, clock: Clock, patience: float = 30.0) -> None:
        self.dropped = 0
        self._bus = bus
        self._metrics = metrics
        self._clock = clock
        self._patience = int(patience * NS)
        self._waiting: deque[Outgoing] = deque()
        self._sending: list[Outgoing] = []
        self._unconfirmed: dict[str, Unconfirmed] = {}  # by source
        self._n = self._bytes = 0  # of all of them
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return self._n

    def floor(self, src: str) -> int:
        """The number below which events of the source are given up, 0 while none are that the gateway may wait for."""
        source = self._unconfirmed.get(src)
        return source.floor if source is not None else 0

    def put(self, event: Outgoing) -> None:
        if event.qos and event.src not in self._unconfirmed:
            self._unconfirmed[event.src] = Unconfirmed(self._patience)
        self._waiting.append(event)
        self._n += 1
        self._bytes += len(event.payload)
        while (self._n > MAX_EVENTS or self._bytes > MAX_BYTES) and self._make_room():
            pass
        self._wake()

    def confirm(self, confirmations: Mapping[str, int]) -> None:
        """The gateway has stored everything of these sources up to these numbers. Other drivers' are left alone."""
        now = self._clock.monotonic()
        for src, seq in confirmations.items():
            source = self._unconfirmed.get(src)
            if source is not None:
                self._leave(source.confirm(seq, now))
                if source.wants:
                    self._send_again(source.take())
        if self._waiting:  # those that were to be sent again
            self._leave([event for event in self._waiting if self._is_confirmed(event)])
            self._waiting = deque(event for event in self._waiting if not self._is_confirmed(event))

    def reconnected(self) -> None:
        """Call it once the connection after another is there and confirmations are subscribed to."""
        for source in self._unconfirmed.values():
            self._send_again(source.reconnected())

    async def drained(self) -> None:
        """Returns when the broker has acknowledged all."""
        await self._idle.wait()

    async def run(self) -> None:
        """Sends until it is cancelled."""
        while True:
            if not self._waiting:
                self._idle.set()
                await self._rest()
                continue
            await self._bus.connected.wait()
            self._sending = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            results = await asyncio.gather(
                *(self._bus.publish(one.topic, one.payload, one.qos) for one in self._sending), return_exceptions=True
            )
            again = []
            for event, result in zip(self._sending, results, strict=True):
                if isinstance(result, NotConnectedError):
                    again.append(event)
                elif isinstance(result, Exception):
                    log.error("an event for %s is not published: %s", event.topic, result)
                    self._drop(event, type(result).__name__)
                elif not event.qos or not self._unconfirmed[event.src].keep(event, self._clock.monotonic()):
                    self._leave([event])
            self._sending = []
            self._waiting.extendleft(reversed(again))

    async def _rest(self) -> None:
        """Waits until there is something to send, or until the silence about something sent is too long."""
        self._filled.clear()
        due = min((due for one in self._unconfirmed.values() if (due := one.due()) is not None), default=None)
        patience = None if due is None else max(0.0, (due - self._clock.monotonic()) / NS)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._filled.wait()
        self.probe()

    def probe(self) -> None:
        """Asks the gateway about sources that it has said nothing of for too long, by sending their oldest event again."""
        now = self._clock.monotonic()
        for source in self._unconfirmed.values():
            again, unheard = source.probe(now)
            self._send_again(again)
            self._leave(unheard)

    def _send_again(self, events: list[Outgoing]) -> None:
        if events:
            self._waiting.extendleft(reversed(events))
            self._metrics.count("drivers.sent_again", len(events))
            self._wake()

    def _wake(self) -> None:
        self._filled.set()
        self._idle.clear()

    def _is_confirmed(self, event: Outgoing) -> bool:
        return bool(event.qos) and event.seq <= self._unconfirmed[event.src].confirmed

    def _make_room(self) -> bool:
        """Gives up one event: of the source that most is kept of, so that a fast one does not push out a slow one's."""
        kept = max(self._unconfirmed.values(), key=len, default=None)
        if kept is not None and len(kept):
            self._leave([kept.give_up()])
            self._metrics.count("drivers.unconfirmed", reason="tail_full")
        elif self._waiting:
            self._drop(self._waiting.popleft(), "tail_full")
        else:
            return False
        return True

    def _drop(self, event: Outgoing, reason: str) -> None:
        self._leave([event])
        if event.qos:
            self._unconfirmed[event.src].lost(event)
        if event.acknowledged:
            self._metrics.count("drivers.unconfirmed", reason=reason)
        else:
            self.dropped += 1
            self._metrics.count("drivers.dropped", reason=reason)

    def _leave(self, events: Iterable[Outgoing]) -> None:
        for event in events:
            self._n -= 1
            self._bytes -= len(event.payload)
