"""Before the store is open: while the disk refuses, why is told over MQTT, and everything else waits.

Without the store the state of the handlers is not known, so they cannot go on. The broker keeps the events meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from edgefn.address import BrokerAddress
from edgefn.bus import Bus
from edgefn.clock import Clock
from edgefn.errors import StoreDiskError
from edgefn.metrics import Metrics
from edgefn.monitor import Monitor, Topics
from edgefn.store import Store

log = logging.getLogger(__name__)

RETRY = (1.0, 30.0)  # seconds: the first wait, and the longest


async def enter_store(
    stack: AsyncExitStack,
    make: Callable[[], Store],
    address: BrokerAddress,
    topics: Topics,
    clock: Clock,
    metrics: Metrics,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Store:
    """Enters the store that `make` gives, as often as it takes. Raises StoreError for what waiting does not mend."""
    try:
        return await stack.enter_async_context(make())
    except StoreDiskError as error:
        why = str(error)
    async with Bus(
        address, client_id=f"edgefn-{topics.gateway}", will=Monitor.last_will(topics), metrics=metrics
    ) as bus:
        monitor = Monitor(bus, topics, clock, metrics, 0)

        async def gauges() -> dict[str, Any]:
            return {"store": why}

        told = ""
        delay, longest = RETRY
        while True:
            if why != told:
                log.error("%s; the gateway waits", told := why)
            metrics.count("store.failed")
            await monitor.publish_metrics(gauges)
            await sleep(delay)
            delay = min(delay * 2, longest)
            try:
                return await stack.enter_async_context(make())
            except StoreDiskError as error:
                why = str(error)
