"""Every kernel beside a naive numpy reference: one table, which feeds the plain tests and the compiled ones.

`STREAMS` holds the kernels that see one sample at a time, `ARRAYS` those that see an array. A reference may be slow and
may look at the whole series at once; it must be short enough to be believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.kernels import (
    Cusum,
    Deadband,
    Debounce,
    Detector,
    Ewma,
    Ewmv,
    PageHinkley,
    Rate,
    Sketch,
    Throttle,
    Window,
    band_energy,
    crest_factor,
    cusum,
    deadband,
    debounce,
    detect,
    ewma,
    ewmv,
    hampel,
    mad,
    moving_median,
    moving_zscore,
    page_hinkley,
    quantile,
    rate,
    rms,
    sketch,
    sketch_add,
    sketch_quantile,
    throttle,
    window,
    zscore,
)
from edgefn.kernels.sample import is_sample

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """A kernel of single samples: `call(state, x, ts)`, and `reference(xs, ts)` for a series without gaps."""

    name: str
    memory: type
    call: Callable[[Any, float, int], float]
    reference: Callable[[Floats, Times], Floats]
    rtol: float = 1e-9
    atol: float = 1e-9
    missing: str = "nan"  # the answer to NaN: "nan", "false", or "held", the answer before


@dataclass(frozen=True)
class Arrays:
    """A kernel of arrays: `call(values)`, and `reference(values)` for values that are not empty."""

    name: str
    call: Callable[[Floats], float]
    reference: Callable[[Floats], float]
    rtol: float = 1e-12


@dataclass
class Seven:
    recent: Window = window(7)


@dataclass
class Eight:
    recent: Window = window(8)


@dataclass
class Spread:
    sketch: Sketch = sketch(accuracy=0.01, unit=1.0, buckets=2048)


def weighted(xs: Floats, i: int, alpha: float) -> tuple[float, float]:
    """Mean and variance of xs[: i + 1] with the weights of the exponential average written out."""
    weights = alpha * (1 - alpha) ** np.arange(i, -1, -1.0)
    weights[0] = (1 - alpha) ** i
    mean = xs[0] + weights @ (xs[: i + 1] - xs[0])
    return float(mean), float(weights @ (xs[: i + 1] - mean) ** 2)


def sigmas(distance: float, sigma: float, level: float) -> float:
    return abs(distance) / max(sigma, 1e-9, 1e-14 * abs(level)) if distance else 0.0


def reference_ewma(xs: Floats, ts: Times) -> Floats:
    return np.array([weighted(xs, i, 0.3)[0] for i in range(xs.size)])


def reference_ewmv(xs: Floats, ts: Times) -> Floats:
    return np.array([weighted(xs, i, 0.3)[1] for i in range(xs.size)])


def reference_zscore(xs: Floats, ts: Times) -> Floats:
    scores = np.zeros(xs.size)
    for i in range(5, xs.size):
        mean, var = weighted(xs, i - 1, 0.1)
        scores[i] = sigmas(xs[i] - mean, math.sqrt(var), mean)
    return scores


def reference_median(size: int) -> Callable[[Floats, Times], Floats]:
    return lambda xs, ts: np.array([np.median(xs[max(0, i + 1 - size) : i + 1]) for i in range(xs.size)])


def reference_moving_zscore(xs: Floats, ts: Times) -> Floats:
    scores = np.zeros(xs.size)
    for i in range(7, xs.size):
        past = xs[i - 7 : i]
        mean = past[0] + np.mean(past - past[0])
        scores[i] = sigmas(xs[i] - mean, float(np.std(past - past[0])), mean)
    return scores


def reference_hampel(size: int) -> Callable[[Floats, Times], Floats]:
    def reference(xs: Floats, ts: Times) -> Floats:
        scores = np.zeros(xs.size)
        for i in range(size, xs.size):
            past = xs[i - size : i]
            middle = float(np.median(past))
            scores[i] = sigmas(xs[i] - middle, 1.4826022185056 * float(np.median(np.abs(past - middle))), middle)
        return scores

    return reference


def above_lowest(steps: Floats) -> Floats:
    """How far the running sum is above the lowest point it has had, the start included."""
    sums = np.cumsum(steps)
    return np.asarray(sums - np.minimum(np.minimum.accumulate(sums), 0.0))


def reference_cusum(xs: Floats, ts: Times) -> Floats:
    return np.maximum(above_lowest(xs - 20.0 - 0.5), above_lowest(20.0 - xs - 0.5))


def reference_page_hinkley(xs: Floats, ts: Times) -> Floats:
    means = xs[0] + np.cumsum(xs - xs[0]) / np.arange(1, xs.size + 1)
    return np.maximum(above_lowest(xs - means - 0.5), above_lowest(means - xs - 0.5))


def reference_rate(xs: Floats, ts: Times) -> Floats:
    return np.concatenate([[0.0], np.diff(xs) / (np.diff(ts) / 1e9)])


def reference_deadband(xs: Floats, ts: Times) -> Floats:
    passed = [0]
    for i in range(1, xs.size):
        if abs(xs[i] - xs[passed[-1]]) > 0.5:
            passed.append(i)
    return np.isin(np.arange(xs.size), passed).astype(float)


def reference_throttle(xs: Floats, ts: Times) -> Floats:
    passed = [0]
    for i in range(1, ts.size):
        if ts[i] - ts[passed[-1]] >= 3_000_000_000:
            passed.append(i)
    return np.isin(np.arange(ts.size), passed).astype(float)


def reference_debounce(xs: Floats, ts: Times) -> Floats:
    on = xs > 20.0

    def steady(i: int) -> bool:
        """The level of the latest stretch that held for 1.5 s, looking back from sample i."""
        for last in range(i, -1, -1):
            first = last
            while first > 0 and on[first - 1] == on[last]:
                first -= 1
            if ts[last] - ts[first] >= 1_500_000_000:
                return bool(on[last])
        return bool(on[0])

    return np.array([float(steady(i)) for i in range(xs.size)])


def reference_detect(xs: Floats, ts: Times) -> Floats:
    scores = np.zeros(xs.size)
    level = var = 0.0
    n = 0
    collected: list[float] = []
    for i, x in enumerate(xs):
        model = var > 0.0
        sigma = max(math.sqrt(var), 1e-9)
        if model or len(collected) == 15:
            scores[i] = sigmas(x - level, sigma, level)
        if model:
            n += 1
            error = float(np.clip(x - level, -3 * sigma, 3 * sigma))
            level += 0.05 * error
            if x != xs[i - 1]:
                var += max(0.0125, 1 / n) * (error**2 - var)
        if model and scores[i] <= 3:
            collected = []
            continue
        collected = [*collected, float(x)][-15:]
        if len(collected) == 15:
            level = float(np.median(collected))
            distances = np.abs(np.array(collected) - level)
            var = float(1.4826022185056 * np.median(distances)) ** 2 or float(np.mean(distances**2))
            n = 15
            if var > 0.0:
                collected = []
    return scores


def reference_sketch(xs: Floats, ts: Times) -> Floats:
    return np.array([np.quantile(xs[: i + 1], 0.9, method="lower") for i in range(xs.size)])


def spread(state: Any, x: float, ts: int) -> float:
    sketch_add(state.sketch, x)
    if not is_sample(x):
        return math.nan
    return sketch_quantile(state.sketch, 0.9)


STREAMS = [
    Stream("ewma", Ewma, lambda state, x, ts: ewma(state, x, 0.3), reference_ewma),
    Stream("ewmv", Ewmv, lambda state, x, ts: ewmv(state, x, 0.3), reference_ewmv),
    Stream("zscore", Ewmv, lambda state, x, ts: zscore(state, x, 0.1, 5), reference_zscore),
    Stream("moving_median, odd", Seven, lambda state, x, ts: moving_median(state.recent, x), reference_median(7)),
    Stream("moving_median, even", Eight, lambda state, x, ts: moving_median(state.recent, x), reference_median(8)),
    Stream("moving_zscore", Seven, lambda state, x, ts: moving_zscore(state.recent, x), reference_moving_zscore),
    Stream("hampel, odd", Seven, lambda state, x, ts: hampel(state.recent, x), reference_hampel(7)),
    Stream("hampel, even", Eight, lambda state, x, ts: hampel(state.recent, x), reference_hampel(8)),
    Stream("cusum", Cusum, lambda state, x, ts: cusum(state, x, 20.0, 0.5), reference_cusum),
    Stream("page_hinkley", PageHinkley, lambda state, x, ts: page_hinkley(state, x, 0.5), reference_page_hinkley),
    Stream("rate", Rate, lambda state, x, ts: rate(state, x, ts), reference_rate),
    Stream("deadband", Deadband, lambda state, x, ts: deadband(state, x, 0.5), reference_deadband, missing="false"),
    Stream(
        "debounce", Debounce, lambda s, x, ts: debounce(s, x * (x > 20.0), ts, 1.5), reference_debounce, missing="held"
    ),
    Stream("detect", Detector, lambda state, x, ts: detect(state, x), reference_detect),
    # |error| ≤ a · sqrt(v² + unit²) ≤ a · |v| + a · unit
    Stream("sketch_quantile", Spread, spread, reference_sketch, rtol=0.01, atol=0.01),
]

# Throttle does not look at the sample, so a NaN is an event like any other.
GATES_OF_TIME = [Stream("throttle", Throttle, lambda state, x, ts: throttle(state, ts, 3.0), reference_throttle)]


def reference_band(low: float, high: float) -> Callable[[Floats], float]:
    def reference(values: Floats) -> float:
        n = values.size
        mean = values[0] + np.mean(values - values[0])
        power = np.abs(np.fft.rfft(values - mean)) ** 2 / n**2
        power[0] = mean**2
        lines = np.fft.rfftfreq(n, 1 / 1000.0)
        power[(lines > 0) & (lines < 500.0)] *= 2
        return float(power[(lines >= low - 1e-9) & (lines <= high + 1e-9)].sum())

    return reference


def reference_mad(values: Floats) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def reference_rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


ARRAYS = [
    Arrays("quantile 0", lambda values: quantile(values, 0.0), lambda values: float(np.quantile(values, 0.0)), 0.0),
    Arrays("quantile 1/3", lambda values: quantile(values, 1 / 3), lambda v: float(np.quantile(v, 1 / 3)), 0.0),
    Arrays("quantile 0.95", lambda values: quantile(values, 0.95), lambda v: float(np.quantile(v, 0.95)), 0.0),
    Arrays("quantile 1", lambda values: quantile(values, 1.0), lambda values: float(np.quantile(values, 1.0)), 0.0),
    Arrays("mad", lambda values: mad(values), reference_mad),
    Arrays("rms", lambda values: rms(values), reference_rms),
    Arrays(
        "crest_factor",
        lambda values: crest_factor(values),
        lambda values: float(np.max(np.abs(values)) / reference_rms(values)),
    ),
    Arrays("band_energy", lambda values: band_energy(values, 1000.0, 50.0, 200.0), reference_band(50, 200), 1e-9),
    Arrays("band_energy, all", lambda values: band_energy(values, 1000.0, 0.0, 500.0), reference_band(0, 500), 1e-9),
]
