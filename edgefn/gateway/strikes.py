"""How often handlers have taken down what runs them lately: three times within ten minutes are enough."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefn.clock import NS, Clock

STRIKES = 3  # within STRIKE_WINDOW: the handler goes into quarantine
STRIKE_WINDOW = 600 * NS


@dataclass(slots=True)
class _Count:
    version: str
    times: list[int] = field(default_factory=list)


class Strikes:
    """Counts for each handler; another version of its file begins afresh."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, _Count] = {}

    def add(self, name: str, version: str) -> int:
        """How many there are now."""
        count = self._counts.get(name)
        if count is None or count.version != version:
            count = self._counts[name] = _Count(version)
        now = self._clock.monotonic()
        count.times = [one for one in count.times if now - one < STRIKE_WINDOW] + [now]
        return len(count.times)

    def of(self, name: str) -> int:
        count = self._counts.get(name)
        return len(count.times) if count else 0

    def forget(self, name: str) -> None:
        self._counts.pop(name, None)
