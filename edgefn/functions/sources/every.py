"""Intervals: by the monotonic clock, so that no clock that is set moves them."""

from __future__ import annotations

from collections.abc import Sequence

from edgefn import durations
from edgefn.clock import Clock
from edgefn.events import to_json
from edgefn.functions.sources.contract import Fire, Occurrence, wanted
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics
from edgefn.timestamps import to_iso
from edgefn.triggers import Every


class Intervals:
    """The first time one interval after it was planned, then at whole intervals from there. What was missed is counted."""

    def __init__(self, fire: Fire, clock: Clock, metrics: Metrics, life: bytes) -> None:
        self._fire = fire
        self._clock = clock
        self._metrics = metrics
        self._life = life  # of this gateway: an interval never comes again in another one
        self._due: dict[tuple[str, Every], int] = {}

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        now = self._clock.monotonic()
        self._due = {key: self._due.get(key, now + key[1].interval) for key in wanted(functions, Every)}

    def step(self) -> int | None:
        mono, now = self._clock.monotonic(), self._clock.now()
        for (name, trigger), due in self._due.items():
            if due > mono:
                continue
            missed = (mono - due) // trigger.interval
            if missed:
                self._metrics.count("triggers.missed", missed, reason="every")
            self._due[name, trigger] = due + (missed + 1) * trigger.interval
            self._metrics.count("triggers.fired", reason="every")
            occurrence = Occurrence(
                topic=f"every/{durations.show(trigger.interval)}",
                key="",
                payload=to_json({"scheduled": to_iso(now - (mono - due))}),
                ts=now,
                identity=b"every %d %s %d" % (trigger.interval, self._life, due),
            )
            self._fire(name, occurrence)
        return min(self._due.values(), default=None)
