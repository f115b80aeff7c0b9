"""The driver host process, kept running: configuration goes in on its standard input, readings come out on MQTT."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edgefn.address import BrokerAddress
from edgefn.bus import Backoff
from edgefn.config import Config
from edgefn.events import to_json

log = logging.getLogger(__name__)

STOP_TIMEOUT = 3.0


def driver_configuration(config: Config, broker: BrokerAddress) -> dict[str, Any]:
    """What the driver host is told on its standard input."""
    return {
        "gateway": config.gateway.id,
        "broker": broker.to_dict(),
        "patience": max(30.0, 3 * config.engine.commit_interval / 1e9),
        "folders": [folder for folder in (config.gateway.drivers,) if folder],
        "drivers": [
            {
                "name": driver.name,
                "use": driver.use or driver.name,
                "options": driver.options,
                **({} if driver.qos is None else {"qos": driver.qos}),
            }
            for driver in config.driver
        ],
    }


class DriverProcess:
    """Starts `python -m edgefn.drivers`, and starts it again with back-off when it dies."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        ended: Callable[[str], Awaitable[None]],
        *,
        clock_fd: int,
        backoff: Backoff | None = None,
    ) -> None:
        self._clock_fd = clock_fd
        self._ended = ended
        self._configuration = to_json(configuration)
        self._backoff = backoff or Backoff(base=0.5, cap=30.0)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        failures = 0
        while not self._stopping:
            started = time.monotonic()
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "edgefn.drivers", str(self._clock_fd),
                pass_fds=(self._clock_fd,), stdin=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdin is not None
            try:
                # It stays open: its end tells the driver host that the gateway has gone.
                process.stdin.write(self._configuration + b"\n")
                await process.stdin.drain()
                code = await process.wait()
            except ConnectionError:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if self._stopping:
                return
            self.restarts += 1
            failures = 0 if time.monotonic() - started > 60 else failures + 1
            delay = self._backoff.delay(failures)
            log.error("the driver host ended with status %s; it is started again in %.1f s", code, delay)
            await self._ended(f"the driver host ended with status {code}")
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Lets the drivers close what they opened. Twice is harmless."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            log.warning("the driver host did not stop within %g s and is killed", STOP_TIMEOUT)
            process.kill()
            await process.wait()
