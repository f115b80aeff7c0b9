import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn import durations


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1ns", 1),
        ("2us", 2_000),
        ("2µs", 2_000),
        ("500ms", 500_000_000),
        ("10s", 10_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h 30m", 5_400_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("7d", 604_800_000_000_000),
        ("1w", 604_800_000_000_000),
        (2, 2_000_000_000),
        (0.25, 250_000_000),
        (0, 0),
    ],
)
def test_a_duration(text: str | float, ns: int):
    assert durations.parse(text) == ns


@pytest.mark.parametrize("wrong", ["", "s", "10", "10 parsecs", "1m 30", "-1s", "1e3s", True, None, ["1s"], {"s": 1}])
def test_what_is_no_duration_is_told_what_one_looks_like(wrong: object):
    with pytest.raises(ValueError, match="is not a duration; write one such as '500ms', '10s', '1m30s' or '7d'"):
        durations.parse(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "101000d"])
def test_a_duration_lies_between_nothing_and_a_century(wrong: str | float):
    with pytest.raises(ValueError, match="between 0 and a century"):
        durations.parse(wrong)


def test_it_is_shown_in_the_shortest_way():
    assert durations.show(90_000_000_000) == "1m30s"
    assert durations.show(86_400_000_000_000) == "1d"
    assert durations.show(0) == "0s"


@given(
    st.integers(min_value=0, max_value=2**53)
)  # beyond 104 days the parts are sums of floats, exact to a microsecond
def test_what_is_shown_is_read_again(ns: int):
    assert durations.parse(durations.show(ns)) == ns
