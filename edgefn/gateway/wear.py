"""What the gateway writes to its disk, held against a budget: above it, commits come less often.

Each commit writes whole pages, however little it holds, so fewer commits write fewer bytes. Events of QoS 1 are committed at
half of the broker's window all the same, and alerts never wait for a commit.
"""

from __future__ import annotations

from pathlib import Path

from edgefn.clock import NS

DAY = 86_400 * NS
SHARE = 24  # of a day's budget may be written at once: a burst of an hour does not slow commits down
LONGEST = 10 * NS  # between two commits, whatever the budget; drivers keep three times as much unconfirmed
STEP = NS // 10  # the engine is not told of smaller changes


def written_bytes() -> int:
    """What this process has caused to be written to disks since it started; 0 where the kernel does not count it."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), 0)


class WriteBudget:
    """A token bucket of bytes: it fills with time, up to a 24th of a day, and empties with what is written.

    daily: bytes a day, 0 for no budget; base: the commit interval in ns while there is no need to save.
    """

    def __init__(self, daily: int, base: int) -> None:
        self._daily = daily
        self._base = base
        self._size = daily / SHARE
        self._level = self._size
        self._written = 0
        self._at: int | None = None

    def interval(self, written: int, now: int) -> int:
        """The commit interval from now on, in ns: longer, up to 10 s, the emptier the lower half of the bucket is.

        `written`: bytes since the process started; `now`: monotonic ns. Neither ever decreases.
        """
        if not self._daily:
            return self._base
        earned = 0.0 if self._at is None else (now - self._at) / DAY * self._daily
        self._level = min(self._size, max(0.0, self._level + earned - (written - self._written)))
        self._written, self._at = written, now
        missing = max(0.0, 1 - 2 * self._level / self._size)
        longest = max(LONGEST, self._base)
        return self._base + round(missing * (longest - self._base) / STEP) * STEP
