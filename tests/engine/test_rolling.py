"""The store of summaries gives the rows that the plain reference gives, and holds no samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn import events
from edgefn.api import STATISTICS
from edgefn.engine import loops
from edgefn.engine.columns import Frame, Table
from edgefn.engine.rolling import Rolling, Rows, fits
from edgefn.summaries import RELATIVE_ERROR, ZERO_ERROR, Summary
from edgefn.windows import Window, count, hopping, session, sliding, tumbling
from tests.engine.reference import Closed, reference
from tests.engine.test_panes import steps

IDX = np.array([0], dtype=np.int64)
STATS = (*STATISTICS, "p5", "p95")
CODES = [loops.code(stat) for stat in STATS]

Row = tuple[int, int, int, tuple[float, ...]]  # key, end, samples, statistics

windows = st.one_of(
    st.builds(lambda size, step: Window("count", size, min(step, size)), st.integers(1, 40), st.integers(1, 40)),
    st.builds(
        lambda size, step, lateness, idle: Window("time", size, min(size, step), lateness, idle),
        st.integers(1, 50),
        st.integers(1, 50),
        st.integers(0, 30),
        st.integers(1, 40),
    ),
)
# Values of all sizes and signs, equal ones, and large ones that are near each other.
values = st.one_of(st.floats(-50, 50), st.integers(-3, 3).map(float), st.floats(1e9, 1e9 + 1), st.just(-1e-7))


def rows(out: Rows) -> list[Row]:
    return [
        (int(out.key[i]), int(out.end[i]), int(out.length[i]), tuple(out.values[:, i].tolist())) for i in range(out.n)
    ]


class Store:
    """Feeds the compiled store one event at a time, or many together."""

    def __init__(self, window: Window, codes: list[int] = CODES, max_panes: int = 1 << 18) -> None:
        self.rolling = Rolling(window, [codes], max_panes)
        self.rolling.grow_keys(4)
        self.table = Table(["x"], 8)

    def add(self, key: int, ts: int, value: float) -> None:
        table = self.table
        table.reserve(1)
        table.ts[table.n], table.key[table.n], table.present[table.n] = ts, key, 1
        table.columns[0, table.n] = value
        table.n += 1

    def flush(self, now: int) -> list[Row]:
        return [row for out in self.rolling.insert(self.table.take(), IDX, 1, now) for row in rows(out)]

    def tick(self, now: int) -> list[Row]:
        return [row for out in self.rolling.tick(now) for row in rows(out)]


def assert_same(got: list[Row], expected: list[Closed]) -> None:
    """A batch takes its keys in turns, so the order between keys is free; within a key it is that of time."""
    for key in range(4):
        mine, truth = ([row for row in some if row[0] == key] for some in (got, expected))
        assert [row[:3] for row in mine] == [(key, end, len(samples)) for _, end, samples, _ in truth]
        for (_, _, _, statistics), (_, _, samples, _) in zip(mine, truth, strict=True):
            assert_statistics(dict(zip(STATS, statistics, strict=True)), samples)


def assert_statistics(got: dict[str, float], samples: tuple[float, ...]) -> None:
    array = np.array(samples)
    summary = Summary.of(array, np.arange(array.size))
    largest = np.abs(array).max()
    for stat in ("n", "min", "max", "median", "p5", "p95"):
        assert got[stat] == summary.stat(stat), stat
    assert (got["first"], got["last"]) == (samples[0], samples[-1])
    assert got["sum"] == pytest.approx(math.fsum(samples), abs=1e-12 * np.abs(array).sum())
    assert got["mean"] == pytest.approx(math.fsum(samples) / len(samples), abs=1e-14 * len(samples) * largest)
    assert got["std"] == pytest.approx(float((array - array[0]).std()), abs=1e-14 * len(samples) * largest)


@settings(max_examples=300, deadline=None)
@given(windows, steps, st.integers(1, 30), st.data())
def test_rolling_windows_equal_the_plain_reference(
    window: Window, steps: list, batch: int, data: st.DataObject
) -> None:
    plain, store = reference(window), Store(window)
    numbers = data.draw(st.lists(values, min_size=len(steps), max_size=len(steps)))
    now, expected, got, pending = 0, [], [], 0
    for value, step in zip(numbers, steps, strict=True):
        if isinstance(step, int):
            got += store.flush(now)
            pending = 0
            now += step
            expected += plain.tick(now)
            got += store.tick(now)
        else:
            expected += plain.insert(*step, value, now)
            store.add(*step, value)
            pending += 1
            if pending >= batch:
                got += store.flush(now)
                pending = 0
    got += store.flush(now)
    assert_same(got, expected)
    assert store.rolling.late == plain.late


@settings(max_examples=200, deadline=None)
@given(windows, steps, st.lists(st.sampled_from(["run", "save", "restart", "evict"]), max_size=120), st.data())
def test_windows_go_on_after_a_restart(window: Window, steps: list, actions: list[str], data: st.DataObject) -> None:
    """Restarting from snapshot and increments is as if nothing had happened, when each part is saved with what it put out."""
    plain, store = reference(window), Store(window)
    numbers = data.draw(st.lists(values, min_size=len(steps), max_size=len(steps)))
    saved, now, expected, got = [], 0, [], []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            now += step
            expected += plain.tick(now)
            got += store.tick(now)
        else:
            expected += plain.insert(*step, numbers[number], now)
            store.add(*step, numbers[number])
            got += store.flush(now)
        action = actions[number] if number < len(actions) else "run"
        if action == "evict":
            plain.keys.pop(number % 4, None)
            store.rolling.reset_key(number % 4)
        elif action != "run":
            part = store.rolling.checkpoint(everything=number % 7 == 0)
            if part is not None:
                saved = [part] if number % 7 == 0 else [*saved, part]
        if action == "restart":
            assert not store.rolling.dirty()
            before = store.rolling
            store = Store(window)
            assert store.rolling.restore(saved, now)
            assert store.rolling.samples == before.samples
            for state in plain.keys.values():
                state.seen = now
    assert_same(got, expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(values, st.floats(-1e150, 1e150)), min_size=1, max_size=200), st.integers(1, 7))
def test_percentiles_are_within_the_stated_error_of_the_exact_ones(numbers: list[float], step: int) -> None:
    store = Store(Window("count", len(numbers), min(step, len(numbers))), [loops.code(f"p{p}") for p in range(1, 100)])
    for value in numbers:
        store.add(0, 0, value)
    *_, (_, _, n, got) = store.flush(0)
    assert n == len(numbers)
    ordered, largest = np.sort(numbers), np.abs(numbers).max()
    for p, value in enumerate(got, 1):
        rank = int((n - 1) * (p / 100))
        larger = np.abs(ordered[[rank, min(rank + 1, n - 1)]]).max()
        bound = RELATIVE_ERROR * larger + ZERO_ERROR * largest
        assert abs(value - np.quantile(ordered, p / 100)) <= bound * (1 + 1e-9)


def feed(rolling: Rolling, ts: np.ndarray, values: np.ndarray, key: int = 0, now: int = 0) -> list[Row]:
    """Inserts many samples of one key as one frame; values: (fields, samples)."""
    n, fields = ts.size, values.shape[0]
    rolling.grow_keys(key + 1)
    frame = Frame(
        n, np.arange(n, dtype=np.int32), ts.astype(np.int64), np.full(n, key, np.int32), np.full(n, (1 << fields) - 1), values
    )  # fmt: skip
    return [row for out in rolling.insert(frame, np.arange(fields), (1 << fields) - 1, now) for row in rows(out)]


def test_a_million_samples_in_one_window_take_no_more_memory_than_a_thousand() -> None:
    rolling, dice = Rolling(hopping("1h", "10m"), [CODES]), np.random.default_rng(1)
    samples = 20 + dice.normal(size=1_000_000)
    ts = np.arange(1_000_000) * 3_599_000  # just under an hour
    feed(rolling, ts[:200_000], samples[None, :200_000].copy())
    before = rolling.nbytes
    for begin in range(200_000, 1_000_000, 100_000):
        feed(rolling, ts[begin : begin + 100_000], samples[None, begin : begin + 100_000].copy())
    assert rolling.samples == 1_000_000
    assert rolling.nbytes <= 2 * before < 100_000
    (*_, last) = feed(rolling, np.array([3_600_000_000_000]), np.zeros((1, 1)))
    assert last[2] == 1_000_000
    assert_statistics(dict(zip(STATS, last[3], strict=True)), tuple(samples.tolist()))
    saved = rolling.checkpoint(everything=True)
    assert saved is not None
    assert len(events.pack(saved)) < 20_000


def test_panes_are_used_again() -> None:
    rolling = Rolling(Window("count", 100, 7), [CODES])
    for begin in range(0, 50_000, 1000):
        feed(rolling, np.arange(begin, begin + 1000), np.random.default_rng(begin).normal(size=(1, 1000)))
    assert rolling.nbytes < 200_000


def test_a_size_that_the_step_does_not_divide_costs_two_panes_a_step() -> None:
    """The greatest common divisor of the two would be one nanosecond, and the window 600 million panes."""
    rolling = Rolling(Window("time", 600_000_001, 7_000_000), [CODES])
    feed(rolling, np.arange(0, 600_000_000, 1000), np.zeros((1, 600_000)))
    assert int((rolling._panes["key"] >= 0).sum()) <= 2 * (600_000_001 // 7_000_000 + 1)


def test_each_field_has_statistics_of_its_own() -> None:
    rolling = Rolling(tumbling(1e-8), [[loops.MEAN], [], [loops.code("p50"), loops.N, loops.LAST]])
    fields = np.array([[1.0, 3.0, 0.0], [7.0, 7.0, 7.0], [5.0, 5.0, 0.0]])
    assert feed(rolling, np.array([1, 2, 10]), fields) == [(0, 10, 2, (2.0, 5.0, 2.0, 5.0))]


def test_what_is_no_number_is_counted_and_left_out_of_its_field_alone() -> None:
    rolling = Rolling(tumbling(1e-8), [CODES, [loops.N, loops.SUM, loops.MEAN]])
    bad = np.array([[1.0, math.nan, 3.0, math.inf, 1e200, 0.0], [math.nan] * 5 + [0.0]])
    (row,) = feed(rolling, np.array([1, 2, 3, 4, 5, 10]), bad)
    assert row[:3] == (0, 10, 5)
    assert_statistics(dict(zip(STATS, row[3], strict=False)), (1.0, 3.0))
    assert row[3][-3:-1] == (0.0, 0.0)
    assert math.isnan(row[3][-1])
    assert rolling.strange == 8


def test_rows_without_a_field_are_skipped_and_counted() -> None:
    rolling = Rolling(tumbling(1e-8), [CODES])
    rolling.grow_keys(1)
    table = Table(["x"], 8)
    table.n = 3
    table.present[:3] = [1, 0, 1]
    assert list(rolling.insert(table.take(), IDX, 1, 0)) == []
    assert (rolling.samples, rolling.skipped) == (2, 1)


def test_more_rows_than_fit_into_one_answer_come_in_several() -> None:
    rolling = Rolling(Window("count", 3, 1), [[loops.SUM]])
    got = feed(rolling, np.arange(5000), np.arange(5000.0)[None, :])
    assert [row[3][0] for row in got] == [0.0, 1.0, *(3.0 * i for i in range(1, 4999))]


def test_one_key_may_close_more_windows_at_once_than_fit_into_one_answer() -> None:
    rolling = Rolling(Window("time", 5_000_000, 5_000), [[loops.SUM], [loops.code("p50")]])
    feed(rolling, np.arange(0, 5_000_000, 2_500), np.ones((2, 2000)))
    got = feed(rolling, np.array([10_000_000, 20_000_000]), np.ones((2, 2)))
    assert [row[3] for row in got] == [(2.0 * i, 1.0) for i in range(1000, 0, -1)] + [(1.0, 1.0)] * 1000


def test_a_full_store_gives_up_rows_counts_them_and_recovers() -> None:
    rolling = Rolling(hopping(1e-8, 1e-9), [CODES], max_panes=4)
    feed(rolling, np.arange(10), np.ones((1, 10)))
    assert (rolling.samples, rolling.full) == (4, 6)
    feed(
        rolling, np.arange(100, 104), np.ones((1, 4))
    )  # the first of them moves time on, which makes room for the others
    assert (rolling.samples, rolling.full) == (3, 7)


def test_a_store_without_room_for_buckets_gives_up_rows_and_counts_them() -> None:
    rolling = Rolling(tumbling("1h"), [CODES], max_panes=1)
    feed(rolling, np.arange(1000), np.geomspace(1, 1e100, 1000)[None, :])
    assert rolling.full > 0
    kept = rolling.samples
    assert kept + rolling.full == 1000
    (row,) = feed(rolling, np.array([4 * 10**12]), np.ones((1, 1)))
    assert row[2] == row[3][0] == kept


def test_a_silent_key_closes_by_the_clock_and_not_before() -> None:
    store = Store(tumbling(10, idle=2))
    store.add(0, 15_000_000_000, 1.0)
    assert store.flush(0) == []
    assert store.rolling.next_due() == 7_000_000_000  # 5 s are left of the window, and 2 s of silence come on top
    assert store.tick(6_999_999_999) == []
    assert [row[:3] for row in store.tick(7_000_000_000)] == [(0, 20_000_000_000, 1)]
    assert store.rolling.next_due() is None


def test_a_late_sample_changes_the_windows_that_are_open_and_no_other() -> None:
    store = Store(Window("time", 4, 2), [loops.SUM])
    for ts, value in ((1, 1.0), (3, 2.0), (4, 4.0)):
        store.add(0, ts, value)
    closed = [(0, 2, 1, (1.0,)), (0, 4, 2, (3.0,))]
    assert store.flush(0) == closed
    store.add(0, 3, 8.0)  # the window to 4 has closed with what it had; the one to 6 is open
    store.add(0, 1, 16.0)  # too late for any
    store.add(0, 8, 0.0)
    assert store.flush(0) == [(0, 6, 3, (14.0,)), (0, 8, 1, (4.0,))]
    assert store.rolling.late == 1


def test_a_checkpoint_without_rows_keeps_a_window_from_being_put_out_again() -> None:
    store = Store(tumbling(1e-8), [loops.SUM])
    store.add(0, 5, 1.0)
    store.flush(0)
    snapshot = store.rolling.checkpoint(everything=True)
    store.add(0, 12, 2.0)
    assert len(store.flush(0)) == 1
    small = store.rolling.checkpoint(rows=False)
    assert small is not None
    assert small["pane"].size == 0
    again = Store(tumbling(1e-8), [loops.SUM])
    assert again.rolling.restore([snapshot, small], 0)
    again.add(0, 30, 0.0)
    assert again.flush(0) == []  # the window to 20 was never saved, and that to 10 is done


def test_a_checkpoint_holds_what_changed_and_nothing_else() -> None:
    rolling = Rolling(hopping(1e-6, 1e-7), [CODES])
    for key in range(10):
        feed(rolling, np.arange(0, 900, 10), np.random.default_rng(key).normal(size=(1, 90)), key)
    full = rolling.checkpoint(everything=True)
    feed(rolling, np.array([905]), np.ones((1, 1)), 3)
    part = rolling.checkpoint()
    assert full is not None
    assert part is not None
    assert (full["pane"].size, part["pane"].size, part["page"].size) == (90, 1, 1)
    assert rolling.checkpoint() is None
    assert events.unpack(events.pack(part))["keys"].tolist() == [3]


def test_a_checkpoint_of_other_fields_is_not_taken_up() -> None:
    rolling = Rolling(tumbling(1), [CODES])
    feed(rolling, np.arange(3), np.ones((1, 3)))
    assert not Rolling(tumbling(1), [CODES, CODES]).restore([rolling.checkpoint() or {}], 0)


@pytest.mark.parametrize("window", [session(1), sliding(1), tumbling(2, lateness=1, revise=True)])
def test_windows_that_need_their_samples_are_refused(window: Window) -> None:
    assert not fits(window)
    with pytest.raises(ValueError, match="Panes"):
        Rolling(window, [CODES])


def test_a_tumbling_and_a_count_window_fit() -> None:
    assert fits(tumbling("1m"))
    assert fits(count(100))
