"""A gateway with the handlers under test, and a hand on its processes: to kill them, to stop them, to let them go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from edgefn.address import BrokerAddress
from edgefn.bus import Bus
from tests.faults.workload import COMMIT, HANDLERS, settings
from tests.faults.world import World
from tests.integration.device import GATEWAY, PATIENCE, Device, decoded

COMPILE = 120.0  # seconds for the first start of all, which compiles the handlers


class Plant:
    """One gateway and its processes."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @property
    def gateway(self) -> psutil.Process:
        process = self.device.process
        assert process is not None
        assert process.returncode is None, "the gateway ended by itself"
        return psutil.Process(process.pid)

    async def engine(self) -> psutil.Process:
        """The engine's process, as soon as there is one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for child in self.gateway.children():
                    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                        if "edgefn.engine" in child.cmdline():
                            return child
                await asyncio.sleep(0.02)

    async def kill_engine(self) -> None:
        engine = await self.engine()
        engine.kill()
        await asyncio.to_thread(engine.wait, 5)

    async def kill_gateway(self) -> None:
        """The gateway is gone, and another one is started."""
        await self.power_off()
        await self.device.start()

    async def power_off(self) -> None:
        """The gateway is gone, and with it its children."""
        self.gateway.kill()
        assert self.device.process is not None
        await self.device.process.wait()

    async def commit_unheard(self) -> None:
        """Stops the engine when the gateway has stored a commit of it that it has not heard of, and so not acknowledged.

        It takes some milliseconds in the life of a commit, which kills at random hardly ever meet.
        """
        engine, gateway = await self.engine(), self.gateway
        gateway.suspend()
        await asyncio.sleep(2 * COMMIT)  # the engine has sent one
        engine.suspend()
        gateway.resume()
        await asyncio.sleep(COMMIT)  # the gateway has stored it


async def _subscribed(broker: int) -> None:
    """The engine has said that it is connected: nothing published from now on is missed."""
    async with Bus(BrokerAddress("127.0.0.1", broker), client_id="watch") as bus:
        await bus.wait_connected(10)
        async with bus.subscribe(f"edgefn/{GATEWAY}/metrics") as messages, asyncio.timeout(COMPILE):
            async for message in messages:
                metrics = decoded(message.payload)
                if metrics["engine"]["state"] == "connected":
                    return


@asynccontextmanager
async def plant(
    folder: Path, broker: int, cloud: int = 0, *, uplink: str = "", world: World | None = None, handlers: str = HANDLERS
) -> AsyncIterator[Plant]:
    """A gateway that is up: its engine is subscribed. At the end all its processes are gone.

    It forwards to the MQTT broker at port `cloud`, or to the `uplink` given in TOML, and lives in the `world`.
    """
    uplink = uplink or f'name = "cloud"\nhost = "127.0.0.1"\nport = {cloud}\nbackoff_cap_s = 0.5'
    device = Device(folder, broker, None, settings(broker, folder, uplink))
    device.environment = world and world.environment
    device.handler("machines.py", handlers)
    await device.start()
    try:
        await _subscribed(broker)
        yield Plant(device)
    except BaseException:
        print(device.log[-4000:])  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        assert device.process is not None
        if device.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(device.process.pid, signal.SIGKILL)
            await device.process.wait()
