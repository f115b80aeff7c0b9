"""Occasions: what the gateway tells (start, stop, clock-synced), and conditions that are looked at while somebody wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgefn.clock import Clock
from edgefn.events import to_json
from edgefn.functions.sources.conditions import Condition
from edgefn.functions.sources.contract import Fire, Occurrence, wanted
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics
from edgefn.triggers import OnOccasion

# Handlers become active one by one, most of them after the gateway has started: each gets these once in a life of it.
LASTING = frozenset({"start", "clock-synced"})


@dataclass(slots=True)
class _Told:
    """Something that the gateway has told, and who had it."""

    data: Mapping[str, Any]
    by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Watched:
    condition: Condition
    due: int | None = None
    known: dict[str, bool] = field(default_factory=dict)  # by function: what it knows of it


class Occasions:
    """Each function is told of a change; of what is bad at the first look as well, where that is of use."""

    def __init__(
        self, fire: Fire, clock: Clock, metrics: Metrics, life: bytes, conditions: Sequence[Condition]
    ) -> None:
        self._fire = fire
        self._clock = clock
        self._metrics = metrics
        self._life = life  # of this gateway
        self._n = 0
        self._watched = [_Watched(one) for one in conditions]
        self._told: dict[str, _Told] = {}
        self._wanted: dict[str, list[str]] = {}  # occasion → functions

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        self._wanted = {}
        for name, trigger in wanted(functions, OnOccasion):
            self._wanted.setdefault(trigger.occasion, []).append(name)
        for one in self._watched:
            names = self._names(one.condition)
            one.known = {name: good for name, good in one.known.items() if name in names}
            if not names:
                one.due = None
            elif one.due is None or names != one.known.keys():
                one.due = self._clock.monotonic()

    def occasion(self, name: str, data: Mapping[str, Any]) -> None:
        if name in LASTING:
            self._told[name] = _Told(data)
        else:
            for function in self._wanted.get(name, ()):
                self._come(function, name, data)

    def step(self) -> int | None:
        for name, told in self._told.items():
            for function in self._wanted.get(name, ()):
                if function not in told.by:
                    told.by.add(function)
                    self._come(function, name, told.data)
        now = self._clock.monotonic()
        for one in self._watched:
            if one.due is not None and one.due <= now:
                one.due = now + one.condition.interval
                self._look(one)
        return min((one.due for one in self._watched if one.due is not None), default=None)

    def _look(self, watched: _Watched) -> None:
        condition = watched.condition
        if (reading := condition.read()) is None:
            return
        good, data = reading
        name = condition.good if good else condition.bad
        for function in self._names(condition):
            before = watched.known.get(function, True if condition.is_told_at_once else good)
            watched.known[function] = good
            if before != good and function in self._wanted.get(name, ()):
                self._come(function, name, data)

    def _names(self, condition: Condition) -> set[str]:
        return {*self._wanted.get(condition.good, ()), *self._wanted.get(condition.bad, ())}

    def _come(self, function: str, name: str, data: Mapping[str, Any]) -> None:
        self._n += 1
        self._metrics.count("triggers.fired", reason="system")
        identity = b"system %s %s %d" % (name.encode(), self._life, self._n)
        self._fire(function, Occurrence(f"system/{name}", "", to_json(data), self._clock.now(), identity))
