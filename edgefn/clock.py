"""The time, passed in as an argument wherever it matters, so that tests can set it."""

from __future__ import annotations

import time
from typing import Protocol

NS = 1_000_000_000


class Clock(Protocol):
    """What edgefn asks of a clock; `edgefn.testing.ManualClock` is the one that tests turn by hand."""

    def now(self) -> int:
        """Nanoseconds since the epoch, UTC. May jump either way."""

    def monotonic(self) -> int:
        """Nanoseconds since some point in this boot. Never goes back."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()
