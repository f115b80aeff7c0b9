"""Samples pass through here and come out as quantiles: exact ones of an array, near ones of a stream of any length."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgefn.kernels.sample import Floats, is_sample


@dataclass
class Sketch:
    """Counts of samples in buckets that are narrow near zero and wide far from it; see `sketch_add`.

    accuracy and unit state the error at the start; each fold halves the number of buckets in use.
    """

    counts: Floats = field(default_factory=lambda: np.zeros(128))  # bucket k is counts[k % size]
    accuracy: float = 0.01
    unit: float = 1.0
    folds: int = 0
    low: int = 0  # the first and the last bucket in use
    high: int = 0
    n: int = 0
    least: float = 0.0
    most: float = 0.0


def sketch(accuracy: float = 0.01, unit: float = 1.0, buckets: int = 128) -> Any:
    """A dataclass field that holds a `Sketch`: `spread: Sketch = sketch(accuracy=0.01, unit=0.1)`. 8 bytes a bucket."""
    if not (0 < accuracy < 1 and unit > 0 and buckets >= 2):
        raise ValueError(
            f"sketch(accuracy={accuracy}, unit={unit}, buckets={buckets}): "
            "accuracy lies between 0 and 1, unit is positive, and there are at least 2 buckets"
        )
    return field(default_factory=lambda: Sketch(np.zeros(buckets), accuracy, unit))


def quantile(values: Floats, q: float) -> float:
    """The q-quantile with linear interpolation, to the last bit what np.quantile says (Hyndman & Fan 1996, type 7).

    values: one dimension, left as they are. q: 0 to 1; NaN outside. NaN where a value is NaN, where an
    infinity would have to be interpolated (as numpy), and where there are no values. O(n): compiling
    np.quantile takes seconds, this does not.
    """
    n = values.size
    if n == 0 or not 0.0 <= q <= 1.0:
        return math.nan
    work = np.empty(n)
    for i in range(n):
        if values[i] != values[i]:
            return math.nan
        work[i] = values[i]
    place = (n - 1) * q
    k = int(place)
    _select(work, k)
    below = work[k]
    above = below
    if k + 1 < n:
        above = work[k + 1]
        for i in range(k + 2, n):
            above = min(above, work[i])
    weight = place - k
    gap = above - below
    # numpy measures from the nearer neighbour, which decides the last bit.
    if weight >= 0.5:
        return float(above - gap * (1.0 - weight))
    return float(below + gap * weight)


def _select(work: Floats, k: int) -> None:
    """Reorders work so that work[k] is where sorting would put it, nothing larger before it (Hoare 1961, FIND)."""
    left = 0
    right = work.size - 1
    while left < right:
        pivot = work[k]
        i = left
        j = right
        while i <= j:
            while work[i] < pivot:
                i += 1
            while pivot < work[j]:
                j -= 1
            if i <= j:
                swap = work[i]
                work[i] = work[j]
                work[j] = swap
                i += 1
                j -= 1
        if j < k:
            left = i
        if k < i:
            right = j


def sketch_add(state: Sketch, x: float) -> None:
    """Counts x. NaN or inf is not counted.

    The bucket of x is floor(asinh(x / unit) / width), width = 2 ln(1 + accuracy) 2^folds: DDSketch's
    logarithmic buckets (Masson et al. 2019) with asinh in place of the logarithm, so that zero and negative
    values need no store of their own. When the samples span more buckets than there are, neighbours are
    folded together (UDDSketch, Epicoco et al. 2020).
    """
    if not is_sample(x):
        return
    if state.n == 0:
        state.least = float(x)
        state.most = float(x)
    state.least = min(state.least, float(x))
    state.most = max(state.most, float(x))
    width = 2.0 * math.log1p(state.accuracy) * 2.0**state.folds
    _count(state, math.floor(math.asinh(x / state.unit) / width), state.folds, 1)


def _count(state: Sketch, bucket: int, folds: int, times: int) -> None:
    """Counts into a bucket that was numbered after so many folds."""
    size = state.counts.size
    bucket >>= state.folds - folds
    if state.n == 0:
        state.low = bucket
        state.high = bucket
    while max(state.high, bucket) - min(state.low, bucket) >= size:
        _fold(state)
        bucket >>= 1
    state.low = min(state.low, bucket)
    state.high = max(state.high, bucket)
    state.counts[bucket % size] += times
    state.n += times


def _fold(state: Sketch) -> None:
    """Makes buckets 2k and 2k + 1 one bucket."""
    size = state.counts.size
    before = np.empty(size)
    for i in range(size):
        before[i] = state.counts[i]
        state.counts[i] = 0.0
    for bucket in range(state.low, state.high + 1):
        state.counts[(bucket >> 1) % size] += before[bucket % size]
    state.low >>= 1
    state.high >>= 1
    state.folds += 1


def sketch_error(state: Sketch) -> float:
    """The accuracy a that holds now: a quantile is within a · sqrt(v² + unit²) of the sample v that it stands for.

    So the error is a · |v| far from zero and a · unit near it. Begins at `accuracy`; f folds make it (1 +
    accuracy)^(2^f) - 1. 128 buckets at 1 % hold samples within a factor of 12 of each other without a fold.
    """
    return math.expm1(math.log1p(state.accuracy) * 2.0**state.folds)


def sketch_quantile(state: Sketch, q: float) -> float:
    """The sample at rank floor(q (n - 1)), within the error of `sketch_error`; never outside the samples seen.

    q: 0 to 1; NaN outside, and where nothing was counted. A constant series comes back exactly.
    """
    if state.n == 0 or not 0.0 <= q <= 1.0:
        return math.nan
    rank = math.floor(q * (state.n - 1))
    if rank == 0:
        return state.least
    if rank == state.n - 1:
        return state.most
    width = 2.0 * math.log1p(state.accuracy) * 2.0**state.folds
    bucket = state.low
    seen = state.counts[bucket % state.counts.size]
    while seen <= rank and bucket < state.high:
        bucket += 1
        seen += state.counts[bucket % state.counts.size]
    value = state.unit * math.sinh((bucket + 0.5) * width)
    return min(max(value, state.least), state.most)


def sketch_merge(state: Sketch, other: Sketch) -> None:
    """Adds what `other` has counted; the error becomes at most that of one sketch that saw everything.

    Raises ValueError where accuracy or unit differ.
    """
    if state.accuracy != other.accuracy or state.unit != other.unit:
        raise ValueError("only sketches of the same accuracy and unit can be merged")
    if other.n == 0:
        return
    if state.n == 0:
        state.least = other.least
        state.most = other.most
    state.least = min(state.least, other.least)
    state.most = max(state.most, other.most)
    while state.folds < other.folds:
        _fold(state)
    for bucket in range(other.low, other.high + 1):
        times = int(other.counts[bucket % other.counts.size])
        if times > 0:
            _count(state, bucket, other.folds, times)


def sketch_clear(state: Sketch) -> None:
    """Forgets everything counted, for instance at midnight; accuracy and unit stay."""
    for i in range(state.counts.size):
        state.counts[i] = 0.0
    state.folds = 0
    state.n = 0
