"""Any sensor's series passes through the detector and comes out as a score in robust standard deviations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgefn.kernels.outliers import MAD_TO_SIGMA, in_sigmas
from edgefn.kernels.ring import Window, empty, make_window, push, window_mad, window_median
from edgefn.kernels.sample import is_sample

# How far one sample can pull the model, in standard deviations: noise beyond it is rarer than 1 in 300.
REACH = 3.0


@dataclass
class Detector:
    """Memory of `detect`: level and variance of the series, and the samples in a row that they do not explain."""

    level: float = 0.0
    var: float = 0.0
    last: float = 0.0
    n: int = 0  # samples the model rests on; 0 while there is none
    unexplained: Window = field(default_factory=lambda: make_window(15))


def detect(state: Detector, x: float, alpha: float = 0.05, floor: float = 1e-9) -> float:
    """How many robust standard deviations x lies from what the series has been doing: |x - level| / σ.

    Robust exponential smoothing (Gelper, Fried & Croux 2010): level += alpha e and σ² += g (e² - σ²), where
    the error e = x - level is cut off at ±3 σ (Huber 1964), so that a spike moves neither much. The gain g is
    alpha / 4, and 1 / n while the model rests on few samples.

    - Warm-up: the first 15 samples score 0; their median and MAD are the first model, so a bad first reading
      does no harm.
    - A shift of level scores high at once and is followed slowly; after 15 samples in a row beyond 3 σ their
      median and MAD become the model. The size of the window says how many: give the field of your dataclass
      `default_factory=lambda: Detector(unexplained=make_window(25))`.
    - Readings equal to the one before do not shrink σ: a sensor of coarse resolution repeats itself however
      noisy it is.
    - A series that never varied has no σ: its first different value is scored against `floor`.

    alpha: the weight of the newest sample. floor: the smallest σ believed in, in the unit of x; the sensor's
    resolution is a good value. Alert at 4 to 6, clear at 2 to 3. NaN or inf: answers NaN, remembers nothing.
    """
    if not is_sample(x):
        return math.nan
    unexplained = state.unexplained
    sigma = max(math.sqrt(state.var), floor)
    score = 0.0
    if state.n > 0 or unexplained.n == unexplained.ring.size:
        score = in_sigmas(x - state.level, sigma, floor, state.level)
    if state.n > 0:
        state.n += 1
        error = min(max(x - state.level, -REACH * sigma), REACH * sigma)
        state.level += alpha * error
        if x != state.last:
            state.var += max(0.25 * alpha, 1.0 / state.n) * (error * error - state.var)
    state.last = float(x)
    if state.n > 0 and score <= REACH:
        empty(unexplained)
    else:
        push(unexplained, x)
        if unexplained.n == unexplained.ring.size:
            _adopt(state)
    return score


def _adopt(state: Detector) -> None:
    """Makes the collected samples the model; where most are equal the MAD is 0, and the RMS distance serves.

    Where all are equal there is no model yet, and the window goes on collecting.
    """
    unexplained = state.unexplained
    level = window_median(unexplained)
    sigma = MAD_TO_SIGMA * window_mad(unexplained)
    if sigma == 0.0:
        total = 0.0
        for i in range(unexplained.n):
            distance = unexplained.ring[i] - level
            total += distance * distance
        sigma = math.sqrt(total / unexplained.n)
    state.level = level
    state.var = sigma * sigma
    if sigma > 0.0:
        state.n = unexplained.n
        empty(unexplained)
    else:
        state.n = 0
