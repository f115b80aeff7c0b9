"""Durations as people write them (`"500ms"`, `"1m30s"`, `"7d"`), in nanoseconds."""

from __future__ import annotations

import re

UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 86400 * 1_000_000_000,
    "w": 7 * 86400 * 1_000_000_000,
}
MAX = 100 * 366 * UNITS["d"]

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|h|d|w)")


def parse(value: str | float) -> int:
    """Nanoseconds of `"1m30s"`, or of a number of seconds. Raises ValueError for anything else, and past a century."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is not a duration; write one such as '500ms', '10s', '1m30s' or '7d'")
    if isinstance(value, (int, float)):
        total = value * UNITS["s"]
    else:
        text = value.strip()
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text).strip():
            raise ValueError(f"{value!r} is not a duration; write one such as '500ms', '10s', '1m30s' or '7d'")
        total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not 0 <= total <= MAX:
        raise ValueError(f"{value!r} is out of range; a duration is between 0 and a century")
    return round(total)


def show(ns: int) -> str:
    """The shortest way to write it: show(90_000_000_000) == "1m30s"."""
    if ns == 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
        n, ns = divmod(ns, UNITS[unit])
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts)
