"""What tests of handlers and of edgefn itself are written with: a clock to turn, a bus in memory, and a bench for files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from edgefn.bus import Message
from edgefn.topics import Pattern, check_topic
from edgefn.trial.bench import Bench
from edgefn.trial.clock import ManualClock
from edgefn.trial.rows import Forwarded, Published, Row


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


__all__ = ["Bench", "Forwarded", "ManualClock", "MemoryBus", "Published", "Row"]
