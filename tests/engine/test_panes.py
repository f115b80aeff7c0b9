"""The window store gives what the plain reference gives, whatever the order, the gaps and the batching."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.engine.columns import Table
from edgefn.engine.panes import Panes, Segments, make_panes
from edgefn.windows import Window, count, hopping, sliding, tumbling
from tests.engine.reference import Closed, reference

IDX = np.array([0], dtype=np.int64)

windows = st.one_of(
    st.builds(count, st.integers(1, 40)),
    st.builds(lambda n, step: Window("count", n, min(step, n)), st.integers(1, 40), st.integers(1, 10)),
    st.builds(
        lambda size, step, lateness, idle, revise: Window(
            "time", size, min(size, step), lateness, idle, revise and lateness > 0
        ),
        st.integers(1, 50),
        st.integers(1, 50),
        st.integers(0, 30),
        st.integers(1, 40),
        st.booleans(),
    ),
    st.builds(
        lambda longest, gap, lateness, idle: Window("session", longest, min(longest, gap), lateness, idle),
        st.integers(1, 90),
        st.integers(1, 40),
        st.integers(0, 30),
        st.integers(1, 40),
    ),
    st.builds(lambda size: Window("sliding", size, size), st.integers(1, 60)),
)
# Each step is an event (key, time, arrival) or lets time pass; times jump, repeat and run backwards.
one_step = st.one_of(
    st.tuples(st.integers(0, 3), st.integers(-100, 300)),
    st.tuples(st.integers(0, 3), st.sampled_from([10**18, -(10**15)])),
    st.integers(1, 80),
)
steps = st.lists(one_step, max_size=120)


def rows(segments: Segments) -> list[Closed]:
    return [
        (
            int(segments.key[i]),
            int(segments.end[i]),
            tuple(segments.columns[0, a : a + segments.length[i]]),
            bool(segments.revised[i]),
        )
        for i in range(segments.n)
        for a in [int(segments.offset[i])]
    ]


class Store:
    """Feeds the compiled store one event at a time, or many together."""

    def __init__(self, window: Window) -> None:
        self.panes = make_panes(window, 1)
        self.panes.grow_keys(4)
        self.table = Table(["x"], 8)

    def add(self, key: int, ts: int, value: float) -> None:
        table = self.table
        table.reserve(1)
        table.ts[table.n], table.key[table.n], table.present[table.n] = ts, key, 1
        table.columns[0, table.n] = value
        table.n += 1

    def flush(self, now: int) -> list[Closed]:
        return [row for segments in self.panes.insert(self.table.take(), IDX, 1, now) for row in rows(segments)]

    def tick(self, now: int) -> list[Closed]:
        return [row for segments in self.panes.tick(now) for row in rows(segments)]


@settings(max_examples=300, deadline=None)
@given(windows, steps, st.integers(1, 30))
def test_compiled_windows_equal_the_plain_reference(window: Window, steps: list, batch: int) -> None:
    plain, store = reference(window), Store(window)
    now, expected, got, pending = 0, [], [], 0
    batch = 1 if window.revise else batch  # several late samples in one batch make one revision
    for number, step in enumerate(steps):
        if isinstance(step, int):
            got += store.flush(now)
            pending = 0
            now += step
            expected += plain.tick(now)
            got += store.tick(now)
        else:
            expected += plain.insert(*step, float(number), now)
            store.add(*step, float(number))
            pending += 1
            if pending >= batch:
                got += store.flush(now)
                pending = 0
    got += store.flush(now)
    # A batch closes key by key, so the order between keys is free; within a key it is that of time.
    for key in range(4):
        assert [row for row in got if row[0] == key] == [row for row in expected if row[0] == key]
    assert store.panes.late == plain.late


# As batch events bring them: many samples of one key, a step apart, of which a filter may have left some out.
runs = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(-50, 400), st.integers(1, 150), st.integers(-1, 9),
        st.sampled_from(["all", "some", "holes"]), st.integers(0, 80),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(windows, runs)
def test_runs_of_one_key_equal_the_plain_reference(window: Window, runs: list) -> None:
    plain, store = reference(window), Store(window)
    now, value, expected, got = 0, 0.0, [], []
    for key, start, n, step, which, silence in runs:
        for i in range(n):
            if which == "holes" and i % 7 == 3:
                # A row without the field stands in the frame, and belongs to no window.
                store.add(key, start + i * step, value)
                store.table.present[store.table.n - 1] = 0
            elif not (which == "some" and i % 3 == 1):
                expected += plain.insert(key, start + i * step, value, now)
                store.add(key, start + i * step, value)
            value += 1.0
            if window.revise:  # several late samples in one batch make one revision
                got += store.flush(now)
        if silence < 40:
            got += store.flush(now)
            now += silence
            expected += plain.tick(now)
            got += store.tick(now)
    got += store.flush(now)
    for key in range(3):
        assert [row for row in got if row[0] == key] == [row for row in expected if row[0] == key]
    assert store.panes.late == plain.late


# Longer ones in wide windows: what is looked at together ends at another key, at a hole, at the end of a window.
ALL_IN_ONE = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 900),
        st.sampled_from([60, 65, 129, 150, 200]),
        st.integers(0, 3),
        st.integers(0, 220),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([tumbling("700ns", idle="100ns"), tumbling("700ns", lateness="300ns"), count(150)]), ALL_IN_ONE)
def test_long_runs_in_one_frame_equal_the_plain_reference(window: Window, runs: list) -> None:
    plain, store = reference(window), Store(window)
    value, expected = 0.0, []
    for key, start, n, step, hole in runs:
        for i in range(n):
            store.add(key, start + i * step, value)
            if i == hole:
                store.table.present[store.table.n - 1] = 0
            else:
                expected += plain.insert(key, start + i * step, value, 0)
            value += 1.0
    got = store.flush(0)
    for now in (200, 400, 600):  # how long a silent key waits follows from its newest row
        expected += plain.tick(now)
        got += store.tick(now)
    for key in range(2):
        assert [row for row in got if row[0] == key] == [row for row in expected if row[0] == key]
    assert store.panes.late == plain.late


@settings(max_examples=100, deadline=None)
@given(windows, runs, st.integers(0, 2**32))
def test_rows_that_a_filter_left_out_are_in_no_window(window: Window, runs: list, seed: int) -> None:
    """A selection with gaps gives what a table of only the selected rows gives."""
    random = np.random.default_rng(seed)
    table, only = Table(["x"], 8), Store(window)
    chosen, value = [], 0.0
    for key, start, n, step, which, _ in runs:
        for i in range(n):
            table.reserve(1)
            at = table.n
            table.ts[at], table.key[at], table.present[at], table.n = start + i * step, key, 1, at + 1
            table.columns[0, at] = value
            if which == "all" or random.random() < 0.7:
                chosen.append(at)
                only.add(key, start + i * step, value)
            value += 1.0
    store = Store(window)
    frame = table.take().select(len(chosen), np.array(chosen, np.int32))
    assert [row for closed in store.panes.insert(frame, IDX, 1, 0) for row in rows(closed)] == only.flush(0)
    assert store.panes.late == only.panes.late


def test_times_at_random_cost_no_more_than_times_in_order() -> None:
    """Insertion of 200,000 rows at random places would take minutes."""
    panes, table = Panes(tumbling("1h"), 1), Table(["x"], 200_001)
    panes.grow_keys(1)
    n = 200_000
    times = np.random.default_rng(3).permutation(n) // 2
    table.present[:], table.n = 1, n + 1
    table.ts[:n], table.columns[0, :n] = times, np.arange(n)
    table.ts[n] = 3600 * 10**9
    started = time.process_time()
    (closed,) = panes.insert(table.take(), IDX, 1, 0)
    assert time.process_time() - started < 2
    order = np.argsort(times, kind="stable")
    assert closed.length[0] == n
    assert (closed.ts[:n] == times[order]).all()
    assert (closed.columns[0, :n] == order).all()


def test_a_silent_key_closes_by_the_clock_and_not_before() -> None:
    store = Store(tumbling(10, idle=2))
    store.add(0, 15_000_000_000, 1.0)
    assert store.flush(0) == []
    assert store.panes.next_due() == 7_000_000_000  # 5 s are left of the window, and 2 s of silence come on top
    assert store.tick(6_999_999_999) == []
    assert store.tick(7_000_000_000) == [(0, 20_000_000_000, (1.0,), False)]
    assert store.panes.next_due() is None


def test_blocks_are_used_again() -> None:
    store = Store(count(100))
    for _ in range(50):
        for i in range(100):
            store.add(0, i, float(i))
        assert len(store.flush(0)) == 1
    assert store.panes.samples == 0
    assert store.panes._nexts.size <= 256


def test_a_full_store_gives_up_rows_and_counts_them() -> None:
    panes = Panes(tumbling("1h"), 1, max_samples=64)
    panes.grow_keys(1)
    table = Table(["x"], 200)
    table.present[:100], table.n = 1, 100
    assert list(panes.insert(table.take(), IDX, 1, 0)) == []
    assert panes.samples + panes.full == 100
    assert panes.full > 0


@pytest.mark.parametrize("size", [(0,), ("-1s",), ("",), ("5 parsecs",), (float("nan"),)])
def test_windows_of_no_length_are_refused(size: tuple) -> None:
    with pytest.raises(ValueError):
        tumbling(*size)


def test_hopping_windows_share_their_samples() -> None:
    store = Store(hopping(3e-9, 1e-9))
    for t in range(6):
        store.add(0, t, float(t))
    assert store.flush(0) == [
        (0, 1, (0.0,), False),
        (0, 2, (0.0, 1.0), False),
        (0, 3, (0.0, 1.0, 2.0), False),
        (0, 4, (1.0, 2.0, 3.0), False),
        (0, 5, (2.0, 3.0, 4.0), False),
    ]


@settings(max_examples=200, deadline=None)
@given(windows, steps, st.lists(st.sampled_from(["run", "save", "restart"]), max_size=120))
def test_windows_go_on_after_a_restart(window: Window, steps: list, actions: list[str]) -> None:
    """Restarting from snapshot and increments is as if nothing had happened, when each part is saved with what it put out."""
    plain, store = reference(window), Store(window)
    saved, now, expected, got = [], 0, [], []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            now += step
            expected += plain.tick(now)
            got += store.tick(now)
        else:
            expected += plain.insert(*step, float(number), now)
            store.add(*step, float(number))
            got += store.flush(now)
        action = actions[number] if number < len(actions) else "run"
        if action != "run":
            part = store.panes.checkpoint(everything=number % 7 == 0)
            if part is not None:
                saved = [part] if number % 7 == 0 else [*saved, part]
        if action == "restart":
            store = Store(window)
            store.panes.restore(saved, now)
            for state in plain.keys.values():
                state.seen = now
    for key in range(4):
        assert [row for row in got if row[0] == key] == [row for row in expected if row[0] == key]


def test_an_evicted_key_leaves_nothing_to_its_successor_after_a_restart() -> None:
    store = Store(count(2))
    store.add(0, 1, 1.0)
    store.flush(0)
    snapshot = store.panes.checkpoint(everything=True)
    store.panes.reset_key(0)
    increment = store.panes.checkpoint()
    assert snapshot is not None
    assert increment is not None
    again = Store(count(2))
    again.panes.restore([snapshot, increment], 0)
    again.add(0, 2, 2.0)
    assert again.flush(0) == []
    again.add(0, 3, 3.0)
    assert again.flush(0) == [(0, 3, (2.0, 3.0), False)]


def test_a_large_store_comes_back_whole() -> None:
    """200,000 samples of one key: one block for each would be more than there may be."""
    panes, table = Panes(tumbling("1h"), 1), Table(["x"], 200_000)
    panes.grow_keys(1)
    table.present[:], table.columns[0], table.n = 1, np.arange(200_000), 200_000
    assert list(panes.insert(table.take(), IDX, 1, 0)) == []
    part = panes.checkpoint(everything=True)
    assert part is not None
    again = Panes(tumbling("1h"), 1)
    assert again.restore([part], 0)
    assert again.samples == 200_000


def test_what_a_smaller_store_cannot_take_up_is_counted() -> None:
    panes, table = Panes(tumbling("1h"), 1), Table(["x"], 1000)
    panes.grow_keys(1)
    table.present[:], table.n = 1, 1000
    assert list(panes.insert(table.take(), IDX, 1, 0)) == []
    part = panes.checkpoint(everything=True)
    assert part is not None
    small = Panes(tumbling("1h"), 1, max_samples=64)
    assert not small.restore([part], 0)
    assert small.full == 1000


def test_sliding_windows_wait_for_no_clock_after_a_restart() -> None:
    store = Store(sliding(10e-9))
    store.add(0, 100, 1.0)
    assert len(store.flush(0)) == 1
    part = store.panes.checkpoint()
    assert part is not None
    again = Store(sliding(10e-9))
    again.panes.restore([part], 5_000_000_000)
    assert again.panes.next_due() is None
    assert again.tick(10_000_000_000) == []
    again.add(0, 105, 2.0)
    assert again.flush(0) == [(0, 105, (1.0, 2.0), False)]


def test_a_full_sliding_store_makes_room_when_time_has_passed() -> None:
    panes = make_panes(sliding(100e-9), 1)
    panes._max_blocks = 2
    panes.grow_keys(1)
    table = Table(["x"], 200)

    def feed(start: int) -> int:
        table.present[:100], table.n = 1, 100
        table.ts[:100] = np.arange(start, start + 100)
        return sum(segments.n for segments in panes.insert(table.take(), IDX, 1, 0))

    assert feed(0) < 100  # 64 samples fit
    assert panes.full > 0
    assert feed(1_000_000) > 0  # all of those are too old by now
