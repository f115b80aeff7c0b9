"""Wires the parts of one gateway together, and owns the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import edgefn
from edgefn import link
from edgefn.address import BrokerAddress
from edgefn.bus import Bus
from edgefn.clock import SharedClock
from edgefn.config import Config, cache_folder
from edgefn.errors import StoreDamagedError, StoreError
from edgefn.events import to_json
from edgefn.gateway import results, systemd
from edgefn.gateway.alerts import Alerts
from edgefn.gateway.children import DriverProcess, driver_configuration
from edgefn.gateway.commands import Commands
from edgefn.gateway.commits import Commits
from edgefn.gateway.doorstep import enter_store
from edgefn.gateway.engine_host import EngineHost
from edgefn.gateway.handler_files import HandlerFiles
from edgefn.gateway.publisher import Publisher
from edgefn.gateway.python_handlers import PythonHandlers, is_theirs
from edgefn.gateway.results import Publication, Row
from edgefn.gateway.timekeeping import Timekeeper
from edgefn.gateway.uplinks import Uplinks
from edgefn.gateway.verbs import BESIDE, verbs
from edgefn.manifest import Manifest
from edgefn.metrics import Metrics
from edgefn.monitor import Monitor, Topics
from edgefn.resources import bundled
from edgefn.store import Store, open_store
from edgefn.timestamps import to_iso

log = logging.getLogger(__name__)

ENGINE_PATIENCE = 20.0  # seconds that drivers wait for the engine's first connection
CLOCK = 10.0  # seconds between two looks at whether the clock was set, for what goes by it
METER = ("events", "rows", "skipped", "raised", "ns")


class Gateway:
    """One running gateway; `async with` starts everything, leaving it stops everything in order."""

    def __init__(self, config: Config, broker: BrokerAddress) -> None:
        self.config = config
        self.metrics = Metrics()
        self.topics = Topics(config.gateway.id)
        self._address = broker
        self._cache = cache_folder()
        folder = Path(config.gateway.handlers) if config.gateway.handlers else bundled("handlers")
        state = Path(config.gateway.state)
        self.files = HandlerFiles(
            folder, self._cache, self._tell_handler, self._plan_changed, config.stream, state=state
        )
        self._meters: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, Any] = {}
        self._engine_connected = asyncio.Event()
        self._engine_state: dict[str, Any] = {"state": "starting"}
        self.python: PythonHandlers
        self.commits: Commits
        self.uplinks: Uplinks
        self.time: Timekeeper
        self.store: Store
        self.bus: Bus
        self.monitor: Monitor
        self.engine: EngineHost
        self.drivers: DriverProcess
        self._publisher: Publisher
        self._alerts: Alerts
        self._clock: SharedClock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Inside, the gateway runs; an error of one of its own tasks ends the block. Stops in order on the way out."""
        config = self.config
        async with AsyncExitStack() as stack:
            self._clock = SharedClock.create()
            stack.callback(self._clock.close)
            self.uplinks = Uplinks(config, clock=self._clock, metrics=self.metrics)
            self.store = await enter_store(
                stack, self._make_store, self._address, self.topics, self._clock, self.metrics
            )
            self.time = Timekeeper(self._clock, self.metrics)
            await self.time.begin(self.store)
            will = Monitor.last_will(self.topics)
            self.bus = await stack.enter_async_context(
                Bus(self._address, client_id=f"edgefn-{config.gateway.id}", will=will, metrics=self.metrics)
            )
            self.monitor = Monitor(self.bus, self.topics, self._clock, self.metrics, config.monitor.interval / 1e9)
            self._publisher = Publisher(self.bus, self.metrics)
            self._alerts = Alerts(self.bus, self.topics)
            self.uplinks.open(self.store)
            self.python = PythonHandlers(
                self._publisher,
                self.topics,
                self._clock,
                self.metrics,
                workers=config.functions.workers,
                secrets=config.secrets_path,
                state=config.store_path.parent,
                is_right=lambda: self.time.is_right,
            )
            self.python.begin(await self.store.load_checkpoint())
            self.commits = Commits(
                self.store,
                self.uplinks,
                self.python.scheduler.journal,
                self.time,
                self,
                generation=lambda: self.engine.generation,
                tell_interval=lambda interval: self.engine.send({"type": "interval", "interval": interval}),
                clock=self._clock,
                metrics=self.metrics,
                interval=int(config.engine.commit_interval),
                daily_writes=int(config.store.daily_writes),
            )
            can_do = verbs(self.files, self.store, self.uplinks, self._take_back)
            commands = Commands(self.bus, self.topics, self.metrics, can_do, BESIDE)
            self.engine = EngineHost(
                self,
                clock_fd=self._clock.fd,
                deadline=config.engine.deadline,
                memory=config.engine.memory,
                cache=str(self._cache / "numba"),
                machine_code=lambda: self.files.machine_code,
            )
            self.drivers = DriverProcess(
                driver_configuration(config, self._address), self._drivers_ended, clock_fd=self._clock.fd
            )
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("monitor", self.monitor.run(self._gauges)),
                        ("publisher", self._publisher.run()),
                        ("commits", self.commits.run()),
                        ("python handlers", self.python.run()),
                        ("alerts", self._alerts.run()),
                        ("commands", commands.run()),
                        ("main", self._main()),
                        ("damage", self._damage()),
                        ("systemd", systemd.ping_watchdog()),
                        ("clock", self.time.run()),
                        ("uplinks", self._send()),
                    )
                ]
                self.bus.on_connect.append(self._tell_online)
                try:
                    yield self
                finally:
                    await self._stop()
                    for task in running:
                        task.cancel()

    def _make_store(self) -> Store:
        config = self.config
        return open_store(
            config.store_path,
            gateway=config.gateway.id,
            clock=self._clock,
            metrics=self.metrics,
            max_bytes=config.store.max_size,
            ballast=config.store.ballast,
            progress=_tell_progress,
            uplinks=self.uplinks.names,
        )

    async def _send(self) -> None:
        await self.time.wait_until_right(self.config.clock.patience / 1e9)
        await self.uplinks.run()

    async def _main(self) -> None:
        """Loads the handlers, then keeps engine, drivers and the folder's watch going."""
        self.files.folder.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            # Watched from the start: a file that is saved while others compile is not missed.
            tasks.create_task(self.files.watch(), name="handler files")
            await self.files.load_all()
            self.python.sources.occasion("start")
            tasks.create_task(self._follow_clock(), name="clock-synced")
            tasks.create_task(self.engine.run(), name="engine")
            # Before the engine has subscribed for the first time, nobody keeps for it what drivers publish.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine_connected.wait(), ENGINE_PATIENCE)
            tasks.create_task(self.drivers.run(), name="drivers")

    async def _follow_clock(self) -> None:
        """What goes by the clock is told when it is right, and when it was set."""
        await self.time.right()
        self.python.sources.occasion("clock-synced")
        steps = self.time.steps
        while True:
            await asyncio.sleep(CLOCK)
            if steps != (steps := self.time.steps):
                self.python.sources.wake()

    async def _stop(self) -> None:
        """First those that make events, then those that work on them, then those that send."""
        await self.drivers.stop()
        await self.engine.stop()
        await self.python.stop()
        await self.commits.flush()
        await self.uplinks.drain()
        await self.monitor.publish_metrics(self._gauges)
        await self.monitor.offline()

    async def _damage(self) -> None:
        """Ends the gateway when the store turns out to be damaged: what can be read is taken over at the next start."""
        try:
            await self.store.damage()
        except StoreDamagedError as error:
            self.commits.trouble(str(error))
            log.error("%s; this gateway ends for that", error)
            raise

    # What the engine's host asks and tells

    async def start_message(self) -> link.Message:
        await self.commits.forget()
        self.python.scheduler.journal.engine_started(self.engine.generation)
        saved = await self.store.load_checkpoint()
        return {
            "type": "start",
            "broker": self._address.to_dict(),
            "client_id": f"edgefn-{self.config.gateway.id}-engine",
            "gateway": self.config.gateway.id,
            "interval": self.commits.interval,
            "boot": self.time.boot,
            "right": self.time.is_right,
            "checkpoint": {owner: parts for owner, parts in saved.items() if not is_theirs(owner)},
        }

    def active(self) -> list[Manifest]:
        return self.files.active()

    def forward(self) -> list[str]:
        return self.python.patterns

    async def on_message(self, message: link.Message) -> None:
        kind = message["type"]
        if kind == "alerts":
            self._publish(message["outputs"])
        elif kind in ("commit", "stats"):
            self.metrics.merge(message["counters"])
            for name, value in message["gauges"].items():
                self.metrics.gauge(f"engine.{name}", value)
            await self._note_meters(message["meters"])
            if kind == "commit":
                self.commits.add(message, self.engine.generation)
        elif kind == "events":
            if taken := self.python.events(message, self.engine.generation):
                self.engine.send({"type": "took", "n": taken})
        elif kind == "failure":
            await self._note_failure(message)
        elif kind == "broker":
            self._engine_state = {"state": message["state"], "why": message["why"]}
            if message["state"] == "connected":
                self._engine_connected.set()
            if message["why"]:
                log.warning("the engine's connection: %s", message["why"])
        elif kind == "ready":
            for name in message["fresh"]:
                log.warning("%s: its state has a new shape and begins afresh", name)
            self._alerts.restart(message["raised"])
            await self._settle_alerts()
            systemd.notify("READY=1")
            await self._tell_online()
        elif kind != "stopped":
            log.warning("the engine said %r, which this gateway does not know", kind)

    async def on_crash(self, handler: str | None, why: str) -> None:
        self.metrics.count("engine.restarts")
        self._engine_state = {"state": "restarting", "why": why}
        if handler is not None:
            await self.files.strike(handler, why)

    async def _take_back(self) -> None:
        """Dead letters of Python handlers have become invocations again."""
        self.python.restore(await self.store.load_checkpoint())

    def _plan_changed(self) -> None:
        self.python.deploy(self.files.functions())
        self.engine.change_plan()

    async def _settle_alerts(self) -> None:
        for topic in await self._alerts.settle(self.files.states()):
            log.warning("%s is cleared: it was raised and never committed", topic)

    # Results

    def rows(self, message: link.Message) -> list[Row]:
        """What the engine has put out with a commit; those who listen to it start with the same commit."""
        rows = list(results.rows(message["outputs"], self.files.handler, self.time.correction))
        self.python.rows(row for row in rows if not row.is_alert)  # alerts have started theirs when they came
        return rows

    def stored(self, message: link.Message, rows: Sequence[Row]) -> None:
        """A commit of the engine is in the store."""
        if message["engine"] == self.engine.generation:  # the next one begins to number its commits anew
            self.engine.send({"type": "committed", "number": message["number"]})
        if message["confirmed"]:
            self._publisher.add([Publication(self.topics.confirmed, to_json(message["confirmed"]), 0, False)])
        self._publisher.add(
            publication for row in rows if not row.is_alert for publication in row.publications(self.topics)
        )

    def _publish(self, outputs: list[dict[str, Any]]) -> None:
        rows = list(results.rows(outputs, self.files.handler, self.time.correction))
        self.python.rows(rows, self.engine.generation)
        for row in rows:
            self._alerts.note(self.topics.alert(row.handler.name, row.key), row.handler.name, row.is_raised)
            self._publisher.add(row.publications(self.topics))
            self.metrics.count("alerts.published")

    # What is told

    async def _tell_handler(self, name: str, state: Any) -> None:
        await self.monitor.tell(self.topics.handler(name), state)

    async def _note_meters(self, meters: dict[str, list[int]]) -> None:
        self._meters = {name: dict(zip(METER, values, strict=True)) for name, values in meters.items()}

    async def _note_failure(self, message: link.Message) -> None:
        if "handler" in message:
            name = message["handler"]
            self._failures[name] = {"ts": to_iso(self._clock.now()), "fields": message["row"]}
            log.warning("%s raised an exception on %s (%d so far)", name, message["row"], message["count"])
        else:
            log.warning(
                "%s: %s cannot be used: %s (it begins with %r)",
                message["topic"],
                "part of a payload" if "." in message["reason"] else "a message",
                message["detail"],
                message["sample"],
            )

    async def _tell_online(self) -> None:
        await self.monitor.online(
            {
                "version": edgefn.__version__,
                "gateway": self.config.gateway.id,
                "model": _model(),
                "python": platform.python_version(),
                "pid": os.getpid(),
                "handlers": sorted(self.files.states()),
                "drivers": [driver.name for driver in self.config.driver],
                "uplinks": self.uplinks.names,
                "epoch": self.store.epoch,
            }
        )

    async def _gauges(self) -> dict[str, Any]:
        await self.files.tell_all({**self._meters, **self.python.scheduler.report()}, self._failures)
        await self._settle_alerts()  # the broker may have come back with what a crash had left there
        told: dict[str, Any] = {
            "clock": self.time.report(),
            "engine": self._engine_state,
            "store": self.commits.state,
            "streams": self.commits.newest,
            "uplinks": {},
            "drops": [],
            "processes": {
                "gateway": os.getpid(),
                "engine": self.engine.pid,
                "drivers": self.drivers.pid,
                "workers": self.python.scheduler.pool.pids,
            },
        }
        try:
            told["uplinks"] = await self.uplinks.states()
            told["drops"] = [
                {"stream": drop.stream, "uplink": drop.uplink, "reason": drop.reason, "n": drop.n}
                for drop in await self.store.drops()
            ]
        except StoreError as error:
            told["store"] = str(error)
        return told

    async def _drivers_ended(self, why: str) -> None:
        """The driver host is gone; one that was killed could not say so itself."""
        for driver in self.config.driver:
            await self.monitor.tell(self.topics.driver(driver.name), {"state": "offline", "error": why})


def _tell_progress(done: int, of: int) -> None:
    if done % 50_000 == 0:
        log.warning("a damaged store is taken over: %d of about %d rows", done, of)


def _model() -> str:
    """What the device tree calls this machine, such as Raspberry Pi 4 Model B Rev 1.4."""
    try:
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return platform.machine()


async def run(config: Config, broker: BrokerAddress) -> int:
    """Runs until SIGTERM or Ctrl-C; returns the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task, started = asyncio.current_task(), False

    def ask_to_stop() -> None:
        stop.set()
        if not started and task is not None:  # a start can take long where the disk refuses
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    try:
        async with Gateway(config, broker).running():
            started = True
            await stop.wait()
            log.info("stopping")
            systemd.notify("STOPPING=1")
    except asyncio.CancelledError:
        if started or not stop.is_set():
            raise
    return 0
