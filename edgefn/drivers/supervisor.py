"""One driver's life: loaded, started, its readings made into events, started again when it fails, closed."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from edgefn import topics
from edgefn.clock import NS, Clock
from edgefn.drivers.contract import RESERVED, Driver, Reading
from edgefn.drivers.load import load_driver
from edgefn.drivers.tail import Publisher, Tail
from edgefn.drivers.threads import CLOSE_TIMEOUT, ThreadedReadings
from edgefn.drivers.unconfirmed import Outgoing
from edgefn.errors import DriverError
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between a failure and the next start
HEALTHY = 60 * NS  # running this long makes the next failure the first again
MAX_CHANNELS = 256
FAIRNESS = 100  # readings after which a driver that never waits lets the others run

State = Literal["starting", "online", "backoff", "offline", "failed"]


class DriverConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One configured driver: `name` becomes its topic; `use` is the driver's name or file, `name` where it is empty.

    Without `qos` scalars are published with QoS 1 and batch events with 0.
    """

    name: str
    use: str = ""
    options: dict[str, Any] = {}
    qos: Literal[0, 1] | None = None


@dataclass(slots=True)
class _Stream:
    """One channel. The sequence goes on when the driver is started again, so that (src, seq) never repeats."""

    topic: str
    src: str
    seq: int = 0


@dataclass
class Supervisor:
    """Runs one driver until `stop`. Nothing that the driver does gets past it."""

    config: DriverConfig
    gateway: str
    bus: Publisher
    clock: Clock
    metrics: Metrics
    folders: Sequence[str] = ()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    patience: float = 30.0  # seconds that the gateway may take to confirm an event

    def __post_init__(self) -> None:
        self.state: State = "starting"
        self.error: str | None = None
        self.readings = 0
        self._since = self.clock.now()
        self.tail = Tail(self.bus, self.metrics, self.clock, self.patience)
        self._streams: dict[str, _Stream] = {}
        self._driver: Driver | None = None
        self._rate = 0.0
        self._rated = (0, self.clock.monotonic())  # readings and time when the rate was last measured
        self._told = (0, 0)  # readings and drops in the status before
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._sender = asyncio.create_task(self.tail.run(), name=f"send {self.config.name}")
        self._task = asyncio.create_task(self._run(), name=f"driver {self.config.name}")

    async def stop(self) -> None:
        """Closes the generator, sends what can be sent, and reports `offline`. Twice is harmless."""
        if self._task is None or self._sender is None:
            return
        task, self._task = self._task, None
        self._stopping = True
        task.cancel()
        _, stuck = await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
        if stuck:
            log.warning("driver %r did not stop within %g s: left behind", self.config.name, CLOSE_TIMEOUT)
        if self.bus.connected.is_set():
            await asyncio.wait({asyncio.create_task(self.tail.drained())}, timeout=CLOSE_TIMEOUT / 2)
        self._sender.cancel()
        if self.state in ("failed", "offline"):
            await self.tell()
        else:
            await self._become("offline", self.error)

    async def join(self) -> None:
        """Returns when the driver has ended for good."""
        if self._task:
            await asyncio.wait({self._task})

    async def tell(self) -> None:
        """Publishes the status where its numbers have changed since the last time."""
        readings, then = self._rated
        now = self.clock.monotonic()
        if now > then:
            self._rate = (self.readings - readings) * NS / (now - then)
            self._rated = self.readings, now
        if self._told != (self.readings, self.tail.dropped):
            await self._publish_status()

    async def _run(self) -> None:
        try:
            if topics.level(self.config.name) != self.config.name:
                raise DriverError(f"driver name {self.config.name!r} is no topic level: leave out / + and #")
            self._driver = load_driver(self.config.use or self.config.name, self.folders)
            options = self._driver.check(self.config.options)
        except DriverError as error:
            log.error("driver %r: %s", self.config.name, error)
            await self._become("failed", str(error))
            return
        failures = 0
        while not self._stopping:
            began = self.clock.monotonic()
            await self._become("starting", self.error)
            try:
                await self._read(self._driver, options)
            except (Exception, SystemExit) as error:
                if self.clock.monotonic() - began >= HEALTHY:
                    failures = 0
                self.metrics.count("drivers.failed", reason=self.config.name)
                await self._become("backoff", self._explain(error))
                # Not all sensors of a bus that hiccuped come back in the same moment.
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**failures) * random.uniform(0.75, 1.0)
                failures = min(failures + 1, 10)
                await self.sleep(pause)
            else:
                await self._become("offline", None)
                return

    async def _read(self, driver: Driver, options: Mapping[str, Any]) -> None:
        opened = driver.open(options, self.clock)
        readings = opened if isinstance(opened, AsyncIterator) else ThreadedReadings(opened, self.config.name)
        try:
            async for reading in readings:
                if self._stopping:
                    return
                self.tail.put(self._event(reading))
                self.readings += 1
                if self.state != "online":
                    await self._become("online", None)
                if self.readings % FAIRNESS == 0:
                    await asyncio.sleep(0)
        finally:
            if close := getattr(readings, "aclose", None):
                await asyncio.wait_for(close(), CLOSE_TIMEOUT + 0.1)

    def _event(self, reading: object) -> Outgoing:
        if not isinstance(reading, Reading):
            if not isinstance(reading, Mapping):
                raise DriverError(
                    f"driver {self.config.name!r} yielded a {type(reading).__name__}; "
                    "yield a mapping of field names to values, or a Reading"
                )
            reading = Reading(reading)
        if taken := RESERVED & reading.fields.keys():
            raise DriverError(f"driver {self.config.name!r}: the host itself sets {', '.join(taken)}; rename it")
        stream = self._streams.get(reading.channel) or self._open_stream(reading.channel)
        arrays = [value for value in reading.fields.values() if _is_array(value)]
        ts = reading.ts
        if ts is None:
            ts = self.clock.now()
            if arrays:  # of its first sample, which was taken earlier
                ts -= int(reading.fields.get("dt", 0)) * max(len(arrays[0]) - 1, 0)
        fields = {"ts": ts, **reading.fields, "seq": stream.seq, "src": stream.src}
        if floor := self.tail.floor(stream.src):
            fields["seq_floor"] = floor
        if arrays:
            from edgefn import events  # brings numpy, which an array has brought already

            payload = events.encode(fields)
        else:
            payload = _encode_scalars(self.config.name, fields)
        qos = self.config.qos if self.config.qos is not None else int(not arrays)
        event = Outgoing(stream.topic, payload, qos, stream.src, stream.seq)
        stream.seq += 1
        return event

    def _open_stream(self, channel: str) -> _Stream:
        if len(self._streams) >= MAX_CHANNELS:
            raise DriverError(f"driver {self.config.name!r} has more than {MAX_CHANNELS} channels: {channel!r} is new")
        topic = f"edgefn/{self.gateway}/event/{self.config.name}"
        if channel:
            topic += f"/{topics.level(channel)}"
        # A source of its own for each topic: who subscribes to one channel sees a sequence without gaps.
        stream = _Stream(topics.check_topic(topic), f"{self.run_id}.{len(self._streams)}")
        self._streams[channel] = stream
        return stream

    def _explain(self, error: BaseException) -> str:
        text = str(error) if isinstance(error, DriverError) else f"{type(error).__name__}: {error}"
        if self._driver and not isinstance(error, DriverError):
            file = str(self._driver.file)
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
            if lines:
                text += f" ({self._driver.file.name}:{lines[-1]})"
        if text == self.error:
            log.debug("driver %r failed again: %s", self.config.name, text)
        else:
            log.warning("driver %r failed: %s", self.config.name, text, exc_info=error)
        return text

    async def _become(self, state: State, error: str | None) -> None:
        if (state, error) != (self.state, self.error):
            self._since = self.clock.now()
        self.state, self.error = state, error
        await self._publish_status()

    async def _publish_status(self) -> None:
        self._told = self.readings, self.tail.dropped
        declared = self._driver.fields if self._driver else {}
        status = {
            "state": self.state,
            "error": self.error,
            "readings": self.readings,
            "rate": round(self._rate, 3),  # readings a second
            "dropped": self.tail.dropped,
            "since": self._since,
            "fields": {
                name: {"unit": field.unit, "device_class": field.device_class} for name, field in declared.items()
            },
            "channels": [channel for channel in self._streams if channel],
        }
        topic = f"edgefn/{self.gateway}/driver/{topics.level(self.config.name)}"
        await self.bus.publish(topic, msgspec.json.encode(status), retain=True)


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")  # imported only where a driver has done so: it costs a third of the host's memory
    return numpy is not None and isinstance(value, numpy.ndarray)


def _scalar(value: Any) -> Any:
    if type(value).__module__ == "numpy":
        return value.item()
    raise NotImplementedError


_json = msgspec.json.Encoder(enc_hook=_scalar)


def _encode_scalars(name: str, fields: Mapping[str, Any]) -> bytes:
    try:
        return _json.encode(fields)
    except (TypeError, OverflowError, UnicodeEncodeError, NotImplementedError) as error:
        wrong = [f"{key} = {value!r:.60}" for key, value in fields.items() if not isinstance(value, _SCALARS)]
        raise DriverError(
            f"driver {name!r}: a reading cannot be published ({error}): {', '.join(wrong)}; "
            "fields are numbers, strings, bools, None or one-dimensional numpy arrays"
        ) from error


_SCALARS = (int, float, str, bool, type(None))
