"""Counters and gauges of one process, collected as plain numbers under dotted names."""

from __future__ import annotations

from collections import Counter


class Metrics:
    """Counts what happens and holds what is measured.

    A name is dotted (`events.failed`); a reason becomes the last part (`events.failed.not_utf8`), so that every drop is
    counted by reason and a sum over a prefix is the total. The number of names is bounded: past it, counts go to
    `metrics.overflow`, because a name made from outside input must not fill the memory.
    """

    def __init__(self, max_names: int = 2000) -> None:
        self.counters: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self._max_names = max_names

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        if reason:
            name = f"{name}.{reason}"
        if name not in self.counters and len(self.counters) >= self._max_names:
            name = "metrics.overflow"
        self.counters[name] += n

    def gauge(self, name: str, value: float) -> None:
        if name in self.gauges or len(self.gauges) < self._max_names:
            self.gauges[name] = value
        else:
            self.counters["metrics.overflow"] += 1

    def merge(self, counters: dict[str, int]) -> None:
        """Adds the counts that another process made since it last told."""
        for name, n in counters.items():
            self.count(name, n)

    def total(self, prefix: str) -> int:
        """The sum of a counter and of all its reasons."""
        return sum(n for name, n in self.counters.items() if name == prefix or name.startswith(prefix + "."))

    def take(self) -> dict[str, int]:
        """Returns the counts since the last call and starts again at zero: how a process tells another."""
        taken = {name: n for name, n in self.counters.items() if n}
        self.counters.clear()
        return taken
