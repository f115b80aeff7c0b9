"""The last few samples pass through a `Window`: a ring in order of arrival, and the same samples in order of size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgefn.kernels.sample import Floats


@dataclass
class Window:
    """The last `ring.size` samples. One window serves one kernel: each call puts a sample in.

    Keeping the samples sorted as well costs 8 bytes each and saves a sort and an allocation per event.
    """

    ring: Floats = field(default_factory=lambda: np.zeros(7))
    ordered: Floats = field(default_factory=lambda: np.zeros(7))
    n: int = 0  # samples held
    at: int = 0  # where the next one goes


def make_window(size: int) -> Window:
    """An empty window of `size` samples, for tests and for dataclasses written by hand."""
    if size < 1:
        raise ValueError(f"window({size}): a window holds at least one sample; write window(1) or more")
    return Window(np.zeros(size), np.zeros(size))


def window(size: int) -> Any:
    """A dataclass field that holds a `Window` of `size` samples: `recent: Window = window(9)`."""
    make_window(size)  # a wrong size is an error here, where the author wrote it
    return field(default_factory=lambda: make_window(size))


def push(state: Window, x: float) -> None:
    """Puts x in; a full window lets its oldest sample go. x must satisfy `is_sample`. O(size)."""
    ring = state.ring
    ordered = state.ordered
    hole = state.n
    if state.n == ring.size:
        oldest = ring[state.at]
        hole = 0
        while ordered[hole] != oldest:
            hole += 1
    else:
        state.n += 1
    ring[state.at] = x
    state.at = (state.at + 1) % ring.size
    while hole > 0 and ordered[hole - 1] > x:
        ordered[hole] = ordered[hole - 1]
        hole -= 1
    while hole < state.n - 1 and ordered[hole + 1] < x:
        ordered[hole] = ordered[hole + 1]
        hole += 1
    ordered[hole] = x


def empty(state: Window) -> None:
    """Lets all samples go."""
    state.n = 0
    state.at = 0


def window_median(state: Window) -> float:
    """The median of the samples held; NaN when there are none. O(1)."""
    if state.n == 0:
        return math.nan
    upper = state.ordered[state.n // 2]
    if state.n % 2 == 1:
        return float(upper)
    return float(0.5 * (state.ordered[state.n // 2 - 1] + upper))


def window_mad(state: Window) -> float:
    """The median distance of the samples held from their median; NaN when there are none. O(size).

    Distances grow outwards from the median on both sides, so merging the two sides replaces the sort.
    """
    if state.n == 0:
        return math.nan
    ordered = state.ordered
    middle = window_median(state)
    right = state.n // 2
    left = right - 1
    previous = 0.0
    distance = 0.0
    for _ in range(state.n // 2 + 1):
        previous = distance
        if left < 0 or (right < state.n and ordered[right] - middle <= middle - ordered[left]):
            distance = float(ordered[right] - middle)
            right += 1
        else:
            distance = float(middle - ordered[left])
            left -= 1
    if state.n % 2 == 1:
        return distance
    return 0.5 * (previous + distance)


def window_mean(state: Window) -> float:
    """The mean of the samples held; NaN when there are none. O(size).

    Summing distances from the oldest sample keeps a constant series exact, whatever its level.
    """
    if state.n == 0:
        return math.nan
    origin = state.ring[0]
    total = 0.0
    for i in range(state.n):
        total += state.ring[i] - origin
    return float(origin + total / state.n)


def window_std(state: Window) -> float:
    """The standard deviation (divided by n) of the samples held; NaN when there are none. Two passes, O(size)."""
    if state.n == 0:
        return math.nan
    mean = window_mean(state)
    total = 0.0
    for i in range(state.n):
        distance = state.ring[i] - mean
        total += distance * distance
    return math.sqrt(total / state.n)
