"""The budget of writes: nothing changes within it, and above it commits come just so much less often that it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.gateway.wear import DAY, LONGEST, STEP, WriteBudget

GB = 10**9


class Card:
    """A gateway that writes `cost` bytes with each commit and `more` with each second between two."""

    def __init__(self, budget: WriteBudget, cost: int, more: int = 0) -> None:
        self.budget, self.cost, self.more = budget, cost, more
        self.now = self.written = 0
        self.interval = budget.interval(0, 0)

    def run(self, seconds: float) -> float:
        """Bytes a day that were written in this time."""
        end, before, began = self.now + int(seconds * NS), self.written, self.now
        while self.now < end:
            self.now += self.interval
            self.written += self.cost + self.more * self.interval // NS
            self.interval = self.budget.interval(self.written, self.now)
        return (self.written - before) / (self.now - began) * DAY


def test_within_the_budget_commits_come_as_they_are_set():
    card = Card(WriteBudget(2 * GB, NS), cost=12_000)
    card.run(86_400)
    assert card.interval == NS


def test_a_burst_of_minutes_changes_nothing():
    card = Card(WriteBudget(2 * GB, NS), cost=100_000)
    card.run(400)
    assert card.interval == NS


@pytest.mark.parametrize(("cost", "more"), [(40_000, 0), (20_000, 5_000), (80_000, 2_000), (200_000, 0)])
def test_more_than_the_budget_is_brought_down_to_it(cost: int, more: int):
    card = Card(WriteBudget(2 * GB, NS), cost, more)
    card.run(86_400)
    assert NS < card.interval < LONGEST
    assert card.run(86_400) == pytest.approx(2 * GB, rel=0.01)


def test_what_no_interval_can_save_gets_the_longest():
    card = Card(WriteBudget(GB, NS), cost=1_000_000)
    card.run(7200)
    assert card.interval == LONGEST


def test_commits_come_as_before_once_there_is_less_to_write():
    card = Card(WriteBudget(GB, NS), cost=1_000_000)
    card.run(7200)
    card.cost = 1000
    card.run(7200)
    assert card.interval == NS


def test_an_interval_that_is_set_longer_is_never_made_shorter():
    card = Card(WriteBudget(GB, 60 * NS), cost=10_000_000)
    card.run(7200)
    assert card.interval == 60 * NS


def test_no_budget_changes_nothing():
    card = Card(WriteBudget(0, NS), cost=100_000_000)
    card.run(3600)
    assert card.interval == NS


@given(
    st.integers(0, 10 * GB),
    st.integers(NS // 100, 600 * NS),
    st.lists(st.tuples(st.integers(0, GB), st.integers(0, 3600 * NS)), max_size=20),
)
def test_the_interval_stays_between_what_is_set_and_the_longest(daily: int, base: int, steps: list[tuple[int, int]]):
    budget = WriteBudget(daily, base)
    written = now = 0
    for more, later in steps:
        written, now = written + more, now + later
        assert base <= budget.interval(written, now) <= max(base, LONGEST) + STEP // 2
