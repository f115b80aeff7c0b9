"""A device for tests: a folder with settings and handlers, a gateway process on it, and listeners on both brokers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from edgefn import events
from edgefn.address import BrokerAddress
from edgefn.bus import Backoff, Bus, Message

PATIENCE = 60.0  # seconds until a test gives up waiting: two cores, shared with other tests' compilers
GATEWAY = "testbed"


class Listener:
    """Keeps every message of a broker, and lets a test wait for the one that it is about."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.messages: list[Message] = []
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        async with self.bus.subscribe("#", qos=1, max_queue=1_000_000) as messages:
            async for message in messages:
                async with self._changed:
                    self.messages.append(message)
                    self._changed.notify_all()

    async def until(self, topic: str, predicate: Callable[[Any], bool] = bool, *, after: int = 0) -> Any:
        """The decoded payload of the first message (from number `after` on) that fits."""

        def found() -> Any:
            for message in self.messages[after:]:
                if message.topic == topic:
                    value = decoded(message.payload)
                    try:
                        fits = predicate(value)
                    except (AttributeError, KeyError, TypeError):
                        fits = False  # cleared, or of another shape than the one that is waited for
                    if fits:
                        return message, value
            return None

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: found() is not None), PATIENCE)
            except TimeoutError:
                heard = [f"{one.topic} {one.payload[:200]!r}" for one in self.messages if one.topic == topic][-5:]
                topics = sorted({one.topic for one in self.messages})
                raise AssertionError(f"nothing on {topic} fits; last heard there: {heard}; topics: {topics}") from None
        return found()[1]

    def all(self, prefix: str) -> list[Any]:
        return [decoded(one.payload) for one in self.messages if one.topic.startswith(prefix)]


def decoded(payload: bytes) -> Any:
    try:
        return events.from_json(payload) if payload else None
    except events.PayloadError:
        return payload


class Device:
    """One gateway, started as a person would start it, and killed as a person would not."""

    def __init__(self, folder: Path, broker: int, cloud: int | None, settings: str = "") -> None:
        self.folder = folder
        self.broker, self.cloud = broker, cloud
        (folder / "handlers").mkdir(exist_ok=True)
        text = f'version = 1\ndriver = []\n[gateway]\nid = "{GATEWAY}"\nstate = "state"\n'
        text += f'[broker]\nport = {broker}\nprivate = "never"\n[monitor]\ninterval = "1s"\n'
        text += '[engine]\ncommit_interval = "200ms"\n'
        if cloud is not None:
            text += f'[[uplink]]\nname = "cloud"\nhost = "127.0.0.1"\nport = {cloud}\nbackoff_cap_s = 0.5\n'
        (folder / "edgefn.toml").write_text(settings or text)
        self.environment: Mapping[str, str] | None = None  # None: the test's own
        self.process: asyncio.subprocess.Process | None = None
        self.local: Listener
        self.far: Listener

    def handler(self, name: str, source: str) -> None:
        (self.folder / "handlers" / name).write_text(source)

    async def start(self) -> None:
        log = open(self.folder / "gateway.log", "ab")  # noqa: ASYNC230, SIM115 - the child keeps it
        command = (sys.executable, "-m", "edgefn", "run", str(self.folder))
        self.process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, start_new_session=True, env=self.environment
        )
        log.close()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    async def stop(self) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 10)

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    async def active(self, handler: str, *, after: int = 0) -> Any:
        return await self.local.until(
            f"edgefn/{GATEWAY}/handler/{handler}", lambda state: bool(state) and state["state"] == "active", after=after
        )

    async def connected(self) -> None:
        """The engine is connected and subscribed: nothing published from now on is missed."""
        await self.local.until(f"edgefn/{GATEWAY}/metrics", lambda metrics: metrics["engine"]["state"] == "connected")

    async def publish(self, topic: str, payload: bytes | Mapping[str, Any], qos: int = 1) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.local.bus.publish(topic, data, qos)


@contextlib.asynccontextmanager
async def device(
    folder: Path,
    broker: int,
    cloud: int | None = None,
    settings: str = "",
    *,
    address: BrokerAddress | None = None,
    uplink: int | None = None,
) -> AsyncIterator[Device]:
    """A device whose gateway is not started yet; everything is ended at the end.

    `uplink`: the port by which the gateway reaches the cloud, where that is not the cloud's own.
    """
    one = Device(folder, broker, uplink or cloud, settings)
    async with contextlib.AsyncExitStack() as stack:
        tasks = []
        for name, port in (("local", broker), ("far", cloud)):
            if port is None:
                continue
            where = address if name == "local" and address else BrokerAddress("127.0.0.1", port)
            bus = await stack.enter_async_context(
                Bus(where, client_id=f"test-{name}-{os.getpid()}", backoff=Backoff(0.1, 0.5))
            )
            listener = Listener(bus)
            setattr(one, name, listener)
            tasks.append(asyncio.create_task(listener.run()))
            await bus.wait_connected(5)
        try:
            yield one
        finally:
            if one.process is not None and one.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.process.pid, signal.SIGKILL)
                await one.process.wait()
            for task in tasks:
                task.cancel()
