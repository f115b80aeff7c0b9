"""What went out and what arrived: kept by listeners on both brokers, who know nothing of the gateway's own counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cloud:
    """The far side: finds gaps and duplicates in the sequence numbers of each stream, which are dense and begin at 1."""

    seen: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    duplicates: int = 0

    def take(self, envelope: dict[str, Any]) -> None:
        numbers = self.seen.setdefault((envelope["epoch"], envelope["stream"]), set())
        if envelope["seq"] in numbers:
            self.duplicates += 1
        numbers.add(envelope["seq"])

    @property
    def delivered(self) -> int:
        return sum(len(numbers) for numbers in self.seen.values())

    def made(self, newest: dict[tuple[str, str], int]) -> int:
        """How many there must be: up to the newest that the gateway has made or the cloud has seen."""
        streams = self.seen.keys() | newest.keys()
        return sum(max(newest.get(one, 0), max(self.seen.get(one, ()), default=0)) for one in streams)

    def missing(self, newest: dict[tuple[str, str], int]) -> int:
        """How many of those have not arrived: each is lost, or still on its way."""
        return self.made(newest) - self.delivered

    def lost(self, newest: dict[tuple[str, str], int], waiting: int) -> int:
        """Gaps are lost: a stream comes in order. So is what the newest end lacks, unless it waits in the outbox."""
        gaps = sum(max(numbers) - len(numbers) for numbers in self.seen.values())
        return gaps + max(0, self.missing(newest) - gaps - waiting)


@dataclass
class Device:
    """The near side: what drivers published and what the gateway says of itself, over all of its lives."""

    published: int = 0
    events: Counter[str] = field(default_factory=Counter)  # by driver
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)  # driver or channel → fields
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    handlers: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    backlog: int = 0
    online: bool = False
    _before: Counter[str] = field(default_factory=Counter)  # counters of lives that have ended

    def take_metrics(self, metrics: dict[str, Any]) -> None:
        """Counters begin at zero with each life of the gateway: what an earlier one counted is added."""
        if metrics["uptime_s"] < self.metrics.get("uptime_s", 0):
            self._before.update(self.metrics["counters"])
        self.metrics = metrics
        for uplink in metrics["uplinks"].values():
            self.backlog = max(self.backlog, uplink["rows"])
        for stream, (epoch, seq) in metrics.get("streams", {}).items():
            self.newest[epoch, stream] = max(seq, self.newest.get((epoch, stream), 0))

    def count(self, prefix: str) -> int:
        """A counter with all its reasons."""
        counters = Counter(self.metrics.get("counters", {})) + self._before
        return sum(n for name, n in counters.items() if name == prefix or name.startswith(prefix + "."))

    def meter(self, kind: str, what: str) -> int:
        return sum(state.get("meter", {}).get(what, 0) for state in self.handlers.values() if state.get("kind") == kind)
