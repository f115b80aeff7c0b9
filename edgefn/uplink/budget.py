"""Bytes a day: what an uplink has spent since midnight UTC, and what it may still send."""

from __future__ import annotations

from edgefn.clock import NS, Clock
from edgefn.store.records import HIGH, Spent

DAY = 86_400 * NS
ORDINARY = 0.9  # the part of a day's bytes that anything may use; the rest is for high priority


class DailyBudget:
    """One allowance for each day of the gateway's clock.

    A clock that jumps must not give days nor take them. So a day's allowance is begun once: after a step back the gateway
    goes on with the day that it had begun, until the clock comes to that day again. A day that was begun by a wrong clock and
    lies far ahead would last for ever; it ends when the clock goes over a midnight before it.
    """

    def __init__(self, daily: int, clock: Clock, saved: Spent | None) -> None:
        """`daily` in bytes; `saved` is what the store knows."""
        self.daily = daily
        self._clock = clock
        self._seen = self._today()
        self._day, self._bytes = (saved.day, saved.bytes) if saved else (self._seen, 0)
        self._roll()

    @property
    def spent(self) -> Spent:
        self._roll()
        return Spent(self._day, self._bytes)

    def spend(self, n: int) -> None:
        self._roll()
        self._bytes += n

    def left(self, priority: int) -> int:
        """Bytes that items of a priority may still take today."""
        return max(0, self.whole(priority) - self.spent.bytes)

    def whole(self, priority: int) -> int:
        """Bytes that items of a priority may take in a day: a larger one can never go."""
        return self.daily if priority == HIGH else int(self.daily * ORDINARY)

    def until_midnight(self) -> float:
        """Seconds."""
        return (DAY - self._clock.now() % DAY) / NS

    def _today(self) -> int:
        return self._clock.now() // DAY

    def _roll(self) -> None:
        today = self._today()
        if today > self._day or self._seen < today < self._day:
            self._day, self._bytes = today, 0
        self._seen = today
