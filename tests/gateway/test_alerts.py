"""Alerts that were raised and never committed are cleared, and no others."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus
from edgefn.gateway.alerts import Alerts
from edgefn.monitor import Topics

pytestmark = pytest.mark.integration
TOPICS = Topics("alerts-test")


async def test_only_what_no_commit_knows_is_cleared(mosquitto: PrivateBroker) -> None:
    async with Bus(BrokerAddress("127.0.0.1", mosquitto.port)) as bus:
        await bus.wait_connected(5)
        for handler, key, state in (
            ("spike", "attic", "raised"),
            ("spike", "hall", "raised"),
            ("spike", "cellar", "cleared"),
            ("broken", "attic", "raised"),  # its file cannot be loaded now: nobody knows
            ("retired", "attic", "raised"),
        ):
            await bus.publish(TOPICS.alert(handler, key), f'{{"state": "{state}"}}', qos=1, retain=True)
        alerts = Alerts(bus, TOPICS)
        following = asyncio.create_task(alerts.run())
        async with asyncio.timeout(5):
            while len(alerts._told) < 4:
                await asyncio.sleep(0.01)
        alerts.restart({"spike": ["attic"]})
        wrong = await alerts.settle(known=["spike", "broken"])
        assert sorted(wrong) == [TOPICS.alert("retired", "attic"), TOPICS.alert("spike", "hall")]
        assert await alerts.settle(known=["spike", "broken"]) == []
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
