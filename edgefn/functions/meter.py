"""The bill of one Python handler: how often it ran and how that ended, how long it waited and worked, what memory it took."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

KEPT = 200  # of the newest invocations, for the quantiles


@dataclass(slots=True)
class Meter:
    """Times in ns, memory in bytes. Counts are since the gateway started."""

    outcomes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    wall: int = 0
    cpu: int = 0
    peak: int = 0
    waits: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))
    walls: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))

    def note(self, outcome: str, wait: int, wall: int, cpu: int, peak: int) -> None:
        self.outcomes[outcome] += 1
        self.wall += wall
        self.cpu += cpu
        self.peak = max(self.peak, peak)
        self.waits.append(wait)
        self.walls.append(wall)

    def report(self) -> dict[str, Any]:
        """For `edgefn/<gateway>/handler/<name>`: milliseconds and bytes."""
        return {
            "invocations": sum(self.outcomes.values()),
            **dict(sorted(self.outcomes.items())),
            **({"dropped": dict(sorted(self.dropped.items()))} if self.dropped else {}),
            **({"wait_ms": _quantiles(self.waits), "duration_ms": _quantiles(self.walls)} if self.waits else {}),
            "wall_s": round(self.wall / 1e9, 3),
            "cpu_s": round(self.cpu / 1e9, 3),
            "peak_memory": self.peak,
        }


def _quantiles(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values)

    def at(share: int) -> float:
        return round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)] / 1e6, 2)

    return {"p50": at(50), "p99": at(99)}
