"""Against the plainest model there is: the set of all numbers that were taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.engine import sequences as module
from edgefn.engine.sequences import WINDOW, Sequences, belongs
from edgefn.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def sequences(metrics: Metrics) -> Sequences:
    return Sequences(metrics)


def committed(sequences: Sequences) -> dict[str, int]:
    sequences.checkpoint()
    return sequences.confirmed()


class Model:
    """One source as a set. What is below the first, out of the window, or below the floor will not come any more."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.lost: set[int] = set()
        self.first = 0

    def take(self, seq: int, floor: int) -> bool:
        if not self.taken:
            self.first = seq
        new = seq not in self.taken and seq not in self.lost and seq >= self.first
        if new:
            self.taken.add(seq)
        newest = max(self.taken)
        gone = range(self.first, min(newest, max(newest - WINDOW, floor)))
        self.lost |= set(gone) - self.taken
        return new

    @property
    def confirmed(self) -> int:
        seq = self.first
        while seq + 1 in self.taken or seq + 1 in self.lost:
            seq += 1
        return seq


NUMBERS = st.one_of(st.integers(0, 40), st.integers(0, 3 * WINDOW))
EVENTS = st.lists(st.tuples(NUMBERS, st.just(0) | NUMBERS), max_size=60)


class TestOneSource:
    @given(EVENTS, st.data())
    def test_exactly_what_a_set_would_take(self, events: list[tuple[int, int]], data: st.DataObject):
        metrics = Metrics()
        sequences, model = Sequences(metrics), Model()
        parts: list[bytes] = []
        for seq, floor in events:
            assert sequences.take("a", seq, floor) == model.take(seq, floor)
            if data.draw(st.booleans()):  # a crash: another life goes on from the checkpoints
                saved = sequences.checkpoint()
                assert saved is not None
                parts = [saved[1]] if saved[0] else [*parts, saved[1]]
                assert sequences.confirmed() == {"a": model.confirmed}
                sequences = Sequences(metrics)
                sequences.restore(parts)
        assert metrics.counters["events.gaps"] == len(model.lost)
        if events:
            newest = max(model.taken)
            assert sequences.missing == newest - model.first + 1 - len(model.taken) - len(model.lost)

    @given(st.data(), st.integers(1, 200))
    def test_a_tail_that_is_sent_again_among_newer_ones_fills_every_gap(self, data: st.DataObject, n: int):
        arrived = data.draw(st.sets(st.integers(1, n)))
        metrics = Metrics()
        sequences = Sequences(metrics)
        taken = [seq for seq in [0, *sorted(arrived)] if sequences.take("a", seq)]
        newer = list(range(n + 1, n + 20))
        for seq in range(n + 1):  # the tail, with newer ones in between
            if newer and data.draw(st.booleans()):
                taken += [one for one in [newer.pop(0)] if sequences.take("a", one)]
            taken += [seq] if sequences.take("a", seq) else []
        taken += [one for one in newer if sequences.take("a", one)]
        assert sorted(taken) == list(range(n + 20))
        assert committed(sequences) == {"a": n + 19}
        assert (sequences.missing, metrics.counters["events.gaps"]) == (0, 0)

    def test_it_is_followed_from_the_first_that_arrives(self, sequences: Sequences, metrics: Metrics):
        assert sequences.take("a", 500)
        assert not sequences.take("a", 499)
        assert (committed(sequences), metrics.counters["events.gaps"]) == ({"a": 500}, 0)

    def test_what_the_driver_has_given_up_is_a_gap_at_once(self, sequences: Sequences, metrics: Metrics):
        for seq, floor in ((0, 0), (10, 8)):
            sequences.take("a", seq, floor)
        assert metrics.counters["events.gaps"] == 7
        assert committed(sequences) == {"a": 7}, "8 and 9 may still come"
        assert not sequences.take("a", 5)
        assert sequences.take("a", 8)

    def test_a_number_far_away_costs_nothing(self, sequences: Sequences, metrics: Metrics):
        sequences.take("a", 0)
        assert sequences.take("a", 2**40)
        assert metrics.counters["events.gaps"] == 2**40 - 1 - WINDOW
        assert sequences.take("a", 2**40 - WINDOW)
        assert not sequences.take("a", 2**40 - 1 - WINDOW)


class TestConfirmations:
    def test_only_what_a_checkpoint_holds_and_only_once(self, sequences: Sequences):
        sequences.take("a", 0)
        assert sequences.confirmed() == {}
        assert committed(sequences) == {"a": 0}
        assert committed(sequences) == {}

    def test_nothing_above_a_gap(self, sequences: Sequences):
        for seq in (0, 1, 4):
            sequences.take("a", seq)
        assert committed(sequences) == {"a": 1}
        sequences.take("a", 5)
        assert committed(sequences) == {"a": 1}, "said again: the driver sees that something is missing"
        sequences.take("a", 2)
        sequences.take("a", 3)
        assert committed(sequences) == {"a": 5}

    def test_a_duplicate_is_answered_in_case_the_confirmation_was_lost(self, sequences: Sequences):
        sequences.take("a", 0)
        committed(sequences)
        assert not sequences.take("a", 0)
        assert committed(sequences) == {"a": 0}


class TestManySources:
    def test_the_one_longest_unheard_of_gives_way(self, metrics: Metrics):
        sequences = Sequences(metrics, limit=2)
        sequences.take("dead", 0)
        sequences.take("dead", 3)
        sequences.take("a", 0)
        committed(sequences)
        sequences.take("a", 1)
        sequences.take("b", 0)
        assert metrics.counters == {"sequences.evicted": 1, "events.gaps": 2}
        assert committed(sequences) == {"a": 1, "b": 0}
        assert not sequences.take("a", 1)

    def test_increments_grow_until_a_snapshot_takes_their_place(
        self, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(module, "SNAPSHOT_EVERY", 200)
        sequences = Sequences(metrics)
        kinds, parts = [], []
        for seq in range(60):
            sequences.take(f"source-{seq % 3}", seq)
            saved = sequences.checkpoint()
            assert saved is not None
            snapshot, data = saved
            parts = [data] if snapshot else [*parts, data]
            kinds.append(snapshot)
        assert kinds[:2] == [True, False]
        assert 3 <= sum(kinds) <= 20
        assert sequences.checkpoint() is None
        again = Sequences(metrics)
        again.restore(parts)
        assert (len(again), again.missing) == (3, sequences.missing)
        assert [again.take("source-1", seq) for seq in (55, 56, 58, 59)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("src", "seq", "belong"),
    [
        ("1a2b.0.3", 7, True), ("1a2b.0.3", 2**40, True), ("1a2b.0.3", 2**40 + 1, False), ("1a2b.0.3", -1, False),
        ("1a2b.0.3", 7.0, False), ("1a2b.0.3", True, False), ("1a2b.0.3", None, False), (7, 7, False), ("", 7, False),
        ("x" * 65, 7, False),
    ],
)  # fmt: skip
def test_what_others_publish_is_not_counted_on(src: object, seq: object, belong: bool):
    assert belongs(src, seq) is belong
    assert not belongs(src, seq, floor="8")
