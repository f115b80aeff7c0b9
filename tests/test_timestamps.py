import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.timestamps import NS_MAX, to_iso, to_ns

S = 1_700_000_000  # 2023-11-14T22:13:20Z
NS = S * 10**9


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (S, NS),
        (S * 10**3, NS),
        (S * 10**6, NS),
        (S * 10**9, NS),
        (S + 0.25, NS + 250_000_000),
        (S * 1000 + 0.5, NS + 500_000),
        ("2023-11-14T22:13:20Z", NS),
        ("2023-11-14T22:13:20", NS),  # without a zone it is UTC
        ("2023-11-14T23:13:20.125+01:00", NS + 125_000_000),
        ("2023-11-14 22:13:20.000001", NS + 1000),
    ],
)
def test_seconds_to_nanoseconds_and_iso_are_told_apart(value: object, ns: int):
    assert to_ns(value) == ns


@pytest.mark.parametrize(
    "value",
    [
        0,
        1234,  # seconds since a device without a clock was switched on
        -S,
        10**11,  # between seconds and milliseconds
        math.nan,
        math.inf,
        True,
        None,
        [S],
        "yesterday",
        "1700000000",
        "1970-01-01T00:00:00Z",
        "2023-11-14T22:13:20Z" + " " * 30,
    ],
)
def test_what_cannot_be_told_for_certain_is_not_guessed(value: object):
    assert to_ns(value) is None


@pytest.mark.parametrize("value", [9_999_999_999, 9_999_999_999_999, "2300-01-01", NS_MAX + 1])
def test_what_int64_cannot_hold_is_no_timestamp(value: object):
    assert to_ns(value) is None


@given(st.integers(min_value=10**18, max_value=NS_MAX - 1), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_whole_numbers_lose_nothing(ns: int, unit: int):
    assert to_ns(ns // unit) == ns // unit * unit


@given(st.one_of(st.floats(), st.integers(), st.text(), st.booleans()))
def test_an_answer_always_fits_into_int64(value: object):
    ns = to_ns(value)
    assert ns is None or 10**18 <= ns <= NS_MAX


def test_it_is_shown_in_utc_with_milliseconds():
    assert to_iso(NS + 125_000_000) == "2023-11-14T22:13:20.125Z"
