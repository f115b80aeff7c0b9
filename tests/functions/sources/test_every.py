"""Intervals on a clock that is turned by hand."""

from __future__ import annotations

from edgefn.durations import UNITS
from edgefn.functions.sources.every import Intervals
from edgefn.metrics import Metrics
from edgefn.testing import ManualClock
from edgefn.triggers import Every
from tests.functions.sources.helpers import Fired, function

S = UNITS["s"]
FIVE = Every(5 * 60 * S)


def made() -> tuple[Intervals, Fired, ManualClock, Metrics]:
    fired, clock, metrics = Fired(), ManualClock(), Metrics()
    return Intervals(fired, clock, metrics, b"life"), fired, clock, metrics


def test_it_comes_after_each_interval_and_not_at_the_start():
    intervals, fired, clock, _ = made()
    intervals.plan([function("f", FIVE)])
    assert intervals.step() == 300 * S
    clock.advance("4m59s")
    intervals.step()
    assert not fired.all
    clock.advance("1s")
    assert intervals.step() == 600 * S
    assert fired.topics == ["every/5m"]
    assert fired.all[0][1].ts == clock.now()


def test_it_does_not_drift_and_makes_up_for_nothing():
    intervals, fired, clock, metrics = made()
    intervals.plan([function("f", FIVE)])
    clock.advance("5m7s")
    assert intervals.step() == 600 * S
    assert fired.scheduled() == ["2026-09-21T14:18:20.000Z"]  # seven seconds ago
    clock.advance("20m")
    assert intervals.step() == 1800 * S
    assert len(fired.all) == 2
    assert metrics.counters["triggers.missed.every"] == 3
    assert metrics.counters["triggers.fired.every"] == 2


def test_no_two_are_the_same():
    intervals, fired, clock, _ = made()
    intervals.plan([function("f", FIVE, Every(S))])
    for _ in range(600):
        clock.advance("1s")
        intervals.step()
    assert len({one.identity for _, one in fired.all}) == len(fired.all) == 602


def test_a_clock_that_is_set_moves_nothing():
    intervals, fired, clock, _ = made()
    intervals.plan([function("f", FIVE)])
    clock.jump("8760h")
    assert intervals.step() == 300 * S
    clock.jump("-17520h")
    clock.advance("5m")
    intervals.step()
    assert len(fired.all) == 1


def test_a_new_plan_leaves_what_it_has_in_common_with_the_old_one_running():
    intervals, fired, clock, _ = made()
    intervals.plan([function("f", FIVE), function("gone", Every(S))])
    clock.advance("4m")
    intervals.plan([function("f", FIVE), function("g", FIVE)])
    clock.advance("1m")
    assert intervals.step() == 9 * 60 * S
    assert fired.names == ["f"]
    intervals.plan([])
    assert intervals.step() is None
