"""Two brokers, a gateway between them, a cut in the middle, and an account at the end that must balance."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from edgefn import events
from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus, Message
from edgefn.demo.account import Cloud, Device
from edgefn.demo.screen import render
from edgefn.demo.wire import Wire
from edgefn.errors import EdgefnError, PayloadError
from edgefn.processes import die_with_parent

GATEWAY = "demo"
READY_TIMEOUT = 180.0  # seconds; compiling takes a while on a Pi when it was not done by the set-up
DRAIN_TIMEOUT = 30.0
CYCLE = 60.0  # seconds of a round where the demo has no end: the line is cut in the middle third of each

SETTINGS = """\
version = 1
[gateway]
id = "{gateway}"
state = "state"
[broker]
port = {broker}
private = "never"
[monitor]
interval = "1s"
[[driver]]
name = "host"
interval = "2s"
[[driver]]
name = "boiler"
fault_every = "20s"
[[driver]]
name = "motor"
fault_every = "15s"
[[driver]]
name = "door"
mean = "2s"
[[driver]]
name = "climate"
interval = "1s"
glitch = 0.02
[[uplink]]
name = "cloud"
type = "mqtt"
host = "127.0.0.1"
port = {cloud}
"""


class Demo:
    """One run of the demo. `seconds` None: until Ctrl-C."""

    def __init__(self, seconds: float | None, console: Console) -> None:
        self._seconds = seconds
        self._console = console
        self._cloud, self._device = Cloud(), Device()
        self._stop = asyncio.Event()
        self._gateway: asyncio.subprocess.Process | None = None
        self._lives = 0
        self._first_summary: float | None = None
        self._note = "connected"

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefn-demo-")))
            local = stack.enter_context(PrivateBroker())
            far = stack.enter_context(PrivateBroker())
            wire = await stack.enter_async_context(Wire(far.port))
            settings = SETTINGS.format(gateway=GATEWAY, broker=local.port, cloud=wire.port)
            (folder / "edgefn.toml").write_text(settings)
            local_bus = await stack.enter_async_context(Bus(BrokerAddress(port=local.port), client_id="demo-device"))
            far_bus = await stack.enter_async_context(Bus(BrokerAddress(port=far.port), client_id="demo-cloud"))
            async with asyncio.TaskGroup() as tasks:
                listening = [
                    tasks.create_task(_listen(local_bus, 0, self._from_device)),
                    tasks.create_task(_listen(far_bus, 1, self._from_cloud)),
                ]
                await local_bus.wait_connected(5)
                await far_bus.wait_connected(5)
                listening.append(tasks.create_task(self._keep_gateway(folder)))
                self._console.print(
                    f"device broker: 127.0.0.1:{local.port}   cloud broker: 127.0.0.1:{far.port}\n"
                    f"watch it:      mosquitto_sub -p {local.port} -v -t 'edgefn/#'\n"
                    f"the gateway's log: {folder}/gateway.log"
                )
                try:
                    await self._ready(folder)
                    await self._show(wire)
                    await wire.heal()
                    await self._drain()
                    await self._stop_gateway()
                    await asyncio.sleep(0.3)  # what the brokers still pass on
                finally:
                    self._stop.set()
                    for task in listening:
                        task.cancel()
                    if self._gateway is not None and self._gateway.returncode is None:
                        self._gateway.kill()
        return self._report()

    # The gateway

    async def _keep_gateway(self, folder: Path) -> None:
        """Runs the gateway as systemd would: killed, it is started again."""
        with open(folder / "gateway.log", "ab") as log:  # noqa: ASYNC230
            while not self._stop.is_set():
                self._lives += 1
                self._gateway = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "edgefn", "run", str(folder)),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the demo, which stops the gateway in its turn
                    preexec_fn=die_with_parent,
                )
                await self._gateway.wait()
                if not self._stop.is_set():
                    self._note = "the gateway was killed; it is started again"
                    await asyncio.sleep(0.2)

    async def _stop_gateway(self) -> None:
        self._stop.set()
        if self._gateway is not None and self._gateway.returncode is None:
            self._gateway.terminate()
            await asyncio.wait_for(self._gateway.wait(), 10)

    async def _ready(self, folder: Path) -> None:
        """Waits for the first life of the gateway to say that its handlers run."""
        started = time.monotonic()
        with self._console.status("starting the gateway (it compiles what no cache has)"):
            while not self._device.online and not self._stop.is_set():
                await asyncio.sleep(0.1)
                died = self._lives > 3
                if died or time.monotonic() - started > READY_TIMEOUT:
                    log = (folder / "gateway.log").read_text()[-2000:]
                    raise EdgefnError(f"the gateway does not start; the end of its log:\n{log}")

    # The show

    async def _show(self, wire: Wire) -> None:
        started = time.monotonic()
        live = Live(console=self._console, refresh_per_second=2) if self._console.is_terminal else None
        next_line = 0.0
        if live:
            live.start()
        try:
            while not self._stop.is_set():
                elapsed = time.monotonic() - started
                if self._seconds is not None and elapsed >= self._seconds:
                    return
                await self._cut_or_heal(wire, elapsed)
                waiting = self._waiting()
                if live:
                    live.update(render(self._device, self._cloud, self._note, waiting))
                elif elapsed >= next_line:
                    next_line += 5
                    self._console.print(
                        f"{elapsed:5.0f} s  {self._device.published} events, {len(self._device.alerts)} alerts, "
                        f"{waiting} waiting, {self._cloud.delivered} in the cloud  ({self._note})",
                        soft_wrap=True,
                    )
                await self._pause(0.25)
        finally:
            if live:
                live.stop()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _cut_or_heal(self, wire: Wire, elapsed: float) -> None:
        length = self._seconds or CYCLE
        at = elapsed % length
        if length / 3 <= at < 2 * length / 3:
            self._note = f"the line is cut, for {2 * length / 3 - at:.0f} s more"
            await wire.cut()
        else:
            self._note = "the line is whole"
            await wire.heal()

    def _waiting(self) -> int:
        return sum(uplink["rows"] for uplink in self._device.metrics.get("uplinks", {}).values())

    async def _drain(self) -> None:
        """Lets the backlog arrive: all that was made until now. New summaries go on being made meanwhile."""
        made = dict(self._device.newest)
        deadline = time.monotonic() + DRAIN_TIMEOUT
        with self._console.status("draining the outbox"):
            while time.monotonic() < deadline:
                seen = self._cloud.seen
                if all(max(seen.get(stream, ()), default=0) >= newest for stream, newest in made.items()):
                    return
                await asyncio.sleep(0.1)

    def _report(self) -> int:
        device, cloud = self._device, self._cloud
        made, lost = cloud.made(device.newest), cloud.lost(device.newest, self._waiting())
        kept, seen = device.meter("filter", "rows"), device.meter("filter", "events")
        rows = [
            ("events published", device.published),
            ("events processed", device.count("events.in")),
            ("samples", device.count("events.samples")),
            ("filtered out", seen - kept),
            ("failed", device.count("events.failed") + sum(device.meter(kind, "raised") for kind in _KINDS)),
            ("summaries and alerts made", made),
            ("delivered", cloud.delivered),
            ("duplicates", cloud.duplicates),
            ("lost (summaries, alerts)", lost),
            ("still in the outbox", cloud.missing(device.newest) - lost),
            ("greatest backlog", device.backlog),
        ]
        if self._lives > 1:
            rows.append(("times the gateway was started", self._lives))
        self._console.print()
        for name, value in rows:
            self._console.print(f"{name:30}{value:>10}", highlight=False)
        if not cloud.delivered:
            self._console.print("nothing arrived in the cloud: this is not a success", style="red")
        return 1 if lost or not cloud.delivered else 0

    # What the listeners hear

    def _from_cloud(self, message: Message) -> None:
        self._cloud.take(events.from_json(message.payload))

    def _from_device(self, message: Message) -> None:
        parts = message.topic.split("/")
        if len(parts) < 3 or parts[1] != GATEWAY:
            return
        kind, name, device = parts[2], "/".join(parts[3:]), self._device
        if kind == "event":
            device.published += 1
            device.events[name] += 1
            device.latest[name] = _decode(message.payload)
        elif kind == "summary":
            device.summaries[name] = events.from_json(message.payload)
        elif kind == "alert" and message.payload:
            device.alerts[name] = events.from_json(message.payload)
        elif kind == "handler":
            if message.payload:
                device.handlers[name] = events.from_json(message.payload)
            else:
                device.handlers.pop(name, None)
        elif kind == "metrics":
            device.take_metrics(events.from_json(message.payload))
            device.online = device.online or bool(device.count("events.in"))


_KINDS = ("filter", "transform", "aggregate", "anomaly", "summarize")


def _decode(payload: bytes) -> dict[str, Any]:
    try:
        value = events.unpack(payload) if payload[:1] >= b"\x80" else events.from_json(payload)
    except PayloadError:
        return {}
    if not isinstance(value, dict):
        return {"value": value}
    return {name: list(one) if hasattr(one, "dtype") else one for name, one in value.items()}


async def _listen(bus: Bus, qos: int, take: Callable[[Message], None]) -> None:
    async with bus.subscribe("edgefn/#", qos=qos, max_queue=100_000) as messages:
        async for message in messages:
            take(message)


async def run(seconds: float | None) -> int:
    """Runs the demo; returns the exit status: 1 where anything was lost."""
    return await Demo(seconds, Console()).run()
