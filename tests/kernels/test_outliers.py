"""What scores promise beyond their references."""

from __future__ import annotations

import math

import numpy as np

from edgefn.kernels import Ewmv, hampel, make_window, moving_zscore, zscore


def test_a_score_is_zero_until_enough_is_known() -> None:
    state, window = Ewmv(), make_window(4)
    assert [zscore(state, x, warmup=3) for x in (1.0, 99.0, 1.0)] == [0.0, 0.0, 0.0]
    assert [hampel(window, x) for x in (1.0, 99.0, 1.0, 50.0)] == [0.0] * 4
    assert zscore(Ewmv(), 5.0, warmup=0) == 0.0


def test_a_fall_scores_as_high_as_a_rise() -> None:
    up, down = make_window(5), make_window(5)
    for x in (1.0, 2.0, 3.0, 4.0, 5.0):
        hampel(up, x)
        hampel(down, -x)
    assert hampel(up, 50.0) == hampel(down, -50.0) > 20


def test_a_sample_is_not_in_its_own_yardstick() -> None:
    """With x among the seven, no z-score could exceed 6 / sqrt(7) = 2.3 however wild x is (Shiffler 1988)."""
    window = make_window(7)
    for x in (20.0, 20.1, 19.9, 20.0, 20.1, 19.9, 20.0):
        moving_zscore(window, x)
    assert moving_zscore(window, 1000.0) > 1000


def test_the_first_move_of_a_constant_series_scores_high_but_finite() -> None:
    window = make_window(5)
    for _ in range(5):
        hampel(window, 20.0)
    assert 1e6 < hampel(window, 20.0625) < math.inf


def test_the_resolution_of_the_sensor_as_floor_keeps_its_last_bit_quiet() -> None:
    window = make_window(5)
    for _ in range(5):
        hampel(window, 20.0, 0.0625)
    assert hampel(window, 20.0625, 0.0625) == 1.0


def test_the_last_bit_of_a_large_number_is_no_outlier() -> None:
    window = make_window(5)
    for _ in range(5):
        moving_zscore(window, 1e9)
    assert moving_zscore(window, np.nextafter(1e9, 2e9)) < 1


def test_no_floor_at_all_gives_infinity_and_no_division_by_zero() -> None:
    window = make_window(1)
    hampel(window, 0.0, 0.0)
    assert hampel(window, 1.0, 0.0) == math.inf
