"""A clock that stands still until it is told to go on."""

from __future__ import annotations

from edgefn import durations

START = 1_790_000_000_000_000_000  # ns; some moment in 2026


class ManualClock:
    """A clock that stands still until it is told: `advance("5s")` for time that passes, `jump("-1h")` for a changed clock."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._monotonic = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> int:
        return self._monotonic

    @property
    def offset(self) -> int:
        return self._now - self._monotonic

    def advance(self, duration: str | float) -> None:
        self.go_on(durations.parse(duration))

    def go_on(self, ns: int) -> None:
        """The same in nanoseconds."""
        self._now += ns
        self._monotonic += ns

    def jump(self, duration: str | float) -> None:
        """Sets the clock forward or, with a minus sign, back; the monotonic time does not notice."""
        if isinstance(duration, str) and duration.startswith("-"):
            self._now -= durations.parse(duration[1:])
        else:
            self._now += durations.parse(duration)
