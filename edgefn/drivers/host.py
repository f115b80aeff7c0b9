"""Drivers of one gateway in one process: their configuration in, their events and states out over the local broker."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import msgspec

from edgefn.address import BrokerAddress
from edgefn.bus import Message
from edgefn.clock import Clock, SystemClock
from edgefn.drivers.supervisor import DriverConfig, Supervisor
from edgefn.drivers.tail import Publisher
from edgefn.errors import AccessError, ConfigError
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

STATUS_INTERVAL = 10.0  # seconds between two statuses of a driver whose state does not change


class HostConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the gateway writes to the driver host's standard input, as one line of JSON."""

    gateway: str
    broker: BrokerAddress = BrokerAddress()
    patience: float = 30.0  # seconds without a confirmation that are strange: several of the gateway's commits
    folders: list[str] = []
    drivers: list[DriverConfig] = []

    @classmethod
    def from_json(cls, line: bytes) -> HostConfig:
        """Raises ConfigError that names the key."""
        try:
            config = msgspec.json.decode(line, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the driver host's configuration (one line of JSON on standard input): {error}"
            ) from error
        names = [driver.name for driver in config.drivers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"two drivers are called {', '.join(sorted(twice))}: give each a name of its own")
        return config


class HostBus(Publisher, Protocol):
    """What the host asks of the bus."""

    def subscribe(self, *filters: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]: ...


class DriverHost:
    """An async context manager: inside, the drivers run; leaving it stops them all at the same time."""

    def __init__(
        self,
        config: HostConfig,
        bus: HostBus,
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.metrics = metrics or Metrics()
        run_id = secrets.token_hex(4)
        self.drivers = [
            Supervisor(
                driver,
                config.gateway,
                bus,
                clock or SystemClock(),
                self.metrics,
                config.folders,
                sleep,
                f"{run_id}.{n}",
                config.patience,
            )
            for n, driver in enumerate(config.drivers)
        ]
        self._bus = bus
        self._confirmations = f"edgefn/{config.gateway}/confirmed"
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> DriverHost:
        self._bus.on_connect.append(self._reconnected)
        for driver in self.drivers:
            await driver.start()
        self._tasks = [
            asyncio.create_task(self._report(), name="driver statuses"),
            asyncio.create_task(self._confirm(), name="confirmations"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reconnected in self._bus.on_connect:
            self._bus.on_connect.remove(self._reconnected)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(driver.stop() for driver in self.drivers))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            for driver in self.drivers:
                await driver.tell()

    async def _reconnected(self) -> None:
        for driver in self.drivers:
            driver.tail.reconnected()

    async def _confirm(self) -> None:
        """Lets the drivers forget what the gateway has stored."""
        async with AsyncExitStack() as stack:
            try:
                messages = await stack.enter_async_context(self._bus.subscribe(self._confirmations))
            except AccessError as error:
                log.error("%s; events that the broker loses cannot be sent again", error)
                return
            async for message in messages:
                try:
                    confirmed = msgspec.json.decode(message.payload, type=dict[str, int])
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    self.metrics.count("drivers.confirmations_unreadable")
                    log.warning("%s: not written by the gateway: %s", message.topic, error)
                    continue
                for driver in self.drivers:
                    driver.tail.confirm(confirmed)
