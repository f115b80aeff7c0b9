"""The compiled handlers of some files in the engine's own plan: events go in one by one, rows come out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edgefn.engine.decode import fields_of
from edgefn.engine.nodes import Context, Output
from edgefn.engine.plan import Plan
from edgefn.engine.timeline import Timeline
from edgefn.errors import PayloadError
from edgefn.manifest import HandlerManifest, Manifest
from edgefn.metrics import Metrics
from edgefn.trial.clock import ManualClock
from edgefn.trial.rows import Row

if TYPE_CHECKING:
    from edgefn.fields import Field


class Compiled:
    """Driven by hand: `add` events, `run` the handlers over them, `tick` when time has passed, and `take` what came out."""

    def __init__(self, manifests: Iterable[Manifest], clock: ManualClock, metrics: Metrics) -> None:
        # Without a module there is no machine code: the file has Python handlers only.
        self.plan = Plan([one for one in manifests if one.module], metrics)
        self._clock = clock
        self._metrics = metrics
        self._context = Context(self._emit, lambda number: None, lambda: None)
        self._time = Timeline(clock)
        self._outputs: list[tuple[list[Row], dict[str, Any]]] = []

    def wants(self, topic: str) -> bool:
        name = topic.encode()
        return bool(self.plan.router.route(name)) or self.plan.latest.wants(name)

    def handler(self, name: str) -> HandlerManifest:
        return self.plan.nodes[name].manifest

    def add(self, topic: str, payload: bytes, arrival: int, *, retained: bool = False) -> PayloadError | None:
        """One event for the next `run`; returns what is wrong with it."""
        name = topic.encode()
        try:
            fields = fields_of(payload)
            if self.plan.latest.wants(name):
                self.plan.latest.update(name, fields)
            for source, label in self.plan.router.route(name):
                self.plan.add(source, label, fields, arrival, retained=retained)
        except PayloadError as error:
            self._metrics.count("events.failed", reason=error.reason)
            return error
        return None

    def look(self) -> None:
        """What the engine does before each batch: it notices that the clock was set."""
        now = self._context.now = self._clock.monotonic()
        if (limits := self._time.look(now)) is not None:
            self.plan.cut(self._context, limits)
            self._time.follow(now)

    def run(self) -> None:
        self.plan.run(self._context)

    def tick(self) -> None:
        self.plan.tick(self._context)

    def next_due(self) -> int | None:
        """The monotonic time at which the next window closes if nothing comes."""
        return self.plan.next_due()

    def take(self) -> list[tuple[list[Row], dict[str, Any]]]:
        """What was put out since the last call: rows, and the same as the engine tells the gateway."""
        taken, self._outputs = self._outputs, []
        return taken

    def late(self) -> int:
        """Rows that came after their window had closed."""
        return sum(group.panes.given_up()["events.late"] for group in self.plan.groups.values())

    def _emit(self, output: Output) -> None:
        node, keys = output.node, self.plan.keys(output.node)
        labels = [keys.labels[key] for key in output.key.tolist()]
        names, columns = node.manifest.outputs, [column.tolist() for column in output.values]
        rows = [
            Row(node.name, label, ts, {one.name: _typed(one, column[i]) for one, column in zip(names, columns, strict=True)})
            for i, (label, ts) in enumerate(zip(labels, output.ts.tolist(), strict=True))
        ]  # fmt: skip
        told = {
            "handler": node.name,
            "version": node.version,
            "labels": labels,
            "ts": output.ts,
            "own": keys.moving(output.key),
            "offset": self._time.offset,
            "n": output.length,
            "revised": output.revised,
            "values": list(output.values),
        }
        self._outputs.append((rows, told))


def _typed(field: Field, value: float) -> float | int | bool:
    """All columns are floats; a value that was declared a whole number or a truth value is shown as one."""
    if field.type == "float" or not math.isfinite(value):
        return value
    return int(value) if field.type == "int" else bool(value)
