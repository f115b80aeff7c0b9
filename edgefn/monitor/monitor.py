"""Publishes the state of the gateway: status, info, metrics, handlers, and log records of warning and up."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from edgefn.bus import Bus, Message
from edgefn.clock import Clock
from edgefn.events import to_json
from edgefn.metrics import Metrics
from edgefn.monitor.topics import Topics
from edgefn.timestamps import to_iso

MAX_LOG = 200  # records that wait to be published

Gauges = Callable[[], Awaitable[dict[str, Any]]]


class Monitor:
    """One for each gateway. What it cannot publish now is retained state, told again when the broker is back."""

    def __init__(self, bus: Bus, topics: Topics, clock: Clock, metrics: Metrics, interval: float) -> None:
        self.topics = topics
        self._bus = bus
        self._clock = clock
        self._metrics = metrics
        self._interval = interval
        self._records: deque[dict[str, Any]] = deque(maxlen=MAX_LOG)
        self._more = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._handler = _LogHandler(self._record)
        self._started = clock.monotonic()

    @staticmethod
    def last_will(topics: Topics) -> Message:
        return Message(topics.status, b"offline", qos=1, retain=True)

    async def tell(self, topic: str, value: Any, *, retain: bool = True) -> None:
        """Publishes state as JSON (an empty payload for None, which clears it)."""
        await self._bus.publish(topic, b"" if value is None else to_json(value), retain=retain)

    async def online(self, info: dict[str, Any]) -> None:
        await self._bus.publish(self.topics.status, b"online", retain=True)
        await self.tell(self.topics.info, info)

    async def offline(self) -> None:
        """The last words, with the log records that say why."""
        while self._records:
            await self.tell(self.topics.log, self._records.popleft(), retain=False)
        await self._bus.publish(self.topics.status, b"offline", retain=True)

    async def run(self, gauges: Gauges) -> None:
        """Publishes metrics at each interval and log records as they come, until cancelled."""
        logging.getLogger().addHandler(self._handler)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._publish_log())
                while True:
                    await self.publish_metrics(gauges)
                    await asyncio.sleep(self._interval)
        finally:
            logging.getLogger().removeHandler(self._handler)

    async def publish_metrics(self, gauges: Gauges) -> None:
        values = {
            "ts": to_iso(self._clock.now()),
            "uptime_s": round((self._clock.monotonic() - self._started) / 1e9),
            **await gauges(),
            "counters": dict(sorted(self._metrics.counters.items())),
            "gauges": {name: value for name, value in sorted(self._metrics.gauges.items())},
        }
        await self.tell(self.topics.metrics, values)

    def _record(self, record: logging.LogRecord) -> None:
        """May be called from any thread."""
        entry = {
            "ts": to_iso(self._clock.now()),
            "level": record.levelname.lower(),
            "source": record.name.removeprefix("edgefn."),
            "message": record.getMessage(),
        }
        self._loop.call_soon_threadsafe(self._queue, entry)

    def _queue(self, entry: dict[str, Any]) -> None:
        if len(self._records) == MAX_LOG:
            self._metrics.count("log.dropped", reason="too_many")
        self._records.append(entry)
        self._more.set()

    async def _publish_log(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._records:
                await self.tell(self.topics.log, self._records.popleft(), retain=False)


class _LogHandler(logging.Handler):
    def __init__(self, record: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.INFO)
        self._take = record

    def emit(self, record: logging.LogRecord) -> None:
        # What the bus itself says about being offline cannot go out over the bus. What handlers print is for people, and bounded.
        grave = record.levelno >= logging.WARNING and not record.name.startswith("edgefn.bus")
        if grave or record.name.startswith("edgefn.handler."):
            self._take(record)
