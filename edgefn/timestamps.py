"""Timestamps as devices send them (s, ms, µs, ns since the epoch, ISO 8601), in nanoseconds since the epoch."""

from __future__ import annotations

import math
from datetime import UTC, datetime

# By magnitude: each unit owns the years 2001 to 2262, where int64 ends, and nothing lies between. A value outside, such as
# the 1970 of a device without a clock, is told from none of them and is not guessed at.
NS_MAX = 2**63 - 1
_UNITS = (
    ("s", 10**9, 10**10, 10**9),
    ("ms", 10**12, 10**13, 10**6),
    ("us", 10**15, 10**16, 10**3),
    ("ns", 10**18, NS_MAX, 1),
)


def to_ns(value: object, unit: str = "auto") -> int | None:
    """Nanoseconds of a number or an ISO 8601 text, None where it cannot be told for certain.

    A text without a zone is UTC. Fractions of seconds, milliseconds and microseconds are kept.
    """
    if isinstance(value, bool) or (unit != "auto" and isinstance(value, str) != (unit == "iso")):
        return None
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        for name, low, high, factor in _UNITS:
            # A unit that is known needs no guess: it may hold any year that int64 does.
            if (unit == name and 0 <= value * factor < NS_MAX) or (unit == "auto" and low <= value < high):
                whole = math.floor(value)
                ns = whole * factor + (round((value - whole) * factor) if isinstance(value, float) else 0)
                return ns if ns <= NS_MAX else None
        return None
    if isinstance(value, str) and len(value) <= 40:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
        ns = (delta.days * 86400 + delta.seconds) * 10**9 + delta.microseconds * 1000
        return ns if 10**18 <= ns <= NS_MAX else None
    return None


def to_iso(ns: int) -> str:
    """ISO 8601 in UTC with milliseconds, as it is shown to people."""
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
