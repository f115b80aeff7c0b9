"""A whole gateway whose disk fails, goes away, is full, or loses its power: handlers go on, and the account is exact."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus
from edgefn.demo.wire import Wire
from tests.faults import LONG, SEED
from tests.faults.cloud import Cloud, consuming
from tests.faults.load import Load
from tests.faults.plant import plant
from tests.faults.power import Disk, put, records
from tests.faults.workload import HANDLERS, caught_up, exact
from tests.faults.world import World
from tests.integration.device import GATEWAY, decoded

OUTAGES = 10 if LONG else 1
LONGEST = 10.0 if LONG else 1.5  # seconds
SIZE = 16 << 20  # of the small disk

ALERTS = (
    HANDLERS
    + """
# What this machine itself is told, whatever becomes of the disk.
@anomaly(plausible, threshold=1.0, clear=0.5, to="local")
def here(v, state: Seen) -> float:
    state.n += 1
    return float(state.n % 2)
"""
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(OUTAGES * 60 + 420)]


class Local:
    """What a person at the gateway sees: alerts, and what the metrics say of the store."""

    def __init__(self) -> None:
        self.alerts = 0
        self.store = ""
        self.waiting = 0  # rows for the cloud
        self._changed = asyncio.Condition()

    async def run(self, bus: Bus) -> None:
        async with bus.subscribe(f"edgefn/{GATEWAY}/#", max_queue=1_000_000) as messages:
            async for message in messages:
                async with self._changed:
                    self.alerts += "/alert/here/" in message.topic
                    if message.topic.endswith("/metrics"):
                        metrics = decoded(message.payload)
                        self.store = metrics["store"]
                        self.waiting = metrics["uplinks"].get("cloud", {"rows": self.waiting})["rows"]
                    self._changed.notify_all()

    async def fifty_alerts(self) -> None:
        """From now on."""
        wanted = self.alerts + 50
        await self.until(lambda: self.alerts >= wanted, 20)

    async def until_store(self, *words: str, patience: float = 40) -> None:
        await self.until(lambda: any(word in self.store for word in words), patience)

    async def until(self, fits: Callable[[], bool], patience: float = 40) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(fits), patience)


@asynccontextmanager
async def watching(port: int) -> AsyncIterator[Local]:
    local = Local()
    async with Bus(BrokerAddress("127.0.0.1", port), client_id="person") as bus:
        await bus.wait_connected(10)
        task = asyncio.create_task(local.run(bus))
        yield local
        task.cancel()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(state: Path) -> Iterator[Path]:
    """A file system of 16 MB in the place of the state folder."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(state)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs to mount a tmpfs: run it as root")
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


async def test_handlers_and_alerts_go_on_while_the_disk_is_gone(
    tmp_path: Path, state: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    world = World(state, tmp_path / "control")
    cloud = Cloud()
    async with (
        plant(tmp_path, local.port, cloud_broker.port, world=world, handlers=ALERTS),
        consuming(cloud, cloud_broker.port),
        watching(local.port) as person,
        Load(local.port) as load,
    ):
        for _ in range(OUTAGES):
            await caught_up(cloud, load)
            world.break_disk()
            await person.until_store("I/O error", "unable to open")
            await person.fifty_alerts()
            await asyncio.sleep(random.Random(SEED).uniform(0.0, LONGEST))
            world.heal_disk()
            await person.until_store("ok")
        await caught_up(cloud, load)
        await load.pause()
        await exact(cloud, load)


@pytest.mark.skipif(not LONG, reason="takes a minute; test_disks.py does it to the store alone: make faults")
async def test_when_one_in_twenty_writes_and_fsyncs_fails_every_event_is_counted_once(
    tmp_path: Path, state: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    """And the gateway is killed in between: what it had been refused it asks for again, or has it already."""
    moments = random.Random(SEED)
    world = World(state, tmp_path / "control", seed=SEED)
    cloud = Cloud()
    async with (
        plant(tmp_path, local.port, cloud_broker.port, world=world) as running,
        consuming(cloud, cloud_broker.port),
        Load(local.port) as load,
    ):
        for _ in range(2 * OUTAGES):
            await caught_up(cloud, load)
            world.fail(syncs=0.05, writes=0.05)
            await asyncio.sleep(moments.uniform(1.0, 1.0 + LONGEST))
            world.fail()  # else the next gateway may need more than one start
            await running.kill_gateway()
            await running.engine()
        await caught_up(cloud, load)
        await load.pause()
        print(f"{world.failed} calls failed")  # noqa: T201
        assert world.failed > 0
        await exact(cloud, load)


@pytest.mark.skipif(not LONG, reason="takes minutes: make faults")
async def test_a_full_disk_drains_while_it_is_full_and_takes_up_again_when_there_is_room(
    tmp_path: Path, small_disk: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    filler = small_disk / "somebody else's file"
    cloud = Cloud()
    async with (
        Wire(cloud_broker.port) as line,
        plant(tmp_path, local.port, line.port, handlers=ALERTS),
        consuming(cloud, cloud_broker.port),
        watching(local.port) as person,
        Load(local.port) as load,
    ):
        await caught_up(cloud, load)
        await line.cut()
        await person.until(lambda: person.waiting > 500)
        fill(filler, small_disk)
        await person.until_store("full")
        await person.fifty_alerts()
        await load.pause()
        await line.heal()
        await person.until(lambda: person.waiting == 0)
        filler.unlink()
        await load.resume()
        await person.until_store("ok", patience=120)
        await caught_up(cloud, load)
        await load.pause()
        await exact(cloud, load)


def fill(file: Path, disk: Path) -> None:
    """Until there is room for nothing."""
    with file.open("wb", buffering=0) as out:
        try:
            while out.write(bytes(1 << 16)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    assert shutil.disk_usage(disk).free == 0


@pytest.mark.skipif(not LONG, reason="takes a minute: make faults")
async def test_a_power_cut_takes_nothing_that_the_engine_had_acknowledged(
    tmp_path: Path, state: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    """The brokers are other machines and keep their power: what the disk forgets the broker must still have."""
    moments = random.Random(SEED)
    log = tmp_path / "calls"
    world = World(state, tmp_path / "control", log=log)
    cloud = Cloud(epochs_end=True)
    async with (
        plant(tmp_path, local.port, cloud_broker.port, world=world) as running,
        consuming(cloud, cloud_broker.port),
        Load(local.port) as load,
    ):
        before: dict[str, bytes] = {}
        for _ in range(2 * OUTAGES):
            await caught_up(cloud, load)
            await asyncio.sleep(moments.uniform(0.0, 1.0))
            await running.power_off()
            disk = Disk(state, before)
            for record in records(log):
                disk.advance(record)
            before = disk.cut(moments)
            put(before, state)
            log.unlink()
            await running.device.start()
        await caught_up(cloud, load)
        await load.pause()
        print(f"{2 * OUTAGES} cuts, {len(cloud.epochs)} epochs")  # noqa: T201
        await exact(cloud, load)
