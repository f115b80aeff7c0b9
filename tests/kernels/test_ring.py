"""A window holds the last samples, in order of arrival and in order of size, whatever came before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgefn.kernels import make_window
from edgefn.kernels.ring import empty, push, window_mad, window_mean, window_median, window_std


@given(xs=st.lists(st.integers(-5, 5) | st.floats(-1e150, 1e150), max_size=40), size=st.integers(1, 9))
def test_a_window_knows_the_last_samples_and_their_order(xs: list[float], size: int) -> None:
    state = make_window(size)
    for i, x in enumerate(xs):
        push(state, x)
        last = xs[max(0, i + 1 - size) : i + 1]
        assert state.n == len(last)
        assert list(state.ordered[: state.n]) == sorted(last)
        assert sorted(state.ring[: state.n]) == sorted(last)


def test_an_empty_window_has_no_statistics() -> None:
    state = make_window(3)
    push(state, 7.0)
    empty(state)
    assert np.isnan([window_median(state), window_mad(state), window_mean(state), window_std(state)]).all()


def test_an_emptied_window_begins_again() -> None:
    state = make_window(3)
    for x in (7.0, 8.0, 9.0, 10.0):
        push(state, x)
    empty(state)
    push(state, 1.0)
    push(state, 3.0)
    assert (window_median(state), window_mean(state), window_mad(state), window_std(state)) == (2.0, 2.0, 1.0, 1.0)
