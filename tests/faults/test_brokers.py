"""A cloud broker that dies, a local broker that is restarted cleanly, and processes that stand still: exact, all of them.

(The local broker killed with -9 is another promise: tests/integration/test_broker_faults.py.)
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from edgefn.demo.wire import Wire
from tests.broker import make_broker
from tests.faults import LONG, SEED
from tests.faults.cloud import Cloud, consuming
from tests.faults.load import Load
from tests.faults.plant import Plant, plant
from tests.faults.workload import caught_up, exact

OUTAGES = 30 if LONG else 2
MINUTES = (130.0, 130.0)  # seconds: longer than a broker waits for a sign of life
LONGEST = 10.0 if LONG else 1.0  # seconds of an outage or a standstill

pytestmark = [pytest.mark.faults, pytest.mark.timeout(OUTAGES * 30 + 120)]


async def test_a_cloud_broker_that_is_killed_takes_nothing_with_it(tmp_path: Path, local: PrivateBroker) -> None:
    """A row that it has acknowledged is not sent again, so the consumer must have it: it is there before the gateway is.

    At QoS 0 mosquitto writes to the consumer's socket before it sends the PUBACK, and what is in a socket outlives it.
    """
    moments = random.Random(SEED)
    cloud = Cloud()
    with make_broker() as far:
        async with Wire(far.port) as line, plant(tmp_path, local.port, line.port), Load(local.port) as load:
            for outage in range(OUTAGES + 1):
                async with consuming(cloud, far.port, qos=0) as consumer:
                    await line.heal()
                    if outage % 2:  # in the middle of what has piled up
                        await cloud.grown(60)
                        await asyncio.sleep(moments.uniform(0.0, 0.1))
                    else:
                        await caught_up(cloud, load)
                        await asyncio.sleep(moments.uniform(0.0, 1.0))
                    if outage == OUTAGES:
                        await load.pause()
                        await exact(cloud, load)
                        return
                    far.kill()
                    await line.cut()
                    while consumer.connected.is_set():  # until it has read to the end
                        await asyncio.sleep(0.01)
                await asyncio.sleep(moments.uniform(0.0, LONGEST))
                await asyncio.to_thread(far.restart)


async def test_a_local_broker_that_is_restarted_cleanly_changes_nothing(
    running: Plant, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    """The devices stop until it is back; the engine has not acknowledged all that it got when the broker ends."""
    moments = random.Random(SEED)
    cloud = Cloud()
    async with consuming(cloud, cloud_broker.port), Load(local.port) as load:
        for _ in range(OUTAGES):
            await caught_up(cloud, load)
            await asyncio.sleep(moments.uniform(0.0, 1.0))
            await load.pause()
            await asyncio.to_thread(local.stop)
            await asyncio.sleep(moments.uniform(0.0, LONGEST))
            await asyncio.to_thread(local.restart)
            await load.resume()
        await caught_up(cloud, load)
        await load.pause()
        await exact(cloud, load)


async def test_processes_that_stand_still_go_on_where_they_were(
    running: Plant, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    """SIGSTOP of engine and gateway in turn: what a debugger, a full swap or a laptop's lid does to them."""
    moments = random.Random(SEED)
    cloud = Cloud()
    async with consuming(cloud, cloud_broker.port), Load(local.port) as load:
        pauses = [moments.uniform(0.5, LONGEST) for _ in range(OUTAGES)]
        for number, pause in enumerate([*pauses, *(MINUTES if LONG else ())]):
            await caught_up(cloud, load)
            await asyncio.sleep(moments.uniform(0.0, 1.0))
            process = running.gateway if number % 2 else await running.engine()
            process.suspend()
            await asyncio.sleep(min(pause, LONGEST))
            if pause > LONGEST:  # what would come in two minutes is more than the broker queues
                await load.pause()
                await asyncio.sleep(pause - LONGEST)
                await load.resume()
            process.resume()
        await caught_up(cloud, load)
        await load.pause()
        await exact(cloud, load)
