"""Bytes a second: a token bucket that may go into debt and pays it back by waiting."""

from __future__ import annotations

from edgefn.clock import NS, Clock


class TokenBucket:
    """Holds at most what one second brings. Who takes more than there is makes those after him wait."""

    def __init__(self, rate: int, clock: Clock) -> None:
        """`rate` in bytes a second."""
        self.size = rate
        self._clock = clock
        self._level = float(rate)
        self._at = clock.monotonic()

    def wait(self) -> float:
        """Seconds until it is full again; less than a millisecond is none."""
        self._fill()
        seconds = (self.size - self._level) / self.size
        return seconds if seconds > 0.001 else 0.0

    def take(self, n: int) -> None:
        """Takes bytes out, or puts them back where `n` is negative."""
        self._fill()
        self._level = min(self.size, self._level - n)

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._level = min(self.size, self._level + self.size * (now - self._at) / NS)
        self._at = now
