"""Summaries and alerts reach the local broker in order, also over a break."""

from __future__ import annotations

import asyncio
import contextlib

from edgefn.errors import NotConnectedError
from edgefn.gateway import publisher
from edgefn.gateway.publisher import Publisher
from edgefn.gateway.results import Publication
from edgefn.metrics import Metrics


class Breaking:
    """A bus that loses its connection while messages are under way."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.handed: list[str] = []
        self.acknowledged: list[str] = []

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.handed.append(topic)
        if not self.connected.is_set():
            raise NotConnectedError("away")
        await asyncio.sleep(0)
        self.acknowledged.append(topic)


async def test_what_was_not_acknowledged_goes_again_in_its_order() -> None:
    bus, metrics = Breaking(), Metrics()
    out = Publisher(bus, metrics)  # type: ignore[arg-type]
    running = asyncio.create_task(out.run())
    topics = [f"t/{i}" for i in range(120)]
    out.add(Publication(topic, b"", 1, True) for topic in topics)
    while len(bus.handed) < publisher.WINDOW:
        await asyncio.sleep(0)
    assert bus.handed == topics[: publisher.WINDOW]  # no more than these are under way
    bus.connected.set()
    async with asyncio.timeout(5):
        while len(bus.acknowledged) < len(topics):
            await asyncio.sleep(0)
    assert bus.acknowledged == topics
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_full_queue_gives_up_its_oldest_and_counts_it() -> None:
    metrics = Metrics()
    out = Publisher(Breaking(), metrics)  # type: ignore[arg-type]
    out.add(Publication(f"t/{i}", b"", 1, False) for i in range(publisher.MAX_QUEUE + 3))
    assert metrics.counters["local.dropped.queue_full"] == 3
