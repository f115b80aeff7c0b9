"""A bus without a broker, and a clock that tests turn by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from edgefn.bus import Message
from edgefn.clock import NS
from edgefn.errors import NotConnectedError


@dataclass
class HandClock:
    ns: int = 1_700_000_000 * NS

    def now(self) -> int:
        return self.ns

    def monotonic(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += round(seconds * NS)


@dataclass
class FakeBus:
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    published: list[tuple[str, bytes, int, bool]] = field(default_factory=list)
    on_connect: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    lossy: bool = False  # while it is, QoS 1 messages do not arrive
    lost: list[bytes] = field(default_factory=list)
    lose_acknowledgement: int = 0  # the next so many QoS 1 messages arrive, and their acknowledgements do not
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _incoming: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.connected.set()

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        await asyncio.sleep(0)
        if qos and not self.connected.is_set():
            raise NotConnectedError(topic)
        if qos and self.lossy:
            self.lost.append(payload)
            self._news.set()
            raise NotConnectedError(topic)
        self.published.append((topic, payload, qos, retain))
        self._news.set()
        if qos and self.lose_acknowledgement:
            self.lose_acknowledgement -= 1
            raise NotConnectedError(topic)

    @contextlib.asynccontextmanager
    async def subscribe(self, *filters: str) -> AsyncIterator[AsyncIterator[Message]]:
        async def messages() -> AsyncIterator[Message]:
            while True:
                message = await self._incoming.get()
                if message.topic in filters:
                    yield message

        yield messages()

    def deliver(self, topic: str, payload: bytes) -> None:
        self._incoming.put_nowait(Message(topic, payload))

    async def reconnect(self) -> None:
        for hook in self.on_connect:
            await hook()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def events(self, topic: str = "") -> list[dict[str, Any]]:
        return [json.loads(p) for t, p, _, retain in self.published if not retain and t.endswith(topic)]

    def statuses(self, driver: str) -> list[dict[str, Any]]:
        return [json.loads(p) for t, p, _, retain in self.published if retain and t.endswith(f"/driver/{driver}")]
