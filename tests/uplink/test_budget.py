"""Each day's bytes are given once, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgefn.store import Spent
from edgefn.store.records import HIGH, NORMAL
from edgefn.uplink.budget import DAY, DailyBudget
from tests.store.helpers import TurnedClock

HOUR = 3600


def at(hour: float) -> TurnedClock:
    clock = TurnedClock()
    clock.ns = clock.ns // DAY * DAY
    clock.turn(hour * HOUR)
    return clock


def test_the_last_tenth_is_for_high_priority() -> None:
    budget = DailyBudget(1000, at(12), None)
    assert (budget.left(NORMAL), budget.left(HIGH)) == (900, 1000)
    budget.spend(850)
    assert (budget.left(NORMAL), budget.left(HIGH)) == (50, 150)
    budget.spend(100)
    assert (budget.left(NORMAL), budget.left(HIGH)) == (0, 50)
    budget.spend(100)
    assert budget.left(HIGH) == 0


def test_midnight_by_utc_brings_new_bytes() -> None:
    clock = at(23)
    budget = DailyBudget(1000, clock, None)
    budget.spend(1000)
    assert budget.until_midnight() == HOUR
    clock.turn(HOUR)
    assert budget.left(HIGH) == 1000
    assert budget.until_midnight() == 24 * HOUR


def test_a_restart_goes_on_with_what_was_saved_and_the_next_day_does_not() -> None:
    clock = at(12)
    today = clock.now() // DAY
    assert DailyBudget(1000, clock, Spent(today, 700)).left(HIGH) == 300
    assert DailyBudget(1000, clock, Spent(today - 1, 700)).left(HIGH) == 1000


def test_a_clock_that_goes_forward_over_midnight_and_back_brings_one_day_only() -> None:
    clock = at(23.5)
    budget = DailyBudget(1000, clock, None)
    budget.spend(600)
    clock.turn(HOUR)
    budget.spend(100)
    clock.turn(-HOUR)
    budget.spend(100)
    clock.turn(HOUR)
    assert budget.left(HIGH) == 800


def test_a_boot_in_1970_neither_brings_bytes_nor_takes_them() -> None:
    clock = at(12)
    saved = Spent(clock.now() // DAY, 700)
    right, clock.ns = clock.ns, 0
    budget = DailyBudget(1000, clock, saved)
    budget.spend(100)
    clock.ns = right
    assert budget.left(HIGH) == 200


def test_a_day_that_a_wrong_clock_began_in_2106_ends_at_the_next_midnight() -> None:
    clock = at(12)
    right, clock.ns = clock.ns, 4_300_000_000 * 10**9
    budget = DailyBudget(1000, clock, None)
    budget.spend(700)
    clock.ns = right
    assert budget.left(HIGH) == 300
    clock.turn(12 * HOUR)
    assert budget.left(HIGH) == 1000


@given(st.lists(st.tuples(st.sampled_from(["run", "jump", "restart"]), st.integers(-60, 60)), max_size=40))
def test_jumps_give_one_day_each_at_most_and_two_quiet_days_always_bring_a_new_one(
    steps: list[tuple[str, int]],
) -> None:
    clock = at(12)
    clock.turn(1000 * 24 * HOUR)
    budget = DailyBudget(1000, clock, None)
    budget.spend(1)
    begun, allowed = 1, 1

    def tell() -> None:
        nonlocal begun
        budget.spend(1)
        begun += budget.spent.bytes == 1

    for what, hours in steps:
        before = clock.now() // DAY
        if what == "restart":
            budget = DailyBudget(1000, clock, budget.spent)
        elif what == "run":
            for _ in range(abs(hours)):
                clock.turn(HOUR)
                tell()
            allowed += clock.now() // DAY - before
        else:
            clock.turn(hours * HOUR)
            tell()
            allowed += clock.now() // DAY > before
    assert begun <= allowed
    earlier = begun
    for _ in range(48):
        clock.turn(HOUR)
        tell()
    assert begun > earlier
