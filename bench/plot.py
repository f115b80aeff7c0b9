"""The figures of bench/results/latest.json as SVG, one file for each growth, readable on light and on dark pages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.rows import Curve, Figure, Panel, sign

WIDTH, HEIGHT = 420, 330  # of a panel, in px
LEFT, RIGHT, TOP, BOTTOM = 68, 34, 104, 66  # around what is drawn into
LINE = 17  # px from one line of text to the next

# A page shows the file as an image: it follows the reader's system, and brings its own background for all cases.
# Without variables of CSS, which converters to PNG do not know.
STYLE = """\
text { font: 12px system-ui, "DejaVu Sans", sans-serif }
.title { font-size: 16px; font-weight: 600 }
.panel { font-size: 13px; font-weight: 600 }
.soft { font-size: 11px; font-weight: 400 }
.value { font-size: 11px; paint-order: stroke; stroke-width: 3px; stroke-linejoin: round }
.curve { fill: none; stroke-width: 2 }
"""
COLOURS = """\
text { fill: INK }
.soft { fill: SOFT }
.paper { fill: PAPER }
.grid { stroke: GRID }
.curve.a, .bar.a { stroke: FIRST }
.curve.b, .bar.b { stroke: SECOND }
.dot.a, .value.a { fill: FIRST }
.dot.b, .value.b { fill: SECOND }
.value { stroke: PAPER }
"""
LIGHT = dict(INK="#1f2328", SOFT="#59636e", PAPER="#ffffff", GRID="#dde2e7", FIRST="#0969da", SECOND="#bc4c00")
DARK = dict(INK="#e6edf3", SOFT="#9aa3ad", PAPER="#0d1117", GRID="#2b323b", FIRST="#58a6ff", SECOND="#f0883e")


class NothingToPlotError(Exception):
    """There are no figures in the results. The message says how to get some."""


def write(results: Path, folder: Path) -> list[Path]:
    """Writes a file for each figure of the results. Raises NothingToPlotError where there is none."""
    found = json.loads(results.read_text()) if results.exists() else {"rows": []}
    figures = [figure(row["figure"]) for row in found["rows"] if row.get("figure")]
    if not figures:
        raise NothingToPlotError(f"{results} has no figures; measure some: python -m bench --only growth_keys")
    folder.mkdir(parents=True, exist_ok=True)
    repeats = 1 if found["options"]["quick"] else 3
    runs = "one run" if repeats == 1 else f"medians of {repeats} runs, the bars reach from the least to the most"
    caption = f"{found['ts'][:10]}; {found['machine']}; {runs}"
    written = []
    for one in figures:
        path = folder / f"{one.name}.svg"
        path.write_text(svg(one, caption))
        written.append(path)
    return written


def figure(stored: dict[str, Any]) -> Figure:
    """From what JSON has made of it."""
    panels = []
    for panel in stored["panels"]:
        curves = tuple(Curve(one["name"], tuple(map(tuple, one["points"]))) for one in panel["curves"])
        panels.append(Panel(panel["title"], panel["x"], panel["y"], curves, panel["log"]))
    return Figure(stored["name"], stored["title"], tuple(panels))


def svg(one: Figure, caption: str) -> str:
    """The text of the file."""
    # The caption does not fit under a single panel in one line.
    lines = caption.split("; ") if len(one.panels) == 1 else [caption]
    width, height = WIDTH * len(one.panels), HEIGHT + LINE * (len(lines) - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(one.title)}</title>",
        f"<style>\n{style()}</style>",
        f'<rect class="paper" width="{width}" height="{height}" rx="6"/>',
        _text(16, 28, one.title, "title"),
        *(_text(16, HEIGHT - 12 + LINE * i, line, "soft") for i, line in enumerate(lines)),
    ]
    for i, panel in enumerate(one.panels):
        parts += [f'<g transform="translate({WIDTH * i} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def style() -> str:
    """CSS for a light page, and for a dark one after it."""
    light, dark = (
        reduce(lambda text, name: text.replace(name, colours[name]), colours, COLOURS) for colours in (LIGHT, DARK)
    )
    return f"{STYLE}{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


class Scale:
    """From a number to its place between two px: linear from 0, or logarithmic."""

    def __init__(self, low: float, high: float, first: float, last: float, *, log: bool) -> None:
        self._low, self._high = (math.log10(low), math.log10(high)) if log else (low, high)
        self._first, self._last = first, last
        self._log = log

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self._log else value
        # A curve of one point has no span.
        share = (at - self._low) / ((self._high - self._low) or 1.0)
        return round(self._first + share * (self._last - self._first), 1)


def linear_ticks(high: float) -> list[float]:
    """From 0 on in steps of 1, 2 or 5 times a power of ten, three to six of them; the last is not below `high`."""
    power = 10.0 ** math.floor(math.log10(high / 3))
    step = next(power * n for n in (1, 2, 5, 10) if high / (power * n) <= 5)
    return [round(i * step, 12) for i in range(math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """The powers of ten around the two: two at least."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**n for n in range(first, max(last, first + 1) + 1)]


def _panel(panel: Panel) -> Iterator[str]:
    points = [point for curve in panel.curves for point in curve.points]
    xs = sorted({point[0] for point in points})
    low, high = min(point[2] for point in points), max(point[3] for point in points)
    ticks = log_ticks(low, high) if panel.log else linear_ticks(high)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = Scale(xs[0], xs[-1], LEFT + 22, right - 22, log=True)
    # A logarithmic axis has no zero to stand on: below its lowest point there has to be room for a label.
    y = Scale(ticks[0], ticks[-1], bottom - 18 if panel.log else bottom, TOP, log=panel.log)
    unit = f"{panel.y}, logarithmic" if panel.log else panel.y
    yield (
        f'<text x="16" y="56" class="panel">{escape(panel.title)}'
        f'<tspan class="soft" dx="8">{escape(unit)}</tspan></text>'
    )
    for tick in ticks:
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(tick)}" y2="{y(tick)}"/>'
        yield _text(LEFT - 8, y(tick) + 4, sign(tick), "soft", "end")
    for tick in xs:
        yield f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{bottom}" y2="{bottom + 5}"/>'
        yield _text(x(tick), bottom + 18, f"{tick:,.0f}", "soft", "middle")
    yield _text((LEFT + right) / 2, bottom + 34, f"{panel.x}, logarithmic", "soft", "middle")
    at = 16.0
    for colour, curve in zip("ab", panel.curves, strict=False):
        if len(panel.curves) > 1:
            yield f'<circle class="dot {colour}" cx="{at + 4}" cy="{74}" r="4"/>'
            yield _text(at + 13, 78, curve.name)
            at += 38 + 6.4 * len(curve.name)
        corners = " ".join(f"{x(point[0])},{y(point[1])}" for point in curve.points)
        yield f'<polyline class="curve {colour}" points="{corners}"/>'
        for value, middle, least, most in curve.points:
            yield f'<line class="bar {colour}" x1="{x(value)}" x2="{x(value)}" y1="{y(least)}" y2="{y(most)}"/>'
            yield f'<circle class="dot {colour}" cx="{x(value)}" cy="{y(middle)}" r="3.5"/>'
    # Last, so that no line crosses them.
    for colour, curve in zip("ab", panel.curves, strict=False):
        for value, middle, least, most in curve.points:
            above = middle >= max(point[1] for point in points if point[0] == value)
            place = y(most) - 8 if above else y(least) + 17
            yield _text(x(value), place, sign(middle), f"value {colour}", "middle")


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'
