"""Messages for Python handlers, on their way from the engine's session to the gateway as they are.

Those of QoS 1 are all told, since the broker holds back what is not acknowledged. Those of QoS 0 have a bound: the gateway
says how many it has taken, and what comes while too many are under way is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from edgefn.metrics import Metrics
from edgefn.topics import Pattern

MAX_UNDER_WAY = 2000  # messages of QoS 0
OF_DRIVER = "driver"  # the place of an event that its own content tells from all others


class Forwarded(NamedTuple):
    """One message. `place` is the same when it comes again: where it stands in its session; empty for QoS 0."""

    topic: str
    payload: bytes
    retained: bool
    place: str
    digest: int  # of topic and payload


class Forwarding:
    """Collects what one read has brought. `patterns`: those of all Python handlers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._patterns: list[Pattern] = []
        self._collected: list[Forwarded] = []
        self._under_way = 0

    @property
    def filters(self) -> set[str]:
        return {pattern.filter for pattern in self._patterns}

    def change(self, patterns: Iterable[str]) -> None:
        self._patterns = [Pattern(text) for text in patterns]

    def wants(self, topic: bytes) -> bool:
        """Whether a handler listens. Asked once for each topic."""
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            return False
        return any(pattern.match(text) is not None for pattern in self._patterns)

    def add(self, topic: bytes, payload: bytes, *, retained: bool, place: str, digest: int) -> None:
        """Raises nothing: what is too much is counted."""
        if not place:
            if self._under_way >= MAX_UNDER_WAY:
                self._metrics.count("functions.dropped", reason="too_many")
                return
            self._under_way += 1
        self._collected.append(Forwarded(topic.decode(), payload, retained, place, digest))

    def taken(self, n: int) -> None:
        """The gateway has taken n messages of QoS 0 in."""
        self._under_way = max(0, self._under_way - n)

    def message(self, ts: int) -> dict[str, Any] | None:
        """What has been added, for the gateway; None where there is nothing."""
        events, self._collected = self._collected, []
        return {"type": "events", "ts": ts, "events": events} if events else None
