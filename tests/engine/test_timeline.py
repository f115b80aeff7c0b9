"""The engine's time: one offset a batch, steps noticed once, stamps of before a step, and what a restart finds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import NS, STEP
from edgefn.engine.chain_kernels import BEGINNING
from edgefn.engine.decode import MAX_SKEW
from edgefn.engine.timeline import SETTLING, Timeline

HOUR = 3600 * NS
START = 1_790_000_000 * NS


@dataclass
class Offset:
    offset: int = START


def begun(clock: Offset, *, boot: str = "b1", right: bool = True, saved: bytes | None = None) -> Timeline:
    timeline = Timeline(clock)
    timeline.begin(boot, right, [saved] if saved else [])
    return timeline


@pytest.mark.parametrize("step", [HOUR, -HOUR, STEP, -STEP])
def test_a_step_is_told_once_and_the_old_offset_holds_until_it_is_followed(step: int) -> None:
    clock = Offset()
    timeline = begun(clock)
    assert timeline.look(0) is None
    clock.offset += step
    assert timeline.look(0) == (BEGINNING, clock.offset + MAX_SKEW)
    assert timeline.offset == START
    timeline.follow(0)
    assert timeline.offset == START + step
    assert timeline.look(0) is None


@pytest.mark.parametrize("correction", [STEP - 1, 1 - STEP])
def test_a_correction_is_followed_at_once_and_time_does_not_go_back(correction: int) -> None:
    clock = Offset()
    timeline = begun(clock)
    before = timeline.arrival()
    clock.offset += correction
    assert timeline.look(0) is None
    assert timeline.offset == clock.offset
    assert timeline.arrival() >= before


def test_after_a_step_back_time_is_back() -> None:
    clock = Offset()
    timeline = begun(clock)
    before = timeline.arrival()
    clock.offset -= HOUR
    timeline.look(0)
    timeline.follow(0)
    assert timeline.arrival() < before - HOUR // 2


# ages of events when they come, and steps
@given(st.integers(0, 30 * NS), st.one_of(st.integers(-(10**17), -STEP), st.integers(STEP, 10**17)))
def test_a_stamp_of_before_the_step_is_moved_and_one_of_after_it_stays(age: int, step: int) -> None:
    """Unless the event is older than half the step, where nobody can tell: then it is off by the step at the most."""
    clock, now = Offset(), 10**12
    timeline = begun(clock)
    clock.offset += step
    timeline.look(now)
    timeline.follow(now)
    right = now - age + START + step
    for stamped in (right - step, right):
        fields = {"ts": stamped, "x": 1.0}
        timeline.put_right(fields, now + SETTLING - 1)
        now_then = now + SETTLING - 1 - now  # the event is a minute older by then
        if age + now_then < abs(step) / 2:
            assert fields["ts"] == right
        else:
            assert fields["ts"] in (stamped, stamped + step)
        later = {"ts": stamped}
        timeline.put_right(later, now + SETTLING)
        assert later == {"ts": stamped}


@pytest.mark.parametrize("ts", [None, "2026-01-01T00:00:00Z", 1.5, True])
def test_what_is_no_stamp_of_a_driver_is_left_alone(ts: object) -> None:
    clock = Offset()
    timeline = begun(clock)
    clock.offset += HOUR
    timeline.look(0)
    timeline.follow(0)
    fields = {"ts": ts}
    timeline.put_right(fields, 1)
    assert fields == {"ts": ts}
    timeline.put_right(empty := {}, 1)
    assert empty == {}


class TestARestart:
    saved = begun(Offset()).checkpoint()
    now = 10 * NS

    def found(self, *, boot: str = "b1", offset: int = START, right: bool = True) -> tuple[int, int]:
        timeline = begun(Offset(offset), boot=boot, right=right, saved=self.saved)
        timeline.restored()
        limits = timeline.look(self.now)
        assert limits is not None
        assert limits.devices == self.now + offset + MAX_SKEW
        before = timeline.offset
        timeline.follow(self.now)
        assert timeline.look(self.now) is None
        assert timeline.offset == offset
        return limits.gateway, before

    def test_in_the_same_boot_only_windows_of_the_future_are_cut(self) -> None:
        assert self.found()[0] == self.now + START + STEP

    def test_in_the_same_boot_a_step_that_nobody_saw_cuts_all_and_its_rows_are_of_the_old_offset(self) -> None:
        assert self.found(offset=START - HOUR) == (BEGINNING, START)
        assert self.found(offset=START + HOUR) == (BEGINNING, START)

    def test_another_boot_with_a_right_clock_goes_on(self) -> None:
        offset = START + 2 * HOUR
        assert self.found(boot="b2", offset=offset) == (self.now + offset + STEP, START)

    def test_another_boot_with_a_doubtful_clock_keeps_the_two_apart(self) -> None:
        assert self.found(boot="b2", offset=START + HOUR, right=False) == (BEGINNING, START)

    def test_without_a_checkpoint_there_is_nothing_to_cut(self) -> None:
        timeline = begun(Offset())
        assert timeline.look(0) is None
