"""A noisy series passes through these kernels and comes out smoother: exponential means, and the moving median."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgefn.kernels.ring import Window, push, window_median
from edgefn.kernels.sample import is_sample


@dataclass
class Ewma:
    """Memory of `ewma`: the mean, in the unit of the samples, and the number of samples."""

    mean: float = 0.0
    n: int = 0


@dataclass
class Ewmv:
    """Memory of `ewmv` and `zscore`: mean and variance (unit and unit squared), and the number of samples."""

    mean: float = 0.0
    var: float = 0.0
    n: int = 0


def ewma(state: Ewma, x: float, alpha: float = 0.1) -> float:
    """The exponentially weighted moving average: mean += alpha (x - mean) (Roberts 1959).

    alpha in (0, 1]: the weight of the newest sample; the memory is about 1 / alpha samples long.
    The first sample is the first mean, as in pandas' ewm(adjust=False). A constant series comes back exactly.
    NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    if state.n == 0:
        state.mean = float(x)
    else:
        state.mean += alpha * (x - state.mean)
    state.n += 1
    return state.mean


def ewmv(state: Ewmv, x: float, alpha: float = 0.1) -> float:
    """The exponentially weighted moving variance, in squared units; `state.mean` is the mean that goes with it.

    d = x - mean;  mean += alpha d;  var = (1 - alpha) (var + alpha d²)  (West 1979; Finch 2009)

    Never negative, and exact at any level: nothing large is subtracted from anything large. The first sample
    gives 0, as in pandas' ewm(adjust=False).var(bias=True). NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    if state.n == 0:
        state.mean = float(x)
    else:
        distance = x - state.mean
        state.mean += alpha * distance
        state.var = (1.0 - alpha) * (state.var + alpha * distance * distance)
    state.n += 1
    return state.var


def moving_median(state: Window, x: float) -> float:
    """The median of the last n samples, x included, n being the size of the window (Tukey 1977).

    Removes spikes shorter than half the window and keeps edges sharp. Until the window is full, the median of
    what there is. NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    push(state, x)
    return window_median(state)
