"""New rows and a backlog share the line by bytes, and priorities starve in neither lane."""

from __future__ import annotations

import pytest

from edgefn.store import Item
from edgefn.uplink.lanes import OLDEST_EVERY, Lanes
from tests.sinks.helpers import stored

POSITION = stored(1000).id


def row(seq: int, size: int = 100) -> Item:
    return stored(seq, payload=b"x" * size)


def drain(lanes: Lanes, old: list[Item], new: list[Item], turns: int) -> tuple[int, int]:
    """Rows that went from each lane, one at a time."""
    went = [0, 0]
    for _ in range(turns):
        live = lanes.live_after is not None and bool(new)
        queue = new if live else old
        lanes.passed([queue.pop(0)], live)
        went[live] += 1
    return went[0], went[1]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_new_rows_get_their_share_and_the_backlog_the_rest(share: float) -> None:
    lanes = Lanes(share, 1000)
    lanes.part(POSITION)
    old, new = [row(n) for n in range(1, 900)], [row(n) for n in range(1001, 1900)]
    went_old, went_new = drain(lanes, old, new, 400)
    assert went_new == pytest.approx(400 * share, abs=1)
    assert went_old == 400 - went_new


def test_the_first_batch_is_of_new_rows() -> None:
    lanes = Lanes(0.1, 1000)
    lanes.part(POSITION)
    assert lanes.live_after == POSITION


def test_without_new_rows_all_goes_to_the_backlog_and_they_are_owed_one_batch_at_most() -> None:
    lanes = Lanes(0.5, 1000)
    lanes.part(POSITION)
    assert drain(lanes, [row(n) for n in range(1, 900)], [], 500) == (500, 0)
    old, new = [row(n) for n in range(1, 900)], [row(n) for n in range(1001, 1900)]
    assert drain(lanes, old, new, 30)[1] <= 15 + 1000 / 100


def test_without_a_share_there_is_one_lane() -> None:
    lanes = Lanes(0.0, 1000)
    lanes.part(POSITION)
    assert lanes.live_after is None


def test_once_the_backlog_has_gone_there_is_one_lane() -> None:
    lanes = Lanes(0.5, 1000)
    lanes.part(POSITION)
    for n in range(1001, 1001 + OLDEST_EVERY):
        lanes.passed([row(n)], live=False)
    lanes.passed([row(2000, size=0)], live=False)
    assert lanes.live_after is None


def test_every_fourth_batch_of_each_lane_goes_by_age() -> None:
    lanes = Lanes(0.5, 1000)
    lanes.part(POSITION)
    turns: dict[bool, list[bool]] = {True: [], False: []}
    for n in range(16):
        live = n % 2 == 0
        turns[live].append(lanes.oldest_first(live))
        lanes.passed([row(1 + 1000 * live)], live)
    assert turns == {live: [False, False, False, True] * 2 for live in (True, False)}
