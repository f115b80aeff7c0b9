"""Gateway time in shared memory: everybody sees the same, at once, and it goes back by steps only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from edgefn.clock import EARLIEST, LATEST, NS, STEP, SharedClock, is_plausible

HOUR = 3600 * NS


@pytest.fixture
def clock() -> Iterator[SharedClock]:
    clock = SharedClock.create()
    yield clock
    clock.close()


def test_it_begins_with_the_time_of_this_machine(clock: SharedClock) -> None:
    assert abs(clock.now() - time.time_ns()) < NS


def test_whoever_has_the_descriptor_sees_every_change_at_once(clock: SharedClock) -> None:
    other = SharedClock(os.dup(clock.fd))
    for offset in (-HOUR, HOUR, 1 << 62, -(1 << 62)):
        clock.offset = offset
        assert other.offset == offset
    other.close()


def test_a_child_process_reads_it_and_cannot_write_it(clock: SharedClock) -> None:
    clock.offset = 12345
    code = f"""
from edgefn.clock import SharedClock
clock = SharedClock({clock.fd})
print(clock.offset)
try:
    clock.offset = 1
except TypeError:
    print("read only")
"""
    child = subprocess.run(
        [sys.executable, "-c", code], pass_fds=[clock.fd], capture_output=True, text=True, check=True
    )
    assert child.stdout.split("\n")[:2] == ["12345", "read only"]
    assert clock.offset == 12345


def test_a_correction_lets_it_stand_still_and_a_step_takes_it_back(clock: SharedClock) -> None:
    before = clock.now()
    clock.offset -= STEP // 2
    assert clock.now() == before
    clock.offset -= HOUR
    assert clock.now() < before - HOUR // 2


def test_closing_twice_does_no_harm(clock: SharedClock) -> None:
    clock.close()
    clock.close()


@pytest.mark.parametrize(
    ("now", "plausible"),
    [(0, False), (EARLIEST - 1, False), (EARLIEST, True), (LATEST - 1, True), ((1 << 32) * NS, False)],
)
def test_1970_and_2106_are_no_times_to_believe(now: int, plausible: bool) -> None:
    assert is_plausible(now) == plausible
