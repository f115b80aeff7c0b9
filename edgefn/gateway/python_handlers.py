"""Python handlers in the gateway: what starts them comes in here, and their effects go from here to the broker and the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgefn.clock import Clock
from edgefn.events import to_json
from edgefn.functions.guard import Guard
from edgefn.functions.invocation import OWNERS, Cover, Invocation, id_of, new_id
from edgefn.functions.lane import Deployment
from edgefn.functions.protocol import Forward
from edgefn.functions.scheduler import Scheduler
from edgefn.functions.sources import Occurrence, Sources
from edgefn.gateway.publisher import Publisher
from edgefn.gateway.results import Publication, Row
from edgefn.manifest import ActiveFunction, FunctionManifest
from edgefn.metrics import Metrics
from edgefn.monitor import Topics
from edgefn.policies import StreamPolicy
from edgefn.store import NewItem
from edgefn.timestamps import to_iso
from edgefn.topics import Pattern
from edgefn.triggers import OnTopic

MAX_ROUTES = 10_000  # topics of which it is remembered who listens
STOP = 3.0  # seconds that a stopping gateway gives what runs

Route = list[tuple[str, str, dict[str, str], bool]]  # handler, key, captures, whether retained messages start it


class PythonHandlers:
    """The scheduler and all that it is joined to."""

    def __init__(
        self,
        publisher: Publisher,
        topics: Topics,
        clock: Clock,
        metrics: Metrics,
        *,
        workers: int,
        secrets: Path,
        state: Path,
        is_right: Any,
    ) -> None:
        self._publisher = publisher
        self._topics = topics
        self._metrics = metrics
        self.scheduler = Scheduler(self, clock, metrics, gateway=topics.gateway, workers=workers, secrets=secrets)
        self.sources = Sources(
            self._fire, clock, metrics, is_right=is_right, has_room=self.scheduler.has_room,
            save=self.scheduler.journal.note, state=state,
        )  # fmt: skip
        self.scheduler.on_room = self.sources.wake
        self._guard = Guard(self.scheduler.pool, metrics)
        self._functions: dict[str, FunctionManifest] = {}
        self._routes: dict[str, Route] = {}
        self._patterns: list[tuple[Pattern, OnTopic, str]] = []

    # What runs

    @property
    def patterns(self) -> list[str]:
        """Of which the engine has to forward each message."""
        return sorted({trigger.pattern for _, trigger, _ in self._patterns})

    def deploy(self, active: Iterable[ActiveFunction]) -> None:
        """From now on these run."""
        active = list(active)
        self._functions = {one.manifest.name: one.manifest for one in active}
        self._patterns = [
            (Pattern(trigger.pattern), trigger, one.manifest.name)
            for one in active
            for trigger in one.manifest.triggers
            if isinstance(trigger, OnTopic)
        ]
        self._routes = {}
        self.scheduler.deploy(Deployment(one.manifest, str(one.path), str(one.source), one.version) for one in active)
        self.sources.plan([one.manifest for one in active])

    def restore(self, saved: Mapping[str, list[bytes]]) -> None:
        """Takes up what the store has of them; again when dead letters were put back."""
        self.scheduler.restore(saved)

    def begin(self, saved: Mapping[str, list[bytes]]) -> None:
        """The same at the start, and what triggers have to remember."""
        self.sources.restore(saved)
        self.restore(saved)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.scheduler.pool.run(), name="worker template")
            tasks.create_task(self._guard.run(), name="worker guard")
            tasks.create_task(self.sources.run(), name="triggers")

    async def stop(self) -> None:
        self.sources.occasion("stop")
        await self.scheduler.stop(STOP)

    # What starts them

    def events(self, message: Mapping[str, Any], engine: int) -> int:
        """Messages that the engine forwards; returns how many of QoS 0 there were."""
        unanswered = 0
        for topic, payload, retained, place, digest in message["events"]:
            unanswered += not place
            for name, key, captures, takes_retained in self._route(topic):
                if retained and not takes_retained:
                    continue
                durable = self._is_durable(name, bool(place))
                id = id_of(name, place, digest) if place else new_id()
                self.scheduler.invoke(
                    Invocation(
                        id, name, topic, payload, key, captures, message["ts"],
                        durable=durable, retained=retained, cover=Cover(engine if place else 0),
                    )
                )  # fmt: skip
        return unanswered

    def _is_durable(self, name: str, otherwise: bool) -> bool:
        wanted = self._functions[name].policy.durable
        return otherwise if wanted is None else wanted

    def _route(self, topic: str) -> Route:
        route = self._routes.get(topic)
        if route is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            route = self._routes[topic] = list(self._listening(topic))
        return route

    def _listening(self, topic: str) -> Iterable[tuple[str, str, dict[str, str], bool]]:
        seen = set()
        for pattern, trigger, name in self._patterns:
            captured = pattern.match(topic)
            if captured is not None and name not in seen:  # several patterns of one handler start it once
                seen.add(name)
                key = "/".join(captured) if captured else topic
                yield name, key, dict(zip(pattern.captures, captured, strict=True)), trigger.retained

    def rows(self, rows: Iterable[Row], engine: int = 0) -> None:
        """Compiled handlers have put rows out: the next commit of `engine` holds them, or, 0, the one that is being made."""
        for row in rows:
            if self.scheduler.listens(row.handler.name):
                self.scheduler.output(row.handler.name, row.key, row.ts, row.payload, durable=True, engine=engine)

    def _fire(self, name: str, occurrence: Occurrence) -> None:
        durable = self._is_durable(name, occurrence.topic.startswith("file/"))
        if not durable:
            for part in occurrence.parts:
                self.scheduler.journal.note(part)
        self.scheduler.invoke(
            Invocation(
                id_of(name, occurrence.topic, occurrence.identity) if durable else new_id(), name, occurrence.topic,
                occurrence.payload, occurrence.key, ts=occurrence.ts, durable=durable, parts=occurrence.parts if durable else (),
            )
        )  # fmt: skip

    # Their effects

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self._publisher.add([Publication(topic, payload, qos, retain)])

    def returned(self, deployment: Deployment, invocation: Invocation, value: bytes) -> Sequence[NewItem]:
        manifest = deployment.manifest
        options, items = manifest.options, []
        key = invocation.key or "_"
        payload = self._row(manifest.name, key, invocation.ts, value)
        for target in options.to:
            if target == "uplink":
                items.append(self._item(manifest, payload, invocation.ts, invocation.own_clock))
            else:
                topic = self._topics.summary(manifest.name, key) if target == "local" else target
                self._publisher.add([Publication(topic, payload, options.qos, False)])
        return items

    def forwarded(self, deployment: Deployment, invocation: Invocation, forward: Forward) -> NewItem:
        manifest = deployment.manifest
        key = forward.key if forward.key is not None else invocation.key
        ts = forward.ts if forward.ts is not None else invocation.ts
        own_clock = invocation.own_clock and forward.ts is None
        return self._item(manifest, self._row(manifest.name, key, ts, forward.values), ts, own_clock)

    def _row(self, name: str, key: str, ts: int, value: bytes) -> bytes:
        """As the rows of compiled handlers: `values` is an object; a single value is called `value`."""
        values = msgspec.Raw(value) if value[:1] == b"{" else {"value": msgspec.Raw(value)}
        return to_json({"ts": to_iso(ts), "handler": name, "key": key, "values": values})

    def _item(self, manifest: FunctionManifest, payload: bytes, ts: int, own_clock: bool) -> NewItem:
        options = manifest.options
        return NewItem(
            f"summary/{manifest.name}",
            payload,
            ts,
            options.priority,
            ttl=options.ttl,
            own_clock=own_clock,
            policy=StreamPolicy(options.quota, options.on_full),
        )


def is_theirs(owner: str) -> bool:
    """Whether what the store keeps under that name is of Python handlers, and no business of the engine's."""
    return owner.startswith(OWNERS)
