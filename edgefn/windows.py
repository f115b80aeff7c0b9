"""Window specifications and their arithmetic, pure: which samples belong together and when they are complete.

A window is a range of positions `[w * step, w * step + size)`. For windows of time a position is an event's timestamp in
nanoseconds; for windows of a count it is the running number of the key's samples. Everything else is the same for both.

Each key has its own watermark, so that a sensor with a slow clock, or one that is idle, never holds back or hurries the
others: it is the largest timestamp of the key's events, and when the key falls silent it goes on with the (monotonic) time
that passes, less `idle`. A window closes when the watermark reaches its end plus `lateness`; a sample whose last
window has closed is late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgefn import durations

IDLE = durations.UNITS["s"]
MAX_OVERLAP = 1000  # windows that one sample may belong to


@dataclass(frozen=True, slots=True)
class Window:
    """Where windows begin and end; times are in nanoseconds. Made by `tumbling`, `hopping`, `sliding`, `session`, `count`.

    Of a session, `step` is the gap that ends it and `size` the longest that it may become.
    """

    kind: Literal["time", "count", "session", "sliding"]
    size: int
    step: int
    lateness: int = 0
    idle: int = IDLE
    revise: bool = False  # put out at the end, and again for each late sample until `lateness` has passed

    def __post_init__(self) -> None:
        if self.size <= 0 or self.step <= 0:
            raise ValueError("a window of no length holds nothing; give it a size above zero")
        if self.step > self.size:
            raise ValueError("a step larger than the window would lose what falls between two windows")
        if self.kind in ("time", "count") and self.size > self.step * MAX_OVERLAP:
            raise ValueError(f"each sample would belong to more than {MAX_OVERLAP} windows; make the step larger")

    def first(self, position: int) -> int:
        """The number of the first window that holds the position."""
        return (position - self.size) // self.step + 1

    def last(self, position: int) -> int:
        """The number of the last window that holds the position."""
        return position // self.step

    def start(self, number: int) -> int:
        return number * self.step

    def end(self, number: int) -> int:
        return number * self.step + self.size

    def __str__(self) -> str:
        show = str if self.kind == "count" else durations.show
        if self.kind == "session":
            return f"sessions with gaps of {show(self.step)}"
        return f"{show(self.size)}" + ("" if self.step == self.size else f" every {show(self.step)}")


def tumbling(size: str | float, *, lateness: str | float = 0, idle: str | float = "1s", revise: bool = False) -> Window:
    """Windows one after the other: tumbling("1m") gives a row a minute and key.

    `lateness`: how long a window stays open for samples that come out of order. `revise`: put it out at its end all the
    same, and again for samples that come later. `idle`: how long a key must be silent before its windows close by the
    clock of the gateway.
    """
    return hopping(size, size, lateness=lateness, idle=idle, revise=revise)


def hopping(
    size: str | float,
    step: str | float,
    *,
    lateness: str | float = 0,
    idle: str | float = "1s",
    revise: bool = False,
) -> Window:
    """Windows that overlap: hopping("5m", "1m") gives a row a minute over the last five."""
    wait = durations.parse(lateness)
    if revise and not wait:
        raise ValueError('revise=True needs a lateness: until then late samples revise a window, as in lateness="1m"')
    return Window("time", durations.parse(size), durations.parse(step), wait, durations.parse(idle), bool(revise))


def sliding(size: str | float) -> Window:
    """A window that ends at each sample: sliding("5m") gives a row for every sample, over the last five minutes."""
    length = durations.parse(size)
    return Window("sliding", length, length)


def session(
    gap: str | float, *, longest: str | float = "1d", lateness: str | float = 0, idle: str | float = "1s"
) -> Window:
    """Samples that belong together because nothing comes for `gap` before and after them: session("30s").

    A session that does not end is cut after `longest`: until then its samples are held in memory.
    """
    size, step = durations.parse(longest), durations.parse(gap)
    if step > size:
        raise ValueError(f"a gap of {gap} is longer than a session may be ({longest}); give a larger `longest`")
    return Window("session", size, step, durations.parse(lateness), durations.parse(idle))


def count(n: int) -> Window:
    """Windows of n samples of one key, however long they take."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise ValueError(f"count() takes a whole number of samples, not {n!r}")
    return Window("count", n, n)
