"""A series passes through these kernels and comes out as evidence that it has moved, or how fast it moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgefn.kernels.sample import is_sample


@dataclass
class Cusum:
    """Memory of `cusum`: the evidence, in the unit of x, that the level is above or below the target."""

    high: float = 0.0
    low: float = 0.0


@dataclass
class PageHinkley:
    """Memory of `page_hinkley`: level, evidence of a rise and of a fall (unit of x), number of samples."""

    mean: float = 0.0
    high: float = 0.0
    low: float = 0.0
    n: int = 0


@dataclass
class Rate:
    """Memory of `rate`: the last sample, its time in ns, the last rate per second, the number of samples."""

    x: float = 0.0
    ts: int = 0
    rate: float = 0.0
    n: int = 0


def cusum(state: Cusum, x: float, target: float, slack: float, limit: float = math.inf) -> float:
    """The larger of the two one-sided cumulative sums, in the unit of x (Page 1954).

    high = max(0, high + x - target - slack);  low = max(0, low + target - x - slack)

    target: the level that should be. slack: the deviation that is forgiven at each sample, usually half of
    the shift to be found. Compare the answer with a threshold of 4 to 5 standard deviations. limit: the sums
    stop growing there; twice the threshold lets an alert clear soon after the level is back. Starts at 0; a
    constant series at the target stays there. NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    state.high = min(limit, max(0.0, state.high + (x - target - slack)))
    state.low = min(limit, max(0.0, state.low + (target - x - slack)))
    return max(state.high, state.low)


def page_hinkley(state: PageHinkley, x: float, slack: float, span: float = 1000.0, limit: float = math.inf) -> float:
    """`cusum` that learns its target: evidence, in the unit of x, that the mean has moved (Page 1954; Hinkley 1971).

    n += 1;  mean += (x - mean) / min(n, span);  high = max(0, high + x - mean - slack);  low likewise

    which is the textbook m_n - min(m_1 … m_n) without its ever-growing sum. slack: as in `cusum`. span: the
    mean is that of all samples until there are so many, and forgets after that; inf never forgets. limit: as
    in `cusum`. The first sample and a constant series give 0. NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    state.n += 1
    state.mean += (x - state.mean) / min(float(state.n), span)
    state.high = min(limit, max(0.0, state.high + (x - state.mean - slack)))
    state.low = min(limit, max(0.0, state.low + (state.mean - x - slack)))
    return max(state.high, state.low)


def rate(state: Rate, x: float, ts: int) -> float:
    """(x - previous x) / (ts - previous ts): the backward difference quotient, per second.

    ts: ns since the epoch. The first sample gives 0, a constant series too. Two samples at one time: the
    second is ignored and the last rate is given again. Time that goes back (a late event, a clock set right)
    starts afresh from this sample with the last rate. NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    elapsed = ts - state.ts
    if state.n > 0 and elapsed == 0:
        return state.rate
    if state.n > 0 and elapsed > 0:
        state.rate = (x - state.x) / (elapsed * 1e-9)
    state.x = float(x)
    state.ts = ts
    state.n += 1
    return state.rate
