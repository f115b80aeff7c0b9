"""The time, passed in as an argument wherever it matters: this machine's, or the one that all processes of a gateway share."""

from __future__ import annotations

import mmap
import os
import time
from datetime import UTC, datetime
from typing import Protocol

NS = 1_000_000_000

STEP = NS // 2  # a clock that differs by this much has been set, and is not followed as if nothing had happened
EARLIEST = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * NS  # no gateway ran before: such a clock was never set
LATEST = int(datetime(2045, 1, 1, tzinfo=UTC).timestamp()) * NS  # nor one so late: a clock that broke, or 32 bits of it


def is_plausible(now: int) -> bool:
    """Whether this can be the time at all. A board without a clock of its own begins in 1970."""
    return EARLIEST <= now < LATEST


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


class SharedClock:
    """Gateway time: the monotonic clock plus an offset in memory that the gateway writes and its children read.

    All switch at the same instant when the offset changes, without a message. Children get the descriptor and may only
    read. A correction below STEP lets the clock stand still rather than go back.
    """

    def __init__(self, fd: int, *, prot: int = mmap.PROT_READ) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, mmap.PAGESIZE, prot=prot)
        # In native order a word is read and written by one instruction: nobody ever sees half of an offset.
        self._words = memoryview(self._map).cast("q")
        self._last = 0

    @classmethod
    def create(cls) -> SharedClock:
        """The gateway's own, which begins with the time of this machine."""
        fd = os.memfd_create("edgefn-clock")
        os.ftruncate(fd, mmap.PAGESIZE)
        clock = cls(fd, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        clock.offset = time.time_ns() - time.monotonic_ns()
        return clock

    @property
    def offset(self) -> int:
        return self._words[0]

    @offset.setter
    def offset(self, offset: int) -> None:
        self._words[0] = offset

    def now(self) -> int:
        now = time.monotonic_ns() + self._words[0]
        if self._last - STEP < now < self._last:
            return self._last
        self._last = now
        return now

    def monotonic(self) -> int:
        return time.monotonic_ns()

    def close(self) -> None:
        """Twice is harmless."""
        if not self._map.closed:
            self._words.release()
            self._map.close()
            os.close(self.fd)
