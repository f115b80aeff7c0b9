"""Which windows a position belongs to: the arithmetic, against counting them one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn import count, hopping, tumbling
from edgefn.windows import MAX_OVERLAP, Window

SECOND = 1_000_000_000
WINDOWS = st.integers(1, 20).flatmap(
    lambda step: st.builds(lambda more: Window("time", step + more, step), st.integers(0, 60))
)


@given(WINDOWS, st.integers(-1000, 1000))
def test_a_position_belongs_to_the_windows_from_first_to_last(window: Window, position: int):
    holding = [n for n in range(-1200, 1200) if window.start(n) <= position < window.end(n)]
    assert list(range(window.first(position), window.last(position) + 1)) == holding


def test_tumbling_windows_follow_one_another():
    window = tumbling("1m", lateness="5s", idle="2s")
    assert (window.size, window.step, window.lateness, window.idle) == (
        60 * SECOND,
        60 * SECOND,
        5 * SECOND,
        2 * SECOND,
    )
    assert window.end(4) == window.start(5) == 300 * SECOND
    assert str(window) == "1m"


def test_hopping_windows_overlap():
    window = hopping("5m", "1m")
    assert window.last(0) - window.first(0) + 1 == 5
    assert str(window) == "5m every 1m"


def test_windows_of_a_count_go_by_the_running_number():
    window = count(100)
    assert (window.kind, window.last(99), window.last(100)) == ("count", 0, 1)
    assert str(window) == "100"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tumbling(0), "give it a size above zero"),
        (lambda: tumbling("soon"), "is not a duration"),
        (lambda: hopping("1m", "0s"), "give it a size above zero"),
        (lambda: hopping("1m", "2m"), "would lose what falls between two windows"),
        (lambda: hopping("1h", "1s"), f"more than {MAX_OVERLAP} windows; make the step larger"),
        (lambda: tumbling("1m", revise=True), "revise=True needs a lateness"),
        (lambda: count(0), "give it a size above zero"),
        (lambda: count(2.5), "a whole number of samples, not 2.5"),
        (lambda: count(True), "a whole number of samples"),
    ],
)
def test_a_window_that_makes_no_sense_says_why(make, said: str):
    with pytest.raises(ValueError, match=said):
        make()
