"""What smoothing promises beyond its reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from edgefn.kernels import Ewma, Ewmv, Window, ewma, ewmv, hampel, make_window, moving_median, window
from tests.kernels import compiled


def test_the_first_sample_is_the_first_mean() -> None:
    assert ewma(Ewma(), 21.5) == 21.5


def test_a_constant_series_comes_back_exactly_and_has_no_variance() -> None:
    mean, var = Ewma(), Ewmv()
    for _ in range(1000):
        assert ewma(mean, 0.1, 0.3) == 0.1
        assert ewmv(var, 1e9 + 0.1, 0.3) == 0.0


def test_nan_leaves_no_trace() -> None:
    state = Ewma()
    ewma(state, 20.0)
    assert np.isnan(ewma(state, np.nan))
    assert state == Ewma(20.0, 1)


def test_a_spike_shorter_than_half_the_window_does_not_come_through_the_median() -> None:
    recent = make_window(5)
    assert [moving_median(recent, x) for x in (1.0, 1.0, 99.0, 99.0, 1.0, 1.0)] == [1.0, 1.0, 1.0, 50.0, 1.0, 1.0]


def test_a_window_holds_at_least_one_sample() -> None:
    with pytest.raises(ValueError, match=r"window\(0\).*at least one"):
        window(0)


@dataclass
class Memory:
    smooth: Ewma = field(default_factory=Ewma)
    recent: Window = window(7)


def test_kernels_are_chained_as_a_handler_chains_them() -> None:
    def spike(state: Memory, temperature: float, ts: int) -> float:
        return hampel(state.recent, ewma(state.smooth, temperature))

    xs = np.r_[np.random.default_rng(0).normal(20.0, 0.1, 50), 35.0]
    scores = compiled.stream(Memory, spike, xs, np.arange(51))
    assert scores[-1] > 10 > scores[:-1].max()
    np.testing.assert_array_equal(scores, compiled.plain(Memory, spike, xs, np.arange(51)))
