"""Summaries merge in any order and grouping to what one look at all samples gives."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn import events
from edgefn.api import STATISTICS
from edgefn.errors import PayloadError
from edgefn.kernels.sample import LARGEST
from edgefn.summaries import (
    EMPTY,
    PER_OCTAVE,
    RELATIVE_ERROR,
    SPAN,
    ZERO_ERROR,
    Summary,
    bucket,
    merge,
    middle,
)

whole = st.integers(-1000, 1000).map(float)
awkward = st.sampled_from([0.0, -0.0, 5e-324, -1e-308, 1e-9, 1e9 + 1e-3, -1e9, 1e150, -1e150])
numbers = st.one_of(whole, st.floats(-1e6, 1e6), awkward)
times = st.integers(0, 5)  # so few that many are equal


def samples(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[tuple[float, int]]]:
    return st.lists(st.tuples(values, times), max_size=60)


def summary(pairs: list[tuple[float, int]]) -> Summary:
    return Summary.of([value for value, _ in pairs], [ts for _, ts in pairs])


def any_tree(parts: list[Summary], dice: random.Random) -> Summary:
    """Merges two of them, and so on until one is left."""
    while len(parts) > 1:
        one = parts.pop(dice.randrange(len(parts)))
        other = parts.pop(dice.randrange(len(parts)))
        parts.append(one | other)
    return parts[0]


def split(pairs: list[tuple[float, int]], dice: random.Random) -> list[Summary]:
    pairs = dice.sample(pairs, len(pairs))
    cuts = sorted(dice.randint(0, len(pairs)) for _ in range(dice.randint(0, 8)))
    return [summary(pairs[a:b]) for a, b in zip([0, *cuts], [*cuts, len(pairs)], strict=True)]


def exact(one: Summary) -> tuple:
    return one.n, one.min, one.max, one.first, one.last, one.buckets


@settings(max_examples=300, deadline=None)
@given(samples(numbers), st.randoms(use_true_random=False))
def test_any_split_merged_in_any_order_is_the_summary_of_the_whole(pairs: list, dice: random.Random) -> None:
    whole, parts = summary(pairs), split(pairs, dice)
    merges = len(parts)
    merged = any_tree(parts, dice)
    assert exact(merged) == exact(whole)
    values = [value for value, _ in pairs]
    largest = max(map(abs, values), default=0.0)
    # The true values, in exact arithmetic. One pass over n samples itself rounds like n merges;
    # the squares of what is below 1e-150 are zero.
    true = [Fraction(value) for value in values]
    steps = merges + len(values)
    if values:
        mean = sum(true) / len(true)
        variance = float(sum((value - mean) ** 2 for value in true) / len(true))
        assert abs(merged.mean - float(mean)) <= steps * 2**-51 * largest + 1e-150
        assert abs(math.sqrt(merged.variance) - math.sqrt(variance)) <= steps * 2**-51 * largest + 1e-150
        assert abs(merged.sum - float(sum(true))) <= steps * 2**-53 * math.fsum(map(abs, values)) + 1e-150


@given(samples(whole), st.randoms(use_true_random=False))
def test_sums_of_whole_numbers_are_exact(pairs: list, dice: random.Random) -> None:
    assert any_tree(split(pairs, dice), dice).sum == sum(value for value, _ in pairs)


@given(samples(numbers), samples(numbers))
def test_swapping_two_summaries_changes_no_bit(some: list, others: list) -> None:
    a, b = summary(some), summary(others)
    assert a | b == b | a


@given(samples(numbers))
def test_the_empty_summary_is_neutral(pairs: list) -> None:
    one = summary(pairs)
    assert one | EMPTY == EMPTY | one == one
    assert merge([]) == EMPTY == Summary.of([], [])


@settings(max_examples=300, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=80), st.integers(0, 100))
def test_quantiles_are_within_the_stated_error(values: list[float], percent: int) -> None:
    q = percent / 100
    ordered = sorted(values)
    rank = int((len(values) - 1) * q)
    larger = max(abs(ordered[rank]), abs(ordered[min(rank + 1, len(values) - 1)]))
    bound = RELATIVE_ERROR * larger + ZERO_ERROR * max(map(abs, values))
    assert abs(Summary.of(values, 0).quantile(q) - float(np.quantile(values, q))) <= bound * (1 + 1e-9)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_buckets_are_in_the_order_of_the_numbers(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert bucket(low) <= bucket(high)
    assert bucket(-a) == -bucket(a)
    # The smallest floats of all are so few that no middle fits between them.
    assert abs(middle(bucket(a)) - a) <= RELATIVE_ERROR * abs(a) + 5e-324


def test_many_samples_of_all_magnitudes_stay_few_buckets() -> None:
    values = np.concatenate([np.geomspace(1e-300, 1e100, 100_000), -np.geomspace(1e-300, 1e100, 100_000)])
    one = Summary.of(values, 0)
    assert len(one.buckets) <= 2 * SPAN + 1
    assert one.n == sum(one.buckets.values()) == 200_000
    assert one.quantile(0.5) == 0.0
    assert PER_OCTAVE * 16 == SPAN


def test_what_lies_16_octaves_below_the_largest_counts_as_zero() -> None:
    kept = 2.0**-16 * (1 + 1 / PER_OCTAVE)
    assert Summary.of([1.0, 2.0**-16, kept], 0).buckets == {0: 1, bucket(kept): 1, bucket(1.0): 1}


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf, 2 * LARGEST])
def test_what_is_no_number_never_gets_in(strange: float) -> None:
    assert Summary.of([1.0, strange, 2.0], [1, 2, 3]) == Summary.of([1.0, 2.0], [1, 3])
    assert Summary.of([strange], [1]) == EMPTY


def test_first_and_last_go_by_time_and_then_by_value() -> None:
    one = Summary.of([5.0, 3.0, 9.0, 4.0], [7, 1, 7, 1])
    assert one.first == (1, 3.0)
    assert one.last == (7, 9.0)


def test_small_noise_on_a_large_value_keeps_its_variance() -> None:
    """A supply of 1e9 with noise of 1: the mean square less the square of the mean is -128 here, the variance 0.997."""
    noise = np.random.default_rng(1).normal(size=10_000)
    values = 1e9 + noise
    truth = float(np.var(values - 1e9))
    in_pieces = merge(Summary.of(values[i : i + 7], i) for i in range(0, values.size, 7))
    assert in_pieces.variance == pytest.approx(truth, rel=1e-6)
    assert Summary.of(values, 0).variance == pytest.approx(truth, rel=1e-6)


def test_a_constant_has_no_spread_however_it_is_cut() -> None:
    for value in (0.1, 1e9 + 0.1, -7.3e-5):
        merged = merge(Summary.of([value] * n, n) for n in range(1, 30))
        assert merged.variance == 0.0
        assert merged.mean == merged.min == merged.max == value
        assert merged.quantile(0.37) == value


def test_every_statistic_of_summarize_is_known() -> None:
    one = Summary.of([4.0, 1.0, 2.0, 5.0], [0, 1, 2, 3])
    assert {name: one.stat(name) for name in STATISTICS} == {
        "n": 4,
        "mean": 3.0,
        "min": 1.0,
        "max": 5.0,
        "sum": 12.0,
        "std": pytest.approx(math.sqrt(2.5)),
        "first": 4.0,
        "last": 5.0,
        "median": pytest.approx(3.0, rel=RELATIVE_ERROR),
    }
    assert one.stat("p95") == one.quantile(0.95)


def test_without_samples_there_is_nothing_but_zero_of_them() -> None:
    known = {name: EMPTY.stat(name) for name in (*STATISTICS, "p95")}
    assert (known.pop("n"), known.pop("sum")) == (0, 0)
    assert all(map(math.isnan, known.values()))


@pytest.mark.parametrize("name", ["", "p0", "p100", "p", "p-5", "mode"])
def test_unknown_statistics_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown statistic {name!r}"):
        EMPTY.stat(name)


def test_times_and_values_go_together() -> None:
    with pytest.raises(ValueError):
        Summary.of([1.0, 2.0, 3.0], [1, 2])


@given(samples(numbers))
def test_a_summary_survives_json_and_msgpack(pairs: list) -> None:
    one = summary(pairs)
    assert Summary.from_dict(one.to_dict()) == one
    assert Summary.from_dict(events.from_json(events.to_json(one.to_dict()))) == one
    assert Summary.from_dict(events.unpack(events.pack(one.to_dict()))) == one


def test_an_hour_of_a_thermometer_is_a_few_hundred_bytes() -> None:
    values = 20 + 2 * np.sin(np.linspace(0, 6, 3600))
    assert len(events.pack(Summary.of(values, np.arange(3600)).to_dict())) < 200


GOOD = Summary.of([1.0, 2.0, 4.0], [1, 2, 3]).to_dict()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"v": 2}, "version"),
        ({"v": None}, "version"),
        ({"n": 4}, "buckets hold 3"),
        ({"n": -3}, "buckets"),
        ({"mean": None}, "TypeError"),
        ({"mean": math.nan}, "finite"),
        ({"sum": "much"}, "ValueError"),
        ({"m2": -1.0}, "variance"),
        ({"first": [9, 1.0]}, "last sample before"),
        ({"first": [0]}, "IndexError"),
        ({"last": [3, 70.0]}, "outside"),
        ({"max": 1e300}, "outside"),
        ({"buckets": [1, 3]}, "outside"),
        ({"buckets": [1]}, "ValueError"),
        ({"buckets": [10**7, 3]}, "outside"),
    ],
)
def test_what_no_samples_can_have_given_is_refused(change: dict, says: str) -> None:
    with pytest.raises(PayloadError, match=f"bad_summary: .*{says}"):
        Summary.from_dict(GOOD | change)
