"""Handlers of both kinds at work together: events and time go in, and everything that they put out is told as it happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefn.errors import EdgefnError
from edgefn.functions.protocol import Call, Outcome
from edgefn.manifest import FunctionManifest, Manifest
from edgefn.metrics import Metrics
from edgefn.monitor.topics import Topics
from edgefn.timestamps import to_iso
from edgefn.topics import Pattern
from edgefn.trial.clock import ManualClock
from edgefn.trial.rows import Failed, Forwarded, Published, Row, Told
from edgefn.trial.timers import Timers
from edgefn.triggers import Cron, Every, OnFile, OnOccasion, OnOutput, OnTopic

if TYPE_CHECKING:
    from edgefn.trial.calls import Caller
    from edgefn.trial.compiled import Compiled

MAX_STEPS = 10_000  # that one event may lead to; more is a circle


@dataclass(eq=False, slots=True)
class Function:
    """One Python handler, and what became of it so far."""

    manifest: FunctionManifest
    file: Path
    state: dict[str, bytes] = field(default_factory=dict)
    calls: int = 0
    rows: int = 0
    raised: int = 0


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    arrival: int
    retained: bool = False
    made: bool = False  # by a handler


@dataclass(frozen=True, slots=True)
class _Start:
    function: Function
    topic: str
    payload: bytes
    key: str
    captures: dict[str, str]
    ts: int
    retained: bool = False


class Trial:
    """Compiled handlers run in the engine's plan; Python handlers by `caller`, one call after the other.

    Nothing is retried. What handlers publish is heard by those that listen to it. `told` gets all that comes out.
    """

    def __init__(
        self, manifests: Iterable[Manifest], caller: Caller, clock: ManualClock, told: Callable[[Told], None],
        *, gateway: str = "gw",
    ) -> None:  # fmt: skip
        manifests = list(manifests)
        self.clock = clock
        self.metrics = Metrics()
        self.unheard = 0  # messages that no handler listens to
        self.told = told
        self.before: Callable[[int], None] = lambda now: None  # called before the clock goes on to this monotonic time
        self._caller = caller
        self._topics = Topics(gateway)
        self.functions = {
            one.name: Function(one, Path(manifest.file))
            for manifest in manifests
            for one in manifest.functions
            if one.options.enabled
        }
        self.compiled: Compiled | None = None
        if any(manifest.module for manifest in manifests):
            from edgefn.trial.compiled import Compiled  # it brings numba

            self.compiled = Compiled(manifests, clock, self.metrics)
        self._by_topic = [
            (Pattern(trigger.pattern), trigger.retained, one)
            for one in self.functions.values()
            for trigger in one.manifest.triggers
            if isinstance(trigger, OnTopic)
        ]
        self._timers = Timers(
            [
                (one, trigger)
                for one in self.functions.values()
                for trigger in one.manifest.triggers
                if isinstance(trigger, (Every, Cron))
            ],
            clock,
        )
        self._ran = "a handler"  # the one that ran last
        self._queue: deque[_Message | _Start] = deque()

    # What goes in

    def publish(self, topic: str, payload: bytes, *, arrival: int | None = None, retained: bool = False) -> None:
        """One message. `arrival`: when it came, where that is not now."""
        self._do(_Message(topic, payload, self.clock.now() if arrival is None else arrival, retained))

    def start(self, name: str, topic: str, payload: bytes = b"") -> None:
        """Runs one Python handler, whatever it is that starts it otherwise."""
        self._do(_Start(self.functions[name], topic, payload, "", {}, self.clock.now()))

    def on_file(self, path: Path) -> int:
        """A file has appeared, wherever it is: its name is held against the patterns. Returns how many handlers it started."""
        found = self._triggered(OnFile, lambda trigger: path.match(trigger.name))
        for one in found:
            about = path.stat()
            body = {"path": str(path), "size": about.st_size, "mtime": to_iso(about.st_mtime_ns)}
            self._do(_Start(one, f"file/{path}", msgspec.json.encode(body), path.name, {}, self.clock.now()))
        return len(found)

    def occur(self, occasion: str) -> int:
        """Something happens to the machine. Returns how many handlers it started."""
        found = self._triggered(OnOccasion, lambda trigger: trigger.occasion == occasion)
        for one in found:
            self._do(_Start(one, f"system/{occasion}", b"{}", "", {}, self.clock.now()))
        return len(found)

    def _triggered(self, kind: type[Any], fits: Callable[[Any], bool]) -> list[Function]:
        return [
            one
            for one in self.functions.values()
            if any(isinstance(trigger, kind) and fits(trigger) for trigger in one.manifest.triggers)
        ]

    # Time

    def next_due(self) -> int | None:
        """The monotonic time at which something happens if nothing comes: a window closes, or a handler's time has come."""
        dues = [self._timers.next_due(), self.compiled.next_due() if self.compiled else None]
        return min((due for due in dues if due is not None), default=None)

    def go_on_to(self, then: int) -> None:
        """Lets time pass up to this monotonic time, with all that happens on the way."""
        while (due := self.next_due()) is not None and due <= then:
            self._tick(max(due, self.clock.monotonic()))
            if self.next_due() == due and due < then:
                self._tick(self.clock.monotonic() + 1)  # a silence has to be longer than nothing
            if self.next_due() == due:
                break  # a window that is due and cannot close yet: it does with what comes
        self._tick(then)

    def finish(self) -> None:
        """Lets time pass until the last window that time closes has closed."""
        while self.compiled is not None and (due := self.compiled.next_due()) is not None:
            self.go_on_to(max(due, self.clock.monotonic()) + 1)
            if self.compiled.next_due() == due:
                break

    def _tick(self, then: int) -> None:
        if then > self.clock.monotonic():
            self.before(then)
            self.clock.go_on(then - self.clock.monotonic())
        if self.compiled is not None:
            self.compiled.look()
            self.compiled.tick()
            self._take_rows()
        for function, topic, when in self._timers.take():
            body = msgspec.json.encode({"scheduled": to_iso(when)})
            self._queue.append(_Start(function, topic, body, "", {}, when))
        self._work()

    # What happens

    def _do(self, what: _Message | _Start) -> None:
        if self.compiled is not None:
            self.compiled.look()
            self._take_rows()
        self._queue.append(what)
        self._work()

    def _work(self) -> None:
        steps = 0
        try:
            while self._queue:
                steps += 1
                if steps > MAX_STEPS:
                    raise CircleError(f"one event has led to {MAX_STEPS} others; does {self._ran} feed itself?")
                what = self._queue.popleft()
                if isinstance(what, _Message):
                    self._deliver(what)
                else:
                    self._run(what)
        finally:
            self._queue.clear()

    def _deliver(self, message: _Message) -> None:
        topic = message.topic
        heard = False
        if self.compiled is not None and self.compiled.wants(topic):
            heard = True
            self.compiled.add(topic, message.payload, message.arrival, retained=message.retained)
            self.compiled.run()
            self._take_rows()
        started = set()
        for pattern, retained, function in self._by_topic:
            captured = pattern.match(topic)
            if captured is None or function in started:
                continue  # several patterns of one handler start it once
            heard = True
            started.add(function)
            if retained or not message.retained:
                captures = dict(zip(pattern.captures, captured, strict=True))
                key = "/".join(captured) if captured else topic
                self._queue.append(
                    _Start(function, topic, message.payload, key, captures, message.arrival, message.retained)
                )
        self.unheard += not heard and not message.made

    def _take_rows(self) -> None:
        """Rows of compiled handlers: told, and handed to those that listen to them."""
        assert self.compiled is not None
        for rows, output in self.compiled.take():
            for row in rows:
                self.told(row)
            name = rows[0].handler
            manifest = self.compiled.handler(name)
            topic = self._topics.alert if manifest.kind == "anomaly" else self._topics.summary
            listening = self._listening(name)
            elsewhere = [one for one in manifest.options.to if one not in ("local", "uplink")]
            local = "local" in manifest.options.to and any(self._is_heard(topic(name, row.key)) for row in rows)
            if not (listening or local or any(map(self._is_heard, elsewhere))):
                continue
            from edgefn.gateway import results  # here only: what gateways import takes half a second

            for made in results.rows([output], lambda *_, one=manifest: one, lambda offset: None):
                for function in listening:
                    self._queue.append(_Start(function, f"output/{name}", made.payload, made.key, {}, made.ts))
                for one in made.publications(self._topics):
                    self._queue.append(_Message(one.topic, one.payload, self.clock.now(), made=True))

    def _listening(self, name: str) -> list[Function]:
        return self._triggered(OnOutput, lambda trigger: trigger.handler == name)

    def _is_heard(self, topic: str) -> bool:
        return (self.compiled is not None and self.compiled.wants(topic)) or any(
            pattern.match(topic) is not None for pattern, _, _ in self._by_topic
        )

    def _run(self, start: _Start) -> None:
        function, manifest = start.function, start.function.manifest
        function.calls += 1
        self._ran = manifest.name
        call = Call(
            f"{manifest.name}-{function.calls}", manifest.function, manifest.name, manifest.takes, start.topic,
            start.key, start.captures, start.payload, start.ts, 1, start.retained, 0, function.state,
        )  # fmt: skip

        def publish(topic: str, payload: bytes, qos: int, retain: bool) -> None:
            self.told(Published(manifest.name, self.clock.now(), topic, payload, qos, retain))
            self._queue.append(_Message(topic, payload, self.clock.now(), made=True))

        try:
            outcome = self._caller.call(function.file, manifest, call, publish)
        except Exception:
            function.raised += 1
            raise
        if outcome.result != "done":
            function.raised += 1
            self.told(Failed(manifest.name, start.key, start.ts, outcome.result, outcome.error, outcome.traceback))
            return
        self._take(start, outcome)

    def _take(self, start: _Start, outcome: Outcome) -> None:
        function, manifest, ts = start.function, start.function.manifest, start.ts
        kept = {**function.state, **outcome.state}
        function.state = {name: raw for name, raw in kept.items() if raw is not None}
        for row in outcome.forwards:
            values = msgspec.json.decode(row.values)
            key, when = start.key if row.key is None else row.key, ts if row.ts is None else row.ts
            self.told(Forwarded(manifest.name, key, when, values))
        if outcome.value is not None:
            self._return(start, outcome.value)
        for invoked in outcome.invokes:
            other = self.functions.get(invoked.name)
            if other is None:
                why = f"it invokes {invoked.name!r}, and there is no Python handler of this name here"
                self.told(Failed(manifest.name, start.key, ts, "failed", why, ""))
                continue
            said = f"invoke/{manifest.name}"
            self._queue.append(_Start(other, said, invoked.payload, start.key, start.captures, start.ts))

    def _return(self, start: _Start, value: bytes) -> None:
        """A returned value goes where `to` says, and to those that listen to the handler."""
        function, manifest = start.function, start.function.manifest
        name, key, ts = manifest.name, start.key, start.ts
        function.rows += 1
        values = msgspec.json.decode(value)
        self.told(Row(name, key, ts, values))
        wrapped = values if isinstance(values, dict) else {"value": values}
        body = msgspec.json.encode({"ts": to_iso(ts), "handler": name, "key": key or "_", "values": wrapped})
        for other in self._listening(name):
            self._queue.append(_Start(other, f"output/{name}", value, key, start.captures, start.ts))
        for target in manifest.options.to:
            if target == "uplink":
                self.told(Forwarded(name, key, ts, values))
            elif target == "local":
                self._queue.append(_Message(self._topics.summary(name, key or "_"), body, self.clock.now(), made=True))
            else:
                self.told(Published(name, self.clock.now(), target, body, manifest.options.qos, False))
                self._queue.append(_Message(target, body, self.clock.now(), made=True))


class CircleError(EdgefnError, RuntimeError):
    """Handlers feed one another without end."""
