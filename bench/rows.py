"""What a benchmark gives: rows of a number, its ratio to a peer, and the target it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how often to measure."""

    quick: bool = False
    full: bool = False

    @property
    def repeats(self) -> int:
        """How often an interleaved pair is run; the median is reported."""
        return 1 if self.quick else 3


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached and what is aimed at, in the unit of the row, or as a ratio."""

    must: float
    aim: float
    better: Literal["higher", "lower"]
    of: Literal["value", "ratio"]

    def verdict(self, measured: float) -> str:
        def reached(limit: float) -> bool:
            return measured >= limit if self.better == "higher" else measured <= limit

        return "aim" if reached(self.aim) else "must" if reached(self.must) else "missed"


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot. A point is x, the median y of its runs, and their smallest and largest y."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of several curves: x is logarithmic, y where `log` says so, else it begins at 0."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels side by side, which become NAME.svg."""

    name: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `value` is None where it could not be measured: `note` then says why."""

    what: str
    value: float | None
    unit: str
    peer: str = ""  # what `ratio` is against
    ratio: float | None = None
    target: Target | None = None
    note: str = ""
    lost: bool = False  # something was lost on the way: the number does not count
    figure: Figure | None = None  # what `--plot` draws of it

    @property
    def verdict(self) -> str:
        """aim, must or missed; empty where there is no target."""
        if self.lost:
            return "missed"
        if self.target is None:
            return ""
        measured = self.value if self.target.of == "value" else self.ratio
        return "not measured" if measured is None else self.target.verdict(measured)


def sign(number: float | None) -> str:
    """Three digits that matter, with thousands apart: 0.0123, 4.56, 78,900."""
    if number is None:
        return "–"
    if number == 0 or abs(number) >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:.3g}"
