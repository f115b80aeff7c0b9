"""The compiled loops of the engine's own handlers: statistics without code, and alerts with hysteresis."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn.engine import types
from edgefn.engine.jit import compiled

N, MEAN, MIN, MAX, SUM, STD, FIRST, LAST, PERCENTILE = range(9)
_CODES = {"n": N, "mean": MEAN, "min": MIN, "max": MAX, "sum": SUM, "std": STD, "first": FIRST, "last": LAST}

_i64, _f64 = types.int64, types.float64


def code(stat: str) -> int:
    """The number of a statistic: percentile p is PERCENTILE + p."""
    return PERCENTILE + 50 if stat == "median" else _CODES[stat] if stat in _CODES else PERCENTILE + int(stat[1:])


@compiled(
    types.void(_i64, types.int64[::1], types.int64[::1], types.float64[:, ::1], types.int64[::1], types.float64[:, ::1])
)
def summarize(n: int, offset: Any, length: Any, columns: Any, codes: Any, out: Any) -> None:
    """Row w of `out` gets each statistic of each column's samples in segment w. The std is that of the population."""
    longest = 0
    for w in range(n):
        longest = max(longest, length[w])
    ordered = np.empty(longest)
    for w in range(n):
        a, count = offset[w], length[w]
        at = 0
        for f in range(columns.shape[0]):
            low, high, total = columns[f, a], columns[f, a], 0.0
            for i in range(a, a + count):
                x = columns[f, i]
                low, high, total = min(low, x), max(high, x), total + x
            mean = total / count
            is_ordered = False
            for c in codes:
                if c == N:
                    value = float(count)
                elif c == MEAN:
                    value = mean
                elif c == MIN:
                    value = low
                elif c == MAX:
                    value = high
                elif c == SUM:
                    value = total
                elif c == FIRST:
                    value = columns[f, a]
                elif c == LAST:
                    value = columns[f, a + count - 1]
                elif c == STD:
                    squares = 0.0
                    for i in range(a, a + count):
                        squares += (columns[f, i] - mean) ** 2
                    value = np.sqrt(squares / count)
                else:
                    if not is_ordered:
                        ordered[:count] = columns[f, a : a + count]
                        ordered[:count].sort()
                        is_ordered = True
                    # Linear interpolation, as numpy's percentile does by default.
                    position = (count - 1) * (c - PERCENTILE) / 100.0
                    below = int(position)
                    above = min(below + 1, count - 1)
                    value = ordered[below] + (position - below) * (ordered[above] - ordered[below])
                out[at, w] = value
                at += 1


@compiled(
    _i64(
        _i64,
        types.int32[::1],
        types.float64[::1],
        types.int32[::1],
        types.uint8[::1],
        _f64,
        _f64,
        types.int32[::1],
        types.float64[::1],
    )
)
def alerts(
    n: int, sel: Any, score: Any, key: Any, active: Any, threshold: float, clear: float, changed: Any, raised: Any
) -> int:
    """Turns scores into changes: raised at `threshold`, cleared below `clear`. Writes the numbers i of the rows that change
    and whether the alert is raised from there on. A score that is not a number changes nothing.
    """
    m = 0
    # Most of the time nothing is raised, and nothing is to be: two looks that cost next to nothing.
    if active.size <= n:
        raising = 0
        for k in range(active.size):
            raising |= active[k] != 0
        for i in range(n):
            raising |= score[i] >= threshold
        if raising == 0:
            return 0
    for i in range(n):
        k = key[sel[i]]
        if (active[k] == 0 and score[i] >= threshold) or (active[k] == 1 and score[i] < clear):
            active[k] = 1 - active[k]
            changed[m] = i
            raised[m] = active[k]
            m += 1
    return m


@compiled(types.void(_i64, types.int32[::1], types.int32[::1], types.boolean[::1]))
def mark(n: int, sel: Any, key: Any, flags: Any) -> None:
    """Sets the flag of every key of the selected rows. Rows of one key often follow one another."""
    last = np.int32(-1)
    for i in range(n):
        k = key[sel[i]]
        if k != last:
            flags[k] = True
            last = k


@compiled(types.void(_i64, types.int32[::1], types.int64[::1], _i64))
def stamp(n: int, key: Any, stamps: Any, with_: int) -> None:
    """Writes `with_` for every key of the first n rows."""
    last = np.int32(-1)
    for i in range(n):
        k = key[i]
        if k != last:
            stamps[k] = with_
            last = k
