"""A gateway whose disk refuses waits, says why over MQTT, and goes on as soon as it can."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus
from edgefn.clock import SystemClock
from edgefn.errors import StoreDiskError, StoreError
from edgefn.events import from_json
from edgefn.gateway.doorstep import enter_store
from edgefn.metrics import Metrics
from edgefn.monitor import Topics
from edgefn.store import Store
from tests.integration.device import PATIENCE, device
from tests.store.helpers import a_store


class Refusing:
    """Stands for a store that cannot be opened some times."""

    def __init__(self, *errors: StoreError) -> None:
        self.errors = list(errors)
        self.store: Store

    def make(self, path: Path) -> object:
        if self.errors:
            return _NoStore(self.errors.pop(0))
        return a_store(path)


class _NoStore:
    def __init__(self, error: StoreError) -> None:
        self.error = error

    async def __aenter__(self) -> Store:
        raise self.error

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError("never entered")


async def test_why_it_waits_is_told_and_each_wait_is_longer(tmp_path: Path, mosquitto: PrivateBroker) -> None:
    address = BrokerAddress("127.0.0.1", mosquitto.port)
    refusing = Refusing(*[StoreDiskError("edgefn.db: mounted read-only")] * 7)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with AsyncExitStack() as stack, Bus(address, client_id="watch-doorstep") as watch:
        await watch.wait_connected(10)
        async with watch.subscribe("edgefn/gw-door/metrics") as messages:
            store = await enter_store(
                stack,
                lambda: refusing.make(tmp_path / "store.db"),  # type: ignore[arg-type, return-value]
                address,
                Topics("gw-door"),
                SystemClock(),
                Metrics(),
                sleep,
            )
            async with asyncio.timeout(10):
                async for message in messages:
                    assert from_json(message.payload)["store"] == "edgefn.db: mounted read-only"
                    break
        assert store.report.fresh
        assert waits == [1, 2, 4, 8, 16, 30, 30]


async def test_what_waiting_does_not_mend_ends_it(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(StoreError, match="another program"):
            await enter_store(
                stack,
                lambda: Refusing(StoreError("edgefn.db: of another program")).make(tmp_path),  # type: ignore[arg-type, return-value]
                BrokerAddress("127.0.0.1", 1),
                Topics("gw"),
                SystemClock(),
                Metrics(),
            )


@pytest.mark.integration
async def test_a_real_one_waits_is_stopped_while_it_waits_and_starts_once_it_can(
    tmp_path: Path, mortal_mosquitto: PrivateBroker
) -> None:
    """A folder stands where the database should be: the file cannot be opened, whoever asks."""
    obstacle = tmp_path / "state" / "edgefn.db"
    obstacle.mkdir(parents=True)
    async with device(tmp_path, mortal_mosquitto.port) as gateway:
        for last in (False, True):
            heard = len(gateway.local.messages)
            await gateway.start()
            await gateway.local.until(
                "edgefn/testbed/metrics", lambda one: "cannot be opened" in one["store"], after=heard
            )
            if last:
                obstacle.rmdir()
                await gateway.local.until("edgefn/testbed/status", lambda one: one == b"online", after=heard)
            assert await asyncio.wait_for(gateway.stop(), PATIENCE) == 0
