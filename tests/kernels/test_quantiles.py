"""What the quantile sketch promises: its stated error, whatever the range, the order and the merging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.kernels import (
    Sketch,
    quantile,
    sketch,
    sketch_add,
    sketch_clear,
    sketch_error,
    sketch_merge,
    sketch_quantile,
)

samples = st.lists(st.floats(-1e9, 1e9) | st.floats(-30, 90), min_size=1, max_size=80)


def filled(xs: list[float], buckets: int = 32) -> Sketch:
    state = Sketch(np.zeros(buckets))
    for x in xs:
        sketch_add(state, x)
    return state


def check(state: Sketch, xs: list[float]) -> None:
    """Every quantile is within the error the sketch states."""
    assert state.n == len(xs)
    assert state.counts.sum() == len(xs)
    for q in (0.0, 0.1, 0.5, 0.9, 0.99, 1.0):
        want = float(np.quantile(xs, q, method="lower"))
        assert abs(sketch_quantile(state, q) - want) <= sketch_error(state) * np.hypot(want, state.unit) * (1 + 1e-9)


@settings(deadline=None)
@given(xs=samples)
def test_a_quantile_is_within_the_stated_error(xs: list[float]) -> None:
    check(filled(xs), xs)


@settings(deadline=None)
@given(left=samples, right=samples)
def test_a_merged_sketch_is_as_good_as_one_that_saw_everything(left: list[float], right: list[float]) -> None:
    state, other = filled(left), filled(right)
    before = replace(other, counts=other.counts.copy())
    sketch_merge(state, other)
    check(state, left + right)
    assert state.folds == filled(left + right).folds
    np.testing.assert_array_equal(other.counts, before.counts)


def test_the_accuracy_holds_until_the_buckets_are_used_up() -> None:
    indoors = filled(list(np.linspace(15.0, 30.0, 500)), buckets=128)
    assert sketch_error(indoors) == pytest.approx(0.01)
    light = filled(list(np.geomspace(1.0, 1e5, 500)), buckets=128)
    assert light.folds == 3
    assert sketch_error(light) == pytest.approx(1.01**8 - 1)


def test_a_sketch_of_the_widest_range_and_fewest_buckets_still_answers() -> None:
    state = filled([-1e150, 1e-150, 1e150], buckets=2)
    assert sketch_quantile(state, 0.0) == -1e150
    assert sketch_quantile(state, 1.0) == 1e150


def test_a_constant_series_comes_back_exactly() -> None:
    assert sketch_quantile(filled([20.1] * 9), 0.5) == 20.1


def test_an_empty_sketch_and_a_wrong_q_give_nan() -> None:
    assert np.isnan(sketch_quantile(Sketch(), 0.5))
    assert np.isnan(sketch_quantile(filled([1.0]), 1.5))
    assert np.isnan(quantile(np.array([1.0]), -0.1))


def test_nan_and_infinity_are_not_counted() -> None:
    assert filled([np.nan, np.inf, -np.inf]).n == 0


def test_a_cleared_sketch_begins_again_with_the_accuracy_it_had() -> None:
    state = filled([1.0, 1e9])
    sketch_clear(state)
    assert sketch_error(state) == pytest.approx(0.01)
    sketch_add(state, 5.0)
    check(state, [5.0])


def test_merging_an_empty_sketch_changes_nothing() -> None:
    state = filled([1.0, 2.0])
    sketch_merge(state, Sketch(np.zeros(8)))
    check(state, [1.0, 2.0])


def test_sketches_of_different_units_are_not_merged() -> None:
    with pytest.raises(ValueError, match="same accuracy and unit"):
        sketch_merge(filled([1.0]), Sketch(unit=0.1))


@pytest.mark.parametrize(
    ("accuracy", "unit", "buckets"), [(0.0, 1.0, 128), (1.0, 1.0, 128), (0.1, 0.0, 128), (0.1, 1.0, 1)]
)
def test_a_sketch_that_cannot_be_is_refused(accuracy: float, unit: float, buckets: int) -> None:
    with pytest.raises(ValueError, match="accuracy lies between 0 and 1"):
        sketch(accuracy, unit, buckets)
