"""What the tests of the store and of the uplink share."""

from __future__ import annotations

from pathlib import Path

from edgefn.clock import NS
from edgefn.metrics import Metrics
from edgefn.store import NewItem, Store, open_store

START = 1_750_000_000 * NS


class TurnedClock:
    """A clock that a test turns by hand."""

    def __init__(self) -> None:
        self.ns = START

    def now(self) -> int:
        return self.ns

    def monotonic(self) -> int:
        return self.ns - START

    def turn(self, seconds: float) -> None:
        self.ns += int(seconds * NS)


def a_store(
    path: Path,
    *,
    uplinks: tuple[str, ...] | None = ("cloud",),
    clock: TurnedClock | None = None,
    metrics: Metrics | None = None,
    max_bytes: int = 1 << 24,
    ballast: int = 0,
) -> Store:
    return open_store(
        path,
        gateway="gw-1",
        clock=clock or TurnedClock(),
        metrics=metrics or Metrics(),
        max_bytes=max_bytes,
        ballast=ballast,
        uplinks=uplinks,
    )


def item(stream: str = "summary/minute", n: int = 0, priority: int = 1, size: int = 0, ts: int = START) -> NewItem:
    payload = b'{"n":%d}' % n
    return NewItem(stream, payload.ljust(size), ts, priority)
