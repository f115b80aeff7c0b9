"""The engine's loop: events come in from MQTT, go through the plan, and leave as commits to the gateway."""

from __future__ import annotations

import logging
import selectors
import time
from typing import Any

import msgspec

from edgefn.address import BrokerAddress
from edgefn.engine import gathering, saved
from edgefn.engine.forwarding import Forwarding
from edgefn.engine.ingest import Ingest
from edgefn.engine.nodes import Context, Output
from edgefn.engine.plan import Part, Plan
from edgefn.engine.sequences import Sequences
from edgefn.engine.session import Arrived, Session
from edgefn.engine.subscriptions import disjoint
from edgefn.engine.timeline import Offset, Timeline
from edgefn.errors import PayloadError
from edgefn.link import Link, Message
from edgefn.manifest import Manifest
from edgefn.metrics import Metrics
from edgefn.running import Watch
from edgefn.topics import shown

log = logging.getLogger(__name__)

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HALF_WINDOW = 500  # unacknowledged messages that bring a commit forward: half of what the broker is set up to send
MAX_PENDING = 200_000  # rows put out and not yet committed
SAMPLE_EVERY = SECOND  # between two examples of one kind of failure


class Engine:
    """One engine: made with its two connections to the gateway, then `run` until it is told to stop."""

    def __init__(self, link: Link, watch: Watch, clock: Offset) -> None:
        self.metrics = Metrics()
        self.plan = Plan([], self.metrics)
        self._link = link
        self._context = Context(self._emit, watch.enter, watch.leave)
        self._time = Timeline(clock)
        self._session: Session | None = None
        self._sequences = Sequences(self.metrics)
        self._forwarding = Forwarding(self.metrics)
        self._driver_topics = b""
        self._ingest: Ingest | None = None  # of the plan
        self._selector = selectors.DefaultSelector()
        self._selector.register(link.sock, selectors.EVENT_READ)
        self._registered: tuple[Any, int] | None = None
        self._checkpoint: dict[str, list[bytes]] = {}  # what was saved of owners that are not in the plan
        self._leaving: list[Part] = []  # of those that left it since the last commit
        self._interval = SECOND
        self._outputs: list[Message] = []
        self._pending = 0
        self._alerts: list[Message] = []
        self._number = 0  # of the last commit sent
        self._committed = 0
        self._last_commit = self._last_full = self._last_stats = time.monotonic_ns()
        self._dirty = False  # something durable happened since the last commit
        self._untold = False  # something was counted since the gateway was told
        self._unsaved = False  # something happened that the next full checkpoint saves
        self._pause = 0.0
        self._planned = False
        self._stopping = 0
        self._sampled: dict[str, int] = {}

    def run(self) -> None:
        """Returns when the gateway has said stop and the last commit is in the store, or raises LinkClosedError."""
        while True:
            now = time.monotonic_ns()
            if self._stopping and (self._number == self._committed or now > self._stopping):
                break
            self._select(now)
            self._work()
        if self._session is not None:
            self._session.close()
        self._link.send({"type": "stopped"})

    # Waiting

    def _select(self, now: int) -> None:
        self._watch_session()
        for key, _ in self._selector.select(max(0, self._wake_at() - now) / SECOND):
            if key.fileobj is self._link.sock:
                for message in self._link.receive():
                    self._told(message)

    def _watch_session(self) -> None:
        """Keeps the selector in step with the session's socket, which changes with every connection."""
        sock = self._session.sock if self._session and not self._stopping else None
        wanted = None
        if sock is not None and self._session is not None:
            wanted = sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._session.wants_to_write else 0)
        if wanted == self._registered:
            return
        if self._registered is not None:
            self._selector.unregister(self._registered[0])
        if wanted is not None:
            self._selector.register(*wanted)
        self._registered = wanted

    def _wake_at(self) -> int:
        """Monotonic time of the next thing to do if nothing comes: an idle engine sleeps for as long as it can."""
        times = [time.monotonic_ns() + MINUTE]
        if self._session is not None and self._planned and not self._stopping:
            times.append(self._session.due())
        if (due := self.plan.next_due()) is not None:
            times.append(max(due, self._last_commit + 50_000_000))
        if self._dirty and self._number == self._committed:
            times.append(self._last_commit + self._interval)
        if self._untold or self.metrics.counters:
            times.append(self._last_stats + SECOND)
        if self._unsaved and self._number == self._committed:  # else the store's answer wakes us
            times.append(self._last_full + MINUTE)
        if self._stopping:
            times.append(self._stopping)
        return min(times)

    # Working

    def _work(self) -> None:
        now = self._context.now = time.monotonic_ns()
        session = self._session
        if self._planned and (limits := self._time.look(now)) is not None:
            self.plan.cut(self._context, limits)
            self._time.follow(now)
            self._dirty = self._unsaved = self._untold = True
        # What came before there is a plan would find no handler.
        if session is not None and self._planned and not self._stopping:
            session.keep(now)
            session.flush()
            if self._pause:
                time.sleep(self._pause)
            n = 0
            for arrived in session.read(now):
                n += len(arrived.rows)
                self._process(arrived, session)
            self._pause = gathering.pause(n, session.got)
            if n:
                self._run_plan()
        due = self.plan.next_due()
        if due is not None and due <= now:
            self.plan.tick(self._context)
            self._unsaved = self._untold = True
        self._tell_alerts()
        self._commit_if_due(now)

    def _process(self, arrived: Arrived, session: Session) -> None:
        assert self._ingest is not None
        if self._ingest.take(arrived, session.deliveries, self._number + 1, self._context.now):
            self._dirty = True
        self._unsaved = self._untold = True
        # Before the commit that covers them.
        if (message := self._forwarding.message(self._time.arrival())) is not None:
            self._link.send(message)

    def _run_plan(self) -> None:
        self.plan.run(self._context)
        now = self._context.now
        for node in self.plan.nodes.values():
            if node.failed_row is not None and self._may_sample(f"handler {node.name}", now):
                self._link.send(
                    {"type": "failure", "handler": node.name, "row": node.failed_row, "count": node.meter.raised}
                )
                node.failed_row = None

    def _may_sample(self, what: str, now: int) -> bool:
        if now - self._sampled.get(what, -SAMPLE_EVERY) < SAMPLE_EVERY:
            return False
        if len(self._sampled) > 1000:
            self._sampled.clear()
        self._sampled[what] = now
        return True

    def _sample_payload(self, topic: bytes, error: PayloadError, sample: bytes) -> None:
        if self._may_sample(f"payload {error.reason}", self._context.now):
            self._link.send(
                {
                    "type": "failure",
                    "topic": shown(topic),
                    "reason": error.reason,
                    "detail": str(error),
                    "sample": sample,
                }
            )

    # Results

    def _emit(self, output: Output) -> None:
        """Called by the nodes: rows for the next commit, and alerts also for at once."""
        node = output.node
        keys = self.plan.keys(node)
        message = {
            "handler": node.name,
            "version": node.version,
            "labels": [keys.labels[key] for key in output.key.tolist()],
            "ts": output.ts,
            "own": keys.moving(output.key),
            "offset": self._time.offset,
            "n": output.length,
            "revised": output.revised,
            "values": list(output.values),
            **({"summaries": output.summaries} if output.summaries else {}),
        }
        if node.manifest.kind == "anomaly":
            self._alerts.append(message)
        self._outputs.append(message)
        self._pending += len(output.key)
        self._dirty = True
        while self._pending > MAX_PENDING:
            # The store has taken nothing for long: what is newest is worth most.
            dropped = len(self._outputs.pop(0)["labels"])
            self._pending -= dropped
            self.metrics.count("summaries.dropped", dropped, reason="store_unavailable")

    def _tell_alerts(self) -> None:
        if self._alerts:
            alerts, self._alerts = self._alerts, []
            self._link.send({"type": "alerts", "outputs": alerts})

    def _commit_if_due(self, now: int) -> None:
        session = self._session
        if self._number == self._committed and self._dirty:
            waiting = session.deliveries.unacknowledged if session else 0
            if now - self._last_commit >= self._interval or waiting >= HALF_WINDOW or self._stopping:
                self._commit(now)
                return
        due = now - self._last_full >= MINUTE or self._stopping
        if self._unsaved and due and self._number == self._committed:
            self._commit(now)
        elif (self._untold or self.metrics.counters) and now - self._last_stats >= SECOND:
            self._link.send({"type": "stats", **self._stats(now)})

    def _stats(self, now: int) -> Message:
        self._last_stats, self._untold = now, False
        for group in self.plan.groups.values():
            self.metrics.merge(group.news())
        for source in self.plan.sources.values():
            self.metrics.count("keys.evicted", source.keys.evicted)
            source.keys.evicted = 0
        meters = {
            name: [node.meter.events, node.meter.rows, node.meter.skipped, node.meter.raised, node.meter.ns]
            for name, node in self.plan.nodes.items()
        }
        return {
            "meters": meters,
            "counters": self.metrics.take(),
            "gauges": {
                "keys": sum(len(source.keys) for source in self.plan.sources.values()),
                "unacknowledged": self._session.deliveries.unacknowledged if self._session else 0,
                "missing": self._sequences.missing,
            },
        }

    def _commit(self, now: int) -> None:
        """Sends all that belongs together as one unit: results, windows, states, and what will be acknowledged."""
        full = now - self._last_full >= MINUTE or bool(self._stopping)
        parts, self._leaving = [*self._leaving, *self.plan.checkpoint(everything=full)], []
        if self._session is not None:
            parts.append(Part("session", True, saved.pack(self._session.checkpoint())))
        parts.append(Part("clock", True, self._time.checkpoint()))
        if (sequences := self._sequences.checkpoint()) is not None:
            parts.append(Part("sequences", *sequences))
        self._number += 1
        outputs, self._outputs, self._pending = self._outputs, [], 0
        self._dirty = False
        if full:
            self._last_full, self._unsaved = now, False
        self._last_commit = now
        self._link.send(
            {
                "type": "commit",
                "number": self._number,
                "outputs": outputs,
                "parts": [[part.owner, part.snapshot, part.data] for part in parts],
                "confirmed": self._sequences.confirmed(),
                **self._stats(now),
            }
        )

    # The gateway's word

    def _told(self, message: Message) -> None:
        kind = message["type"]
        if kind == "start":
            self._start(message)
        elif kind == "plan":
            self._change_plan(message)
        elif kind == "committed":
            self._committed = message["number"]
            if self._session is not None:
                self._session.acknowledge(self._committed)
        elif kind == "took":
            self._forwarding.taken(message["n"])
        elif kind == "interval":
            self._interval = message["interval"]
        elif kind == "stop":
            self._stopping = time.monotonic_ns() + 3 * SECOND
            if self._number == self._committed and (self._dirty or self._unsaved):
                self._tell_alerts()
                self._commit(time.monotonic_ns())
        else:
            log.warning("the gateway said %r, which this engine does not know", kind)

    def _start(self, message: Message) -> None:
        self._interval = message["interval"]
        self._checkpoint = message["checkpoint"]
        self._session = Session(
            BrokerAddress.from_dict(message["broker"]),
            message["client_id"],
            self.metrics,
            on_change=lambda state, why: self._link.send({"type": "broker", "state": state, "why": why}),
            sample=self._sample_payload,
        )
        self._time.begin(message["boot"], message["right"], self._checkpoint.get("clock", []))
        self._driver_topics = f"edgefn/{message['gateway']}/event/".encode()
        self._sequences.restore(self._checkpoint.get("sequences", []))
        for data in self._checkpoint.get("session", []):
            self._session.restore(saved.unpack(data))

    def _change_plan(self, message: Message) -> None:
        """The swap, between two batches: the new plan takes over what has the same shape."""
        started = time.monotonic()
        manifests = [msgspec.convert(manifest, Manifest) for manifest in message["manifests"]]
        plan = Plan(manifests, self.metrics)
        now = time.monotonic_ns()
        if self.plan.nodes:
            plan.adopt(self.plan)
            # What leaves may come back: a handler that was paused, a pattern that was tried out.
            for part in self.plan.snapshots(self.plan.owners() - plan.owners()):
                self._checkpoint[part.owner] = [part.data]
                self._leaving.append(part)
        new = set(plan.owners()) - set(self.plan.owners())
        known = {owner: parts for owner, parts in self._checkpoint.items() if owner in new}
        plan.restore(known, now)
        if known:
            self._time.restored()
        for owner in new:
            self._checkpoint.pop(owner, None)
        self.plan = plan
        self._forwarding.change(message["forward"])
        self._ingest = Ingest(
            plan,
            self.metrics,
            self._sequences,
            self._time,
            self._driver_topics,
            self._sample_payload,
            self._run_plan,
            self._forwarding,
        )
        self._planned = True
        if self._session is not None:
            self._session.subscribe(disjoint(plan.filters() | self._forwarding.filters))
        self._link.send(
            {
                "type": "ready",
                "numbers": {node.name: node.number for node in plan.nodes.values()},
                "fresh": plan.fresh,
                "raised": plan.raised(),
                "seconds": round(time.monotonic() - started, 3),
            }
        )
