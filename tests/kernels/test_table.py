"""Each kernel agrees with its naive numpy reference, plain and compiled, on random numbers and on awkward ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.kernels import quantile
from tests.kernels import compiled
from tests.kernels.awkward import SERIES, VALUES, Series
from tests.kernels.table import ARRAYS, GATES_OF_TIME, STREAMS, Arrays, Stream

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Run = Callable[[type, Callable[[Any, float, int], float], Floats, Times], Floats]

RUNS = [pytest.param(compiled.plain, id="plain"), pytest.param(compiled.stream, id="compiled")]
BEGIN = 1_700_000_000_000_000_000


def times(n: int, seed: int = 0) -> Times:
    """Rising times, 10 ms to 3 s apart, that are no whole seconds."""
    return BEGIN + np.cumsum(np.random.default_rng(seed).integers(10_000_000, 3_000_000_000, n))


def expected(case: Stream, xs: Floats, ts: Times) -> Floats:
    """The reference over what counts as a sample, and the answer to all else in between."""
    good = np.abs(xs) <= 1e150
    answers = np.full(xs.size, 0.0 if case.missing == "false" else np.nan)
    if good.any():
        answers[good] = case.reference(xs[good], ts[good])
    if case.missing == "held":
        for i in np.flatnonzero(~good):
            answers[i] = answers[i - 1] if i else 0.0
    return answers


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
@pytest.mark.parametrize("series", SERIES, ids=str)
def test_a_stream_kernel_agrees_with_its_reference(series: Series, case: Stream, run: Run) -> None:
    ts = times(series.xs.size)
    answers = run(case.memory, case.call, series.xs, ts)
    rtol = max(case.rtol, series.rtol)
    np.testing.assert_allclose(answers, expected(case, series.xs, ts), rtol=rtol, atol=case.atol)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", GATES_OF_TIME, ids=lambda case: case.name)
def test_a_gate_of_time_agrees_with_its_reference(case: Stream, run: Run) -> None:
    ts = times(300)
    xs = np.full(300, np.nan)
    np.testing.assert_array_equal(run(case.memory, case.call, xs, ts), case.reference(xs, ts))


numbers = st.floats(-1000, 1000).map(lambda x: round(x, 3))  # ties are likely, the last bit decides nothing


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
@settings(max_examples=25, deadline=None)
@given(xs=st.lists(st.one_of(numbers, st.just(np.nan)), max_size=60), seed=st.integers(0, 99))
def test_a_stream_kernel_agrees_with_its_reference_on_any_series(case: Stream, xs: list[float], seed: int) -> None:
    series = np.array(xs, dtype=float)
    ts = times(series.size, seed)
    answers = compiled.stream(case.memory, case.call, series, ts)
    np.testing.assert_allclose(answers, compiled.plain(case.memory, case.call, series, ts), rtol=1e-9, atol=1e-9)
    # Scores divide by what may be the difference of two near numbers.
    np.testing.assert_allclose(
        answers, expected(case, series, ts), rtol=max(case.rtol, 1e-6), atol=max(case.atol, 1e-6)
    )


@pytest.mark.parametrize("build", [lambda call: call, compiled.array], ids=["plain", "compiled"])
@pytest.mark.parametrize("case", ARRAYS, ids=lambda case: case.name)
class TestArrays:
    @pytest.mark.parametrize("series", VALUES, ids=str)
    def test_agrees_with_its_reference(self, series: Series, case: Arrays, build: Any) -> None:
        if series.story == "numbers too small to square" and case.name == "crest_factor":
            assert build(case.call)(series.xs) == 0.0  # where numpy divides by zero
            return
        before = series.xs.copy()
        want = case.reference(series.xs)
        exact = case.rtol == 0.0
        rtol = 0.0 if exact else max(case.rtol, series.rtol)
        np.testing.assert_allclose(build(case.call)(series.xs), want, rtol=rtol, atol=0.0 if exact else 1e-12)
        np.testing.assert_array_equal(series.xs, before)

    def test_no_values_give_nan(self, case: Arrays, build: Any) -> None:
        assert np.isnan(build(case.call)(np.zeros(0)))

    def test_a_nan_among_the_values_gives_nan(self, case: Arrays, build: Any) -> None:
        assert np.isnan(build(case.call)(np.array([1.0, 2.0, np.nan, 4.0])))

    def test_values_may_be_whole_numbers_whose_squares_overflow(self, case: Arrays, build: Any) -> None:
        values = np.array([30_000, -20_000, 12_345, 7], dtype=np.int16)
        want = case.reference(values.astype(float))
        np.testing.assert_allclose(build(case.call)(values), want, rtol=1e-9)


@settings(max_examples=200, deadline=None)
@given(xs=st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40), q=st.floats(0, 1))
def test_quantile_is_numpys_to_the_last_bit(xs: list[float], q: float) -> None:
    values = np.array(xs)
    with np.errstate(invalid="ignore"):
        want, answer = np.quantile(values, q), quantile(values, q)
    np.testing.assert_array_equal(answer, want)


def test_quantile_is_numpys_to_the_last_bit_on_ordinary_readings() -> None:
    """Round numbers hide how the interpolation rounds; these do not."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        values, q = rng.normal(20.0, 1.0, rng.integers(1, 50)), rng.random()
        assert quantile(values, q) == np.quantile(values, q)
