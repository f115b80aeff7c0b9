"""Three days without a cloud, then all of it in order: as fast as it goes, in memory that does not grow with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
import pytest

from edgefn.broker import PrivateBroker
from edgefn.clock import NS, SystemClock
from edgefn.demo.wire import Wire
from edgefn.metrics import Metrics
from edgefn.store import Commit, NewItem, open_store
from tests.faults import LONG
from tests.faults.cloud import Cloud, consuming
from tests.faults.plant import plant
from tests.integration.device import GATEWAY

HOURS = 72
ROWS = 250_000
STREAMS = ("summary/tenth", "summary/second", "alert/fiftieth")
GROWTH = 12.0  # MB: batches under way, and what they are made of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def row(i: int, start: int) -> NewItem:
    """As a handler's: one of three streams, two priorities, spread over the three days."""
    stream = STREAMS[i % 3]
    ts = start + i * HOURS * 3600 * NS // ROWS
    values = {"n": 1, "total": i}
    body = {"ts": ts, "handler": stream.partition("/")[2], "key": f"m{i % 20:02}"}
    if stream.startswith("alert"):
        body["state"] = "raised" if i % 2 else "cleared"
    return NewItem(stream, json.dumps({**body, "values": values}).encode(), ts, 2 if "state" in body else 1)


async def fill(path: Path) -> None:
    clock = SystemClock()
    start = clock.now() - HOURS * 3600 * NS
    async with open_store(path, gateway=GATEWAY, clock=clock, metrics=Metrics(), uplinks=["cloud"]) as store:
        for first in range(0, ROWS, 1000):
            await store.commit(Commit([row(i, start) for i in range(first, min(first + 1000, ROWS))]))


def megabytes(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


@pytest.mark.skipif(not LONG, reason="takes a minute: make faults")
async def test_a_backlog_of_three_days_drains_in_order_and_in_bounded_memory(
    tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    (tmp_path / "state").mkdir()
    await fill(tmp_path / "state" / "edgefn.db")
    cloud = Cloud()
    async with Wire(cloud_broker.port) as line:
        await line.cut()
        async with plant(tmp_path, local.port, line.port) as running, consuming(cloud, cloud_broker.port):
            gateway = running.gateway
            before = peak = megabytes(gateway)
            await line.heal()
            loop = asyncio.get_running_loop()
            started = loop.time()
            while cloud.count < ROWS:
                await cloud.grown(30)
                peak = max(peak, megabytes(gateway))
            took = loop.time() - started
            print(  # noqa: T201
                f"{ROWS} rows of {HOURS} hours in {took:.1f} s ({ROWS / took:.0f}/s), {cloud.duplicates} came again; "
                f"gateway {before:.1f} MB before, {peak:.1f} MB at most"
            )
            assert not cloud.findings
            assert cloud.count == ROWS
            assert peak < before + GROWTH
            assert await running.device.stop() == 0
