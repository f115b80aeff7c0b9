"""Samples pass through these kernels and come out as scores: standard deviations from the usual, never negative."""

from __future__ import annotations

import math

import numpy as np

from edgefn.kernels.quantiles import quantile
from edgefn.kernels.ring import Window, push, window_mad, window_mean, window_median, window_std
from edgefn.kernels.sample import Floats, is_sample
from edgefn.kernels.smoothing import Ewmv, ewmv

# 1 / Φ⁻¹(3/4): turns the median distance of normally distributed samples into their standard deviation.
MAD_TO_SIGMA = 1.482602218505602


def in_sigmas(distance: float, sigma: float, floor: float, level: float) -> float:
    """|distance| / sigma, sigma being at least `floor` and at least what rounding does to numbers like `level`.

    So a constant series scores 0, the first different value scores high but finite, and the last bit of 1e9
    is no outlier.
    """
    if distance == 0.0:
        return 0.0
    sigma = max(max(sigma, floor), 1e-14 * abs(level))  # numba compiles max of three more slowly
    if sigma == 0.0:
        return math.inf
    return abs(distance) / sigma


def zscore(state: Ewmv, x: float, alpha: float = 0.05, warmup: int = 20, floor: float = 1e-9) -> float:
    """|x - mean| / σ, both exponentially weighted over the samples before x (Roberts 1959; West 1979; see `ewmv`).

    alpha: the weight of the newest sample. warmup: so many samples score 0 while the variance is learnt.
    floor: the smallest σ believed in, in the unit of x; set it to the resolution of the sensor. Outliers
    enter the mean and the variance; `hampel` and `detect` withstand them. NaN or inf: answers NaN, remembers
    nothing.
    """
    if not is_sample(x):
        return math.nan
    score = 0.0
    if state.n >= warmup and state.n > 0:
        score = in_sigmas(x - state.mean, math.sqrt(state.var), floor, state.mean)
    ewmv(state, x, alpha)
    return score


def moving_zscore(state: Window, x: float, floor: float = 1e-9) -> float:
    """|x - mean| / σ against the last n samples before x, n being the size of the window; σ is divided by n.

    x is left out of its own yardstick: with it, no score could exceed (n - 1) / sqrt(n) (Shiffler 1988).
    Computed in two passes over the window, so it does not drift and near-equal values at a high level keep
    their digits. floor: the smallest σ believed in, in the unit of x. Scores 0 until the window is full. NaN
    or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    score = 0.0
    if state.n == state.ring.size:
        mean = window_mean(state)
        score = in_sigmas(x - mean, window_std(state), floor, mean)
    push(state, x)
    return score


def hampel(state: Window, x: float, floor: float = 1e-9) -> float:
    """|x - median| / (1.4826 MAD) against the last n samples before x, n being the size of the window (Hampel 1974).

    MAD is the median distance from the median: up to half the window may be outliers. x itself is not in its
    own yardstick. floor: the smallest σ believed in, in the unit of x; where more than half of the readings
    are equal the MAD is 0 and the floor decides, so set it to the resolution of the sensor. Scores 0 until
    the window is full. NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    score = 0.0
    if state.n == state.ring.size:
        median = window_median(state)
        score = in_sigmas(x - median, MAD_TO_SIGMA * window_mad(state), floor, median)
    push(state, x)
    return score


def mad(values: Floats) -> float:
    """The median of |values - median(values)|, in the unit of the values; times 1.4826 it is a robust σ (Hampel 1974).

    values: one dimension. NaN where one of them is NaN or there are none.
    """
    middle = quantile(values, 0.5)
    distances = np.empty(values.size)
    for i in range(values.size):
        distances[i] = abs(float(values[i]) - middle)
    return quantile(distances, 0.5)
