"""What gates promise beyond their references."""

from __future__ import annotations

import numpy as np

from edgefn.kernels import Deadband, Debounce, Throttle, deadband, debounce, throttle

S = 1_000_000_000


def test_a_slow_drift_gets_through_the_deadband() -> None:
    state = Deadband()
    passed = [x for x in np.arange(0.0, 2.0, 0.1) if deadband(state, x, 0.45)]
    np.testing.assert_allclose(passed, [0.0, 0.5, 1.0, 1.5])


def test_a_deadband_of_zero_passes_every_change_and_no_repetition() -> None:
    state = Deadband()
    assert [deadband(state, x, 0.0) for x in (1.0, 1.0, 1.5, 1.5, 1.0)] == [True, False, True, False, True]


def test_nan_does_not_pass_the_deadband_and_leaves_no_trace() -> None:
    state = Deadband()
    assert not deadband(state, np.nan, 0.1)
    assert deadband(state, 0.0, 0.1)
    assert not deadband(state, np.inf, 0.1)
    assert not deadband(state, 0.0, 0.1)


def test_throttle_passes_the_first_event_even_in_1970() -> None:
    state = Throttle()
    assert [throttle(state, ts, 1.0) for ts in (0, S - 1, S, S + 1)] == [True, False, True, False]


def test_throttle_holds_a_late_event_back() -> None:
    state = Throttle()
    throttle(state, 100 * S, 10.0)
    assert not throttle(state, 99 * S, 10.0)


def test_throttle_does_not_fall_silent_when_a_clock_in_2099_is_set_right() -> None:
    state = Throttle()
    throttle(state, 4_070_908_800 * S, 10.0)
    assert throttle(state, 1_700_000_000 * S, 10.0)
    assert not throttle(state, 1_700_000_001 * S, 10.0)


class TestDebounce:
    def test_a_bouncing_contact_changes_once(self) -> None:
        state = Debounce()
        ms = S // 1000
        bounces = [(0, 0), (1, 100), (0, 102), (1, 103), (0, 107), (1, 108), (1, 130), (1, 158), (1, 160)]
        levels = [debounce(state, on, at * ms, 0.05) for on, at in bounces]
        assert levels == [False] * 7 + [True] * 2

    def test_the_first_sample_is_believed(self) -> None:
        assert debounce(Debounce(), 1, 0, 10.0)

    def test_no_hold_believes_everything(self) -> None:
        state = Debounce()
        assert [debounce(state, x, 0, 0.0) for x in (0, 1, 0)] == [False, True, False]

    def test_a_clock_set_back_begins_the_hold_anew(self) -> None:
        state = Debounce()
        debounce(state, 0, 100 * S, 1.0)
        debounce(state, 1, 100 * S, 1.0)
        assert not debounce(state, 1, 5 * S, 1.0)
        assert debounce(state, 1, 6 * S, 1.0)

    def test_nan_neither_changes_the_level_nor_ends_the_hold(self) -> None:
        state = Debounce()
        debounce(state, 0, 0, 1.0)
        debounce(state, 1, S, 1.0)
        assert not debounce(state, np.nan, S + 1, 1.0)
        assert debounce(state, 1, 2 * S, 1.0)
