"""Drivers of one gateway in one process: their configuration in, their events and states out over the local broker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import msgspec

from edgefn.address import BrokerAddress
from edgefn.clock import Clock, SystemClock
from edgefn.drivers.supervisor import DriverConfig, Supervisor
from edgefn.drivers.tail import Publisher
from edgefn.errors import ConfigError
from edgefn.metrics import Metrics

STATUS_INTERVAL = 10.0  # seconds between two statuses of a driver whose state does not change


class HostConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the gateway writes to the driver host's standard input, as one line of JSON."""

    gateway: str
    broker: BrokerAddress = BrokerAddress()
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


class DriverHost:
    """An async context manager: inside, the drivers run; leaving it stops them all at the same time."""

    def __init__(
        self,
        config: HostConfig,
        bus: Publisher,
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
            )
            for n, driver in enumerate(config.drivers)
        ]
        self._reporter: asyncio.Task[None] | None = None

    async def __aenter__(self) -> DriverHost:
        for driver in self.drivers:
            await driver.start()
        self._reporter = asyncio.create_task(self._report(), name="driver statuses")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reporter:
            self._reporter.cancel()
        await asyncio.gather(*(driver.stop() for driver in self.drivers))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            for driver in self.drivers:
                await driver.tell()
