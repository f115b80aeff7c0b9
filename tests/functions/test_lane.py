"""One handler in the scheduler: what of its failures is told."""

from __future__ import annotations

from edgefn.functions.lane import MAX_WORDS, WORD, Lane


def test_a_handler_that_fails_all_the_time_is_told_of_now_and_then_with_a_count() -> None:
    lane = Lane("f")
    assert [lane.may_tell(1) for _ in range(MAX_WORDS + 5)] == [0] * MAX_WORDS + [None] * 5
    assert lane.may_tell(WORD // 2) is None
    assert lane.may_tell(WORD + 2) == 6
    assert lane.may_tell(WORD + 3) is None
    assert lane.may_tell(100 * WORD) == 1
