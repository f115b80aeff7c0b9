"""What change detectors and the rate promise beyond their references."""

from __future__ import annotations

import numpy as np

from edgefn.kernels import Cusum, PageHinkley, Rate, cusum, page_hinkley, rate

S = 1_000_000_000


def test_cusum_forgives_the_slack_and_adds_up_the_rest() -> None:
    state = Cusum()
    assert [cusum(state, x, 20.0, 0.5) for x in (20.5, 19.5, 21.0, 21.0, 22.0)] == [0.0, 0.0, 0.5, 1.0, 2.5]


def test_a_limit_lets_an_alert_clear_soon_after_a_long_fault() -> None:
    state = Cusum()
    for _ in range(100_000):
        cusum(state, 30.0, 20.0, 0.5, 10.0)
    assert state.high == 10.0
    assert cusum(state, 20.0, 20.0, 0.5, 10.0) == 9.5


def test_page_hinkley_finds_a_shift_whose_level_nobody_told_it() -> None:
    rng = np.random.default_rng(1)
    state = PageHinkley()
    quiet = [page_hinkley(state, x, 0.5) for x in rng.normal(20.0, 0.5, 500)]
    shifted = [page_hinkley(state, x, 0.5) for x in rng.normal(21.5, 0.5, 20)]
    assert max(quiet) < 5 < shifted[-1]


def test_page_hinkley_forgets_and_settles_on_the_new_level() -> None:
    state = PageHinkley()
    for x in [20.0] * 200 + [25.0] * 600:
        last = page_hinkley(state, x, 0.5, 50.0, 20.0)
    assert last == 0.0
    assert abs(state.mean - 25.0) < 0.01


class TestRate:
    def test_is_per_second_whatever_the_interval(self) -> None:
        state = Rate()
        assert rate(state, 10.0, 0) == 0.0
        assert rate(state, 11.0, S // 10) == 10.0
        assert rate(state, 11.0, 60 * S) == 0.0

    def test_nanoseconds_of_today_keep_their_digits(self) -> None:
        """1.7e18 as a float is exact to 256 ns only: times are subtracted as integers."""
        now = 1_700_000_000_123_456_789
        state = Rate()
        rate(state, 0.0, now)
        np.testing.assert_allclose(rate(state, 1.0, now + 100), 1e7, rtol=1e-12)

    def test_two_samples_at_one_time_do_not_divide_by_zero(self) -> None:
        state = Rate()
        rate(state, 0.0, 0)
        rate(state, 5.0, S)
        assert rate(state, 99.0, S) == 5.0
        assert rate(state, 6.0, 2 * S) == 1.0

    def test_a_clock_set_back_from_2099_to_1970_costs_one_sample(self) -> None:
        state = Rate()
        rate(state, 0.0, 4_070_908_800 * S)
        rate(state, 2.0, 4_070_908_801 * S)
        assert rate(state, 3.0, 0) == 2.0
        assert rate(state, 4.0, S) == 1.0

    def test_nan_leaves_no_trace(self) -> None:
        state = Rate()
        rate(state, 1.0, 0)
        assert np.isnan(rate(state, np.nan, S))
        assert rate(state, 5.0, 2 * S) == 2.0
