"""A line that loses a fifth of its packets and has room for 64 kbit/s: what waits, waits; and all of it arrives once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from tests.broker import make_broker
from tests.faults import LONG
from tests.faults.cloud import Cloud, consuming
from tests.faults.load import Load
from tests.faults.network import FAR, PORT, network
from tests.faults.plant import plant
from tests.faults.workload import caught_up, exact

SECONDS = 60.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.mark.skipif(not LONG, reason="takes minutes: make faults")
async def test_on_a_line_that_loses_a_fifth_of_all_packets_everything_arrives_once(
    tmp_path: Path, local: PrivateBroker
) -> None:
    socket = tmp_path / "broker.sock"
    uplink = f'name = "cloud"\nhost = "{FAR}"\nport = {PORT}\nbackoff_cap_s = 2.0\ntimeout_s = 10.0'
    cloud = Cloud()
    with make_broker(config=[f"listener 0 {socket}"]) as far, network(socket) as line:
        async with plant(tmp_path, local.port, uplink=uplink), consuming(cloud, far.port), Load(local.port) as load:
            await caught_up(cloud, load)
            line.degrade(loss=0.2, rate="64kbit")
            before = cloud.count
            await asyncio.sleep(SECONDS)
            through = cloud.count - before
            line.heal()
            await caught_up(cloud, load)
            await load.pause()
            print(f"{through} rows came through in {SECONDS:g} s, {cloud.count} in all")  # noqa: T201
            await exact(cloud, load)
