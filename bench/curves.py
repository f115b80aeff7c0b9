"""From the runs at several sizes of a load to the curves of a plot and the words of a note."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from bench.rows import Curve
from bench.throughput import Pair


def point(x: float, values: list[float]) -> tuple[float, float, float, float]:
    """The median of the runs, and the smallest and the largest."""
    return x, median(values), min(values), max(values)


def cpu_curve(name: str, pairs: Mapping[int, Pair]) -> Curve:
    """µs of the engine per event."""
    return Curve(name, tuple(point(x, [run.cpu / run.n * 1e6 for run in pair.ours]) for x, pair in pairs.items()))


def rate_curves(pairs: Mapping[int, Pair]) -> tuple[Curve, Curve]:
    """Events a second of the gateway and of mosquitto_sub."""
    return (
        Curve("edgefn", tuple(point(x, [run.rate for run in pair.ours]) for x, pair in pairs.items())),
        Curve("mosquitto_sub", tuple(point(x, [run.rate for run in pair.theirs]) for x, pair in pairs.items())),
    )


def account(pairs: Mapping[int, Pair]) -> str:
    """Whether anything was lost, for the note."""
    lost = {x: pair.lost for x, pair in pairs.items() if pair.lost}
    return "none lost" if not lost else "lost " + ", ".join(f"{n:,} at {x:,}" for x, n in lost.items())
