"""An engine that has run for long is as large as one that has just begun, however many events there were."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus
from edgefn.engine import packets
from tests.faults import LONG
from tests.faults.load import STEP, Truth
from tests.faults.plant import Plant, plant
from tests.integration.device import GATEWAY, decoded

EVENTS = 1_000_000
WARM = 200_000  # by then every buffer has had its largest batch
RATE = 8000  # events a second
GROWTH = 1.10

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


class Counter:
    """How many events the engine has counted, from the metrics."""

    def __init__(self) -> None:
        self.events = 0
        self._changed = asyncio.Condition()

    async def run(self, bus: Bus) -> None:
        async with bus.subscribe(f"edgefn/{GATEWAY}/metrics") as messages:
            async for message in messages:
                async with self._changed:
                    self.events = decoded(message.payload)["counters"].get("events.in", 0)
                    self._changed.notify_all()

    async def reached(self, n: int) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: self.events >= n), 60)


@asynccontextmanager
async def counting(port: int) -> AsyncIterator[Counter]:
    counter = Counter()
    async with Bus(BrokerAddress("127.0.0.1", port), client_id="counter") as bus:
        await bus.wait_connected(10)
        task = asyncio.create_task(counter.run(bus))
        yield counter
        task.cancel()


async def publish(port: int, truth: Truth, first: int, last: int) -> None:
    """Events first to last - 1 at QoS 0, encoded a second at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(packets.connect("stream", v5=False, keepalive=0, username=None, password=None, expiry=0, receive=100))
    await reader.readexactly(4)
    started = time.monotonic()
    for begin in range(first, last, RATE // 20):
        data = b"".join(truth.frame(i, qos=0) for i in range(begin, min(begin + RATE // 20, last)))
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(max(0.0, started + (begin - first) / RATE - time.monotonic()))
    writer.write(packets.GOODBYE)
    await writer.drain()
    writer.close()


async def megabytes(running: Plant) -> float:
    """What the engine has allocated. (Its files' pages are shared, and count for less while another engine runs.)"""
    status = Path(f"/proc/{(await running.engine()).pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


@pytest.mark.skipif(not LONG, reason="takes minutes: make faults")
async def test_the_engine_is_no_larger_after_a_million_events(tmp_path: Path, local: PrivateBroker) -> None:
    # So far in the past that the last event, sent sooner than it says, is not from the future.
    truth = Truth(time.time_ns() - EVENTS * STEP)
    uplink = f'name = "file"\ntype = "file"\nfolder = "{tmp_path / "out"}"'
    async with plant(tmp_path, local.port, uplink=uplink) as running, counting(local.port) as counter:
        engine = (await running.engine()).pid
        await publish(local.port, truth, 0, WARM)
        await counter.reached(WARM)
        before = await megabytes(running)
        await publish(local.port, truth, WARM, EVENTS)
        await counter.reached(EVENTS)
        after = await megabytes(running)
        print(f"{before:.1f} MB after {WARM} events, {after:.1f} MB after {EVENTS}")  # noqa: T201 - of a long run
        assert after < before * GROWTH
        assert (await running.engine()).pid == engine
