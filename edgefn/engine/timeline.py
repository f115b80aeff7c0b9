"""Gateway time as the engine goes by it: the same offset for a whole batch, and every step of it noticed once."""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

from edgefn import events
from edgefn.clock import NS, STEP
from edgefn.engine.chain_kernels import BEGINNING
from edgefn.engine.decode import MAX_SKEW

SETTLING = 60 * NS  # after a step, how long events are looked at for stamps of before it


class Limits(NamedTuple):
    """The watermarks beyond which windows are cut.

    A device's clock is its own, and a step changes nothing for it, unless it is so far ahead now that its events are not
    believed and get the time of their arrival: they would be late until the clock has come there again.
    """

    gateway: int  # of keys whose events are stamped by the gateway's clock
    devices: int  # of all others


class Offset(Protocol):
    """What gateway time is ahead of the monotonic clock; edgefn.clock.SharedClock is one."""

    @property
    def offset(self) -> int: ...


class Timeline:
    """`look` before each batch; after a step close what is open, which still has the old `offset`, and then `follow`."""

    def __init__(self, clock: Offset) -> None:
        self._clock = clock
        self.offset = clock.offset  # by which everything is stamped that is put out now
        self._boot = ""
        self._is_right = True
        self._last = 0
        self._before = 0  # the offset before the last step
        self._settled_at = 0  # monotonic
        self._has_rebooted = self._has_restored = False

    def begin(self, boot: str, is_right: bool, saved: list[bytes]) -> None:
        """The engine starts: which boot this is, whether gateway time is known to be right, and the last checkpoint."""
        self._boot, self._is_right = boot, is_right
        if saved:
            past = events.unpack(saved[-1])
            self._has_rebooted = past["boot"] != boot
            self.offset = past["offset"]

    def restored(self) -> None:
        """Windows of an earlier commit have been taken up; since then the clock may have been set."""
        self._has_restored = True

    def look(self, now: int) -> Limits | None:
        """None, or that the clock has been set: how far windows may have come that go on. `now`: monotonic."""
        offset = self._clock.offset
        if offset == self.offset and not self._has_restored:
            return None
        # Offsets of two boots say nothing of one another: only a clock that is known to be right continues the windows.
        is_step = not self._is_right if self._has_rebooted else abs(offset - self.offset) >= STEP
        if not is_step and not self._has_restored:
            self.offset = offset
            return None
        return Limits(BEGINNING if is_step else now + offset + STEP, now + offset + MAX_SKEW)

    def follow(self, now: int) -> None:
        """What was stamped by the old offset has been put out: from here on the new one holds."""
        offset = self._clock.offset
        if abs(offset - self.offset) >= STEP:
            self._before, self._settled_at, self._last = self.offset, now + SETTLING, 0
            if self._has_rebooted:
                self._settled_at = 0
        self.offset = offset
        self._has_rebooted = self._has_restored = False

    def arrival(self) -> int:
        """The time of what comes now. It does not go back while the offset is corrected by less than a step."""
        self._last = max(self._last, time.monotonic_ns() + self.offset)
        return self._last

    def has_settled(self, now: int) -> bool:
        """Whether `put_right` has nothing to do any more."""
        return now >= self._settled_at

    def put_right(self, fields: dict[str, Any], now: int) -> None:
        """Moves the time of an event of edgefn's own drivers that was stamped before the last step and came after it.

        It is one of them where it lies nearer to the old time than to the new, for a minute after the step: what is as old
        as that, a broker has kept.
        """
        ts = fields.get("ts")
        if now < self._settled_at and type(ts) is int and abs(ts - now - self._before) < abs(ts - now - self.offset):
            fields["ts"] = ts - self._before + self.offset

    def checkpoint(self) -> bytes:
        """Which boot, which offset, and gateway time: where the next start goes on from."""
        return events.pack({"boot": self._boot, "offset": self.offset, "now": self.arrival()})
