"""The clock of the machine is set while events come that have no time of their own: each is counted once, and stamped right."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus, Message
from edgefn.clock import NS
from edgefn.demo.wire import Wire
from tests.faults import LONG
from tests.faults.cloud import Cloud, consuming
from tests.faults.plant import plant
from tests.faults.world import World
from tests.integration.device import GATEWAY, decoded

RATE = 200  # events a second
HOUR = 3600 * NS
TOLERANCE = 5 * NS  # from the end of a window until its row is here
YEAR_2106 = 1 << 32  # seconds: where 32 bits end

HANDLERS = """
from typing import NamedTuple
from edgefn import aggregate, tumbling

class Row(NamedTuple):
    total: float
    n: int

@aggregate("machines/{machine}", tumbling("200ms"), to="uplink")
def counted(v) -> Row:
    return Row(v.sum(), v.size)
"""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@dataclass
class Stamps(Cloud):
    """Also notes how far each row's stamp is from the true time at which it came, in ns."""

    ahead: list[int] = field(default_factory=list)

    def take(self, message: Message) -> None:
        self.ahead.append(decoded(message.payload)["ts"] - time.time_ns())
        super().take(message)

    @property
    def events(self) -> int:
        return sum(int(n) for n, _ in self.rows["summary/counted"].values())

    @property
    def total(self) -> int:
        return sum(int(total) for _, total in self.rows["summary/counted"].values())

    def strange(self, *offsets: int) -> list[float]:
        """Stamps, in seconds, that are right by none of the clocks since the last call."""
        new, self.ahead = self.ahead, []
        assert new
        return [one / NS for one in new if not any(-TOLERANCE < one - offset < TOLERANCE for offset in offsets)]


class Events:
    """Events 1, 2, 3 … of five machines, without a time."""

    def __init__(self, bus: Bus) -> None:
        self.sent = 0
        self._bus = bus

    async def run(self) -> None:
        while True:
            self.sent += 1
            payload = json.dumps({"v": self.sent}).encode()
            await self._bus.publish(f"machines/m{self.sent % 5}", payload, qos=1)
            await asyncio.sleep(1 / RATE)


@dataclass
class Sight:
    """What the gateway says of its clock."""

    clock: dict[str, Any] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self, bus: Bus) -> None:
        async with bus.subscribe(f"edgefn/{GATEWAY}/metrics") as messages:
            async for message in messages:
                async with self.changed:
                    self.clock = decoded(message.payload)["clock"]
                    self.changed.notify_all()

    async def until(self, **wanted: object) -> None:
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: wanted.items() <= self.clock.items()), 20)
            except TimeoutError:
                raise AssertionError(f"the clock is {self.clock} and was to be {wanted}") from None


@asynccontextmanager
async def traffic(port: int) -> AsyncIterator[tuple[Events, Sight, asyncio.Task[None]]]:
    async with Bus(BrokerAddress("127.0.0.1", port), client_id="traffic") as bus:
        await bus.wait_connected(10)
        events, sight = Events(bus), Sight()
        sending, seeing = asyncio.create_task(events.run()), asyncio.create_task(sight.run(bus))
        yield events, sight, sending
        sending.cancel()
        seeing.cancel()


async def exact(cloud: Stamps, events: Events, sending: asyncio.Task[None]) -> None:
    """All events are in windows, each in one. The last windows close when their machines have been silent for a while."""
    sending.cancel()
    try:
        async with asyncio.timeout(20):
            while cloud.events < events.sent - 1:  # whether the last one went out is not known
                await cloud.grown(20)
            await asyncio.sleep(0.5)  # would anything come twice?
    except TimeoutError:
        pass
    print(f"{events.sent} events, {cloud.events} counted in {cloud.count} rows")  # noqa: T201
    assert not cloud.findings
    assert cloud.events in (events.sent - 1, events.sent)
    assert cloud.total == cloud.events * (cloud.events + 1) // 2


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "state").mkdir()
    return World(tmp_path / "state", tmp_path / "control")


async def test_what_is_made_in_1970_is_stamped_when_the_clock_is_known(
    world: World, tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    """A board without a clock of its own starts; the network comes up later, and with it the cloud and the time."""
    world.step_clock(-time.time_ns() + 30 * NS)
    world.synchronised(False)
    cloud = Stamps()
    async with (
        Wire(cloud_broker.port) as line,
        plant(tmp_path, local.port, line.port, world=world, handlers=HANDLERS),
        consuming(cloud, cloud_broker.port),
        traffic(local.port) as (events, sight, sending),
    ):
        await line.cut()
        started = time.time_ns()
        await sight.until(state="wrong", right=False)
        await asyncio.sleep(2.0)
        world.step_clock(0)
        world.synchronised(True)
        await sight.until(state="synced", right=True)
        await line.heal()
        await exact(cloud, events, sending)
        times = [ts for _, ts in cloud.rows["summary/counted"]]
        assert started - NS < min(times)
        assert max(times) < time.time_ns()


STEPS = {"an hour on": HOUR, "right": 0, "an hour back": -HOUR, "right again": 0}


@pytest.mark.skipif(not LONG, reason="takes a minute: make faults")
async def test_a_step_of_an_hour_neither_stalls_windows_nor_counts_twice(
    world: World, tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    world.synchronised(True)
    cloud = Stamps()
    async with (
        plant(tmp_path, local.port, cloud_broker.port, world=world, handlers=HANDLERS),
        consuming(cloud, cloud_broker.port),
        traffic(local.port) as (events, sight, sending),
    ):
        await cloud.grown(10)
        before = 0
        for number, (name, offset) in enumerate(STEPS.items(), start=1):
            world.step_clock(offset)
            await sight.until(steps=number, state="synced")
            await asyncio.sleep(2.0)
            assert not cloud.strange(before, offset), name
            await asyncio.sleep(3.0)
            assert not cloud.strange(offset), name
            before = offset
        await exact(cloud, events, sending)


@pytest.mark.skipif(not LONG, reason="takes a minute: make faults")
@pytest.mark.parametrize("seconds", [0, YEAR_2106], ids=["1970", "2106"])
async def test_a_clock_that_cannot_be_is_not_followed(
    seconds: int, world: World, tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    world.synchronised(True)
    cloud = Stamps()
    async with (
        plant(tmp_path, local.port, cloud_broker.port, world=world, handlers=HANDLERS),
        consuming(cloud, cloud_broker.port),
        traffic(local.port) as (events, sight, sending),
    ):
        await cloud.grown(10)
        world.step_clock(seconds * NS - time.time_ns())
        await sight.until(state="wrong", steps=0)
        await asyncio.sleep(3.0)
        world.step_clock(0)
        await sight.until(state="synced", steps=0)
        await exact(cloud, events, sending)
        assert not cloud.strange(0)
