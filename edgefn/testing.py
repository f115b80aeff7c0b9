"""What tests of handlers and of edgefn itself are written with: a clock to turn, a bus in memory, and a bench for files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefn import durations
from edgefn.bus import Message
from edgefn.errors import HandlerError, PayloadError
from edgefn.events import encode
from edgefn.topics import Pattern, check_topic

START = 1_790_000_000_000_000_000  # ns; some moment in 2026


class ManualClock:
    """A clock that stands still until it is told: `advance("5s")` for time that passes, `jump("-1h")` for a changed clock."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._monotonic = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> int:
        return self._monotonic

    @property
    def offset(self) -> int:
        return self._now - self._monotonic

    def advance(self, duration: str | float) -> None:
        ns = durations.parse(duration)
        self._now += ns
        self._monotonic += ns

    def jump(self, duration: str | float) -> None:
        """Sets the clock forward or, with a minus sign, back; the monotonic time does not notice."""
        if isinstance(duration, str) and duration.startswith("-"):
            self._now -= durations.parse(duration[1:])
        else:
            self._now += durations.parse(duration)


class MemoryBus:
    """Stands in for `edgefn.bus.Bus`: what is published is kept for the test, and goes to who has subscribed."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.retained: dict[str, bytes] = {}
        self._subscribed: list[tuple[Pattern, asyncio.Queue[Message]]] = []

    async def publish(
        self, topic: str, payload: bytes | str = b"", qos: int = 0, retain: bool = False, properties: Any = None
    ) -> None:
        message = Message(check_topic(topic), payload.encode() if isinstance(payload, str) else payload, qos, retain)
        self.published.append(message)
        if retain:
            if message.payload:
                self.retained[topic] = message.payload
            else:
                self.retained.pop(topic, None)
        for pattern, queue in self._subscribed:
            if pattern.match(topic) is not None:
                queue.put_nowait(message)

    @asynccontextmanager
    async def subscribe(
        self, pattern: str, qos: int = 0, max_queue: int = 1000
    ) -> AsyncIterator[AsyncIterator[Message]]:
        """`async with bus.subscribe("a/+") as messages` and then `async for message in messages`, without an end."""
        entry = Pattern(pattern), asyncio.Queue[Message](max_queue)

        async def messages() -> AsyncIterator[Message]:
            while True:
                yield await entry[1].get()

        self._subscribed.append(entry)
        try:
            yield messages()
        finally:
            self._subscribed.remove(entry)

    def on(self, pattern: str) -> list[Message]:
        """What was published to topics that the pattern matches."""
        wanted = Pattern(pattern)
        return [message for message in self.published if wanted.match(message.topic) is not None]


@dataclass(frozen=True, slots=True)
class Row:
    """One row that a handler put out."""

    handler: str
    key: str
    ts: int  # ns since the epoch: the window's end, or the event's time
    values: dict[str, float]


class Bench:
    """Runs one handler file over events of your making, compiled as on the device, without broker, hardware or waiting.

    bench = Bench("handlers/rooms.py")
    bench.publish("sensors/attic/climate", {"temperature": 21.5})
    bench.advance("2m")
    assert bench.rows("minute")[0].values["mean"] == 21.5

    Raises HandlerError where the file cannot be used.
    """

    def __init__(self, file: str | Path, *, cache: Path | None = None, clock: ManualClock | None = None) -> None:
        from edgefn import loader
        from edgefn.config import cache_folder
        from edgefn.engine.nodes import Context
        from edgefn.engine.plan import Plan
        from edgefn.engine.timeline import Timeline
        from edgefn.metrics import Metrics

        path = Path(file).resolve()
        folder = cache or cache_folder()
        manifest = loader.cached(path, folder) or loader.load(path, folder)
        if not manifest.ok:
            raise HandlerError(*manifest.findings)
        self.clock = clock or ManualClock()
        self.metrics = Metrics()
        self._plan = Plan([manifest], self.metrics)
        self._context = Context(self._emit, lambda number: None, lambda: None)
        self._time = Timeline(self.clock)
        self._rows: list[Row] = []

    def publish(self, topic: str, payload: Mapping[str, Any] | bytes | float, *, retained: bool = False) -> None:
        """One event: fields, a bare number, or the bytes that a device would send.

        `retained`: it was published before the handler was there, and the broker had kept it.
        """
        from edgefn.engine.decode import fields_of

        data = payload if isinstance(payload, bytes) else b"%r" % payload if _is_number(payload) else encode(payload)  # type: ignore[arg-type]
        self._look()
        try:
            fields = fields_of(data)
            name = check_topic(topic).encode()
            if self._plan.latest.wants(name):
                self._plan.latest.update(name, fields)
            for source, label in self._plan.router.route(name):
                self._plan.add(source, label, fields, self.clock.now(), retained=retained)
        except PayloadError as error:
            self.metrics.count("events.failed", reason=error.reason)
        self._plan.run(self._context)

    def advance(self, duration: str | float) -> None:
        """Lets time pass, so that windows close whose sources have fallen silent."""
        self.clock.advance(duration)
        self._look()
        self._plan.tick(self._context)

    def _look(self) -> None:
        """What the engine does before each batch: it notices that the clock was set."""
        now = self._context.now = self.clock.monotonic()
        if (limits := self._time.look(now)) is not None:
            self._plan.cut(self._context, limits)
            self._time.follow(now)

    def rows(self, handler: str) -> list[Row]:
        """What the handler has put out so far."""
        return [row for row in self._rows if row.handler == handler]

    def _emit(self, output: Any) -> None:
        labels = self._plan.labels(output.node)
        names = [field.name for field in output.node.manifest.outputs]
        for i, key in enumerate(output.key.tolist()):
            values = {name: float(column[i]) for name, column in zip(names, output.values, strict=True)}
            self._rows.append(Row(output.node.name, labels[key], int(output.ts[i]), values))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


__all__ = ["Bench", "ManualClock", "MemoryBus", "Row"]
