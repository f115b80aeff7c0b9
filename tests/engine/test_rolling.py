"""The store of summaries gives the rows that the plain reference gives, and holds no samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.api import STATISTICS
from edgefn.engine import loops
from edgefn.engine.columns import Table
from edgefn.engine.rolling import Rolling, Rows
from edgefn.summaries import Summary
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
