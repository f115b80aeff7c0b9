"""A broker that is killed, restarted, or restored from an old database, while a driver and a device publish through it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgefn.broker import PrivateBroker
from tests.broker import make_broker
from tests.integration.device import GATEWAY, Device, device

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

# Each event is a window of its own, which the cloud gets exactly once.
ONE_BY_ONE = """
from typing import NamedTuple
from edgefn import aggregate, count

class Row(NamedTuple):
    n: float

@aggregate("edgefn/{gateway}/event/ticker", count(1))
def tick(n) -> Row:
    return Row(n[0])

@aggregate("devices/{device}", count(1))
def of_device(n) -> Row:
    return Row(n[0])
"""

# It counts while the file `go` is there, and writes down how far it got when it is not.
TICKER = """
from pathlib import Path
from edgefn.drivers import driver, ticks

@driver
async def ticker(*, folder: str):
    n = 0
    async for _ in ticks(0.02):
        if (Path(folder) / "go").exists():
            yield {"n": n}
            n += 1
        elif n:
            (Path(folder) / "made.new").write_text(str(n))
            (Path(folder) / "made.new").rename(Path(folder) / "made")
"""

TICKS = f"edgefn/{GATEWAY}/summary/tick"


@asynccontextmanager
async def ticking(folder: Path, local: PrivateBroker, cloud: PrivateBroker) -> AsyncIterator[Device]:
    """A gateway whose driver publishes 50 events a second from the moment that its engine listens."""
    settings = (
        f'version = 1\n[gateway]\nid = "{GATEWAY}"\nstate = "state"\ndrivers = "."\n'
        f'[broker]\nport = {local.port}\nprivate = "never"\n[monitor]\ninterval = "1s"\n'
        '[engine]\ncommit_interval = "200ms"\n'
        f'[[uplink]]\nname = "cloud"\nhost = "127.0.0.1"\nport = {cloud.port}\n'
        f'[[driver]]\nname = "ticker"\n[driver.options]\nfolder = "{folder}"\n'
    )
    (folder / "ticker.py").write_text(TICKER)
    async with device(folder, local.port, cloud.port, settings=settings) as gateway:
        gateway.handler("one_by_one.py", ONE_BY_ONE)
        await gateway.start()
        await gateway.active("tick")
        await gateway.connected()
        (folder / "go").touch()
        await more(gateway, 20)
        yield gateway


async def more(gateway: Device, n: int) -> None:
    """Returns when the cloud has n more summaries."""
    goal = len(gateway.far.all(TICKS)) + n
    await gateway.far.until(TICKS, lambda row: row["seq"] >= goal)


async def lost(gateway: Device, n: int) -> None:
    """Returns when the engine has told of so many brokers that did not know its session."""
    await gateway.local.until(
        f"edgefn/{GATEWAY}/metrics", lambda metrics: metrics["counters"].get("session.lost", 0) >= n
    )


async def exact(gateway: Device) -> dict[str, int]:
    """The driver falls silent; then each of its events is in exactly one window. Returns the counters of the gateway."""
    made = gateway.folder / "made"
    (gateway.folder / "go").unlink()
    async with asyncio.timeout(10):
        while not made.exists():
            await asyncio.sleep(0.05)
    n = int(made.read_text())
    await gateway.far.until(TICKS, lambda row: row["seq"] == n)
    await asyncio.sleep(0.5)  # for what there should not be
    rows = {row["seq"]: row["data"]["values"]["n"] for row in gateway.far.all(TICKS)}
    assert Counter(rows.values()) == dict.fromkeys(range(n), 1)
    counters = await metrics_from_now(gateway)
    assert counters.get("events.gaps", 0) == 0
    return counters


async def metrics_from_now(gateway: Device) -> dict[str, int]:
    topic = f"edgefn/{GATEWAY}/metrics"
    for _ in range(2):  # the first may be retained, or of a moment ago
        metrics: dict[str, Any] = await gateway.local.until(topic, after=len(gateway.local.messages))
    counters: dict[str, int] = metrics["counters"]
    return counters


async def test_of_a_driver_nothing_is_lost_with_a_broker_that_is_killed(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with ticking(tmp_path, local, cloud) as gateway:
        for losses in (1, 2):
            local.kill()
            local.start()
            await lost(gateway, losses)  # else the next broker may die before the engine has seen it
            await more(gateway, 30)
        # The driver is back before the engine, and the new broker takes events that nobody is subscribed to.
        metrics = await gateway.local.until(f"edgefn/{GATEWAY}/metrics", lambda one: one["processes"]["engine"])
        engine = metrics["processes"]["engine"]
        os.kill(engine, signal.SIGSTOP)
        local.kill()
        local.start()
        seen = len(gateway.local.messages)
        await gateway.local.until(f"edgefn/{GATEWAY}/event/ticker", after=seen)
        os.kill(engine, signal.SIGCONT)
        await lost(gateway, 3)
        await more(gateway, 30)
        counters = await exact(gateway)
        assert counters["session.lost"] == 3
        assert "has lost our session" in gateway.log


async def test_nor_doubled_by_one_that_comes_back_with_an_old_database(tmp_path: Path, cloud: PrivateBroker) -> None:
    database, old = tmp_path / "database", tmp_path / "old"
    with make_broker(persistence=database) as local:
        async with ticking(tmp_path, local, cloud) as gateway:
            local.restart()
            shutil.copytree(database, old)
            await more(gateway, 50)
            local.kill()
            shutil.rmtree(database)
            old.rename(database)
            local.start()
            await more(gateway, 50)
            counters = await exact(gateway)
            assert "session.lost" not in counters
            assert counters["events.duplicate"] > 0


async def test_a_clean_restart_of_the_broker_is_exact(tmp_path: Path, cloud: PrivateBroker) -> None:
    with make_broker(persistence=tmp_path / "database") as local:
        async with ticking(tmp_path, local, cloud) as gateway:
            for _ in range(2):
                local.restart()
                await more(gateway, 30)
            counters = await exact(gateway)
            assert "events.uncertain" not in counters


async def test_of_other_devices_a_killed_broker_leaves_it_uncertain_and_says_so(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        gateway.handler("one_by_one.py", ONE_BY_ONE)
        await gateway.start()
        await gateway.active("of_device")
        await gateway.connected()
        for n in range(50):
            await gateway.publish("devices/pump", {"n": n})
        local.kill()
        local.start()
        metrics = await gateway.local.until(
            f"edgefn/{GATEWAY}/metrics", lambda one: one["counters"].get("events.uncertain", 0) > 0
        )
        assert metrics["counters"]["session.lost"] == 1
        assert "has lost our session" in gateway.log
