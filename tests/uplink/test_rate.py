"""A bucket lets no more through in the long run than its rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgefn.uplink.rate import TokenBucket
from tests.store.helpers import TurnedClock


def test_one_second_s_worth_goes_at_once_and_then_it_waits() -> None:
    clock = TurnedClock()
    bucket = TokenBucket(1000, clock)
    assert bucket.wait() == 0
    bucket.take(1000)
    assert bucket.wait() == 1
    clock.turn(0.25)
    assert bucket.wait() == 0.75


def test_a_debt_is_paid_back_first() -> None:
    clock = TurnedClock()
    bucket = TokenBucket(1000, clock)
    bucket.take(5000)
    assert bucket.wait() == 5


def test_minutes_without_running_are_worth_one_second() -> None:
    clock = TurnedClock()
    bucket = TokenBucket(1000, clock)
    bucket.take(1000)
    clock.turn(600)
    bucket.take(1000)
    assert bucket.wait() == 1


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 3)), max_size=50))
def test_whoever_waits_as_long_as_it_says_stays_below_the_rate(batches: list[tuple[int, float]]) -> None:
    clock = TurnedClock()
    bucket = TokenBucket(1000, clock)
    sent = 0
    for size, idle in batches:
        clock.turn(bucket.wait() + idle)
        assert sent <= 1000 * clock.monotonic() / 1e9 + 2  # what may be short of a millisecond
        bucket.take(size)
        sent += size
