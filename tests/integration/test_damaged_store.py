"""A store that breaks under a running gateway: it ends and says so, and the next start goes on with what can be read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from edgefn.clock import SystemClock
from edgefn.metrics import Metrics
from edgefn.store import Commit, asides, open_store
from tests.integration.device import GATEWAY, PATIENCE, device
from tests.store.helpers import item
from tests.store.test_salvage import PAGE, spoil

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def test_the_gateway_ends_with_a_status_of_its_own_and_the_next_one_delivers_the_rest(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    path = tmp_path / "state" / "edgefn.db"
    async with open_store(path, gateway=GATEWAY, clock=SystemClock(), metrics=Metrics(), uplinks=["cloud"]) as store:
        await store.commit(Commit([item("summary/a", n, size=200) for n in range(1000)]))
    spoil(path, path.read_bytes().index(b'{"n":500}') // PAGE + 1)  # met when it is read, not at the start
    asides.suspect(path).unlink()
    async with device(tmp_path, local.port, cloud.port) as gateway:
        await gateway.start()
        assert gateway.process is not None
        assert await asyncio.wait_for(gateway.process.wait(), PATIENCE) == 3
        await gateway.local.until(f"edgefn/{GATEWAY}/log", lambda record: "damaged" in record["message"])
        await gateway.local.until(f"edgefn/{GATEWAY}/metrics", lambda metrics: "damaged" in metrics["store"])
        assert "restart edgefn" in gateway.log
        heard = len(gateway.local.messages)
        await gateway.start()
        await gateway.far.until(f"edgefn/{GATEWAY}/summary/a", lambda row: row["seq"] == 1000)
        metrics = await gateway.local.until(
            f"edgefn/{GATEWAY}/metrics", lambda metrics: metrics["counters"].get("store.salvaged"), after=heard
        )
        [drop] = metrics["drops"]
        assert drop["reason"] == "damaged"
        seen = {row["seq"] for row in gateway.far.all(f"edgefn/{GATEWAY}/summary/a")}
        assert len(seen) + drop["n"] == 1000
        await gateway.stop()
