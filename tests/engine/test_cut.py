"""A clock that is set: windows that go by it are closed as they are, and no sample is lost, counted twice or held up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.engine import loops
from edgefn.engine.chain_kernels import BEGINNING, NEVER
from edgefn.windows import Window, hopping, session, sliding, tumbling
from tests.engine import test_panes, test_rolling
from tests.engine.reference import reference

S = 10**9

cuts = st.tuples(st.just("cut"), st.sets(st.integers(0, 3)), st.sampled_from([BEGINNING, 0, 60, 200]))
saves = st.sampled_from(["save", "restart"])
steps = st.lists(st.one_of(test_panes.one_step, cuts, saves), max_size=120)


def beyond(keys: Any, ahead_of: int = BEGINNING) -> Any:
    """Limits that cut these keys where they have come further, and no other."""
    return np.array([ahead_of if key in keys else NEVER for key in range(4)])


def by_key(rows: list[Any]) -> list[Any]:
    """A batch takes its keys in turns, so the order between keys is free; within a key it is that of time."""
    return sorted(rows, key=lambda row: row[0])


@settings(max_examples=200, deadline=None)
@given(test_panes.windows, steps)
def test_windows_cut_short_equal_the_plain_reference_over_restarts(window: Window, steps: list[Any]) -> None:
    plain, store = reference(window), test_panes.Store(window)
    now, expected, got, saved = 0, [], [], []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            now += step
            expected += plain.tick(now)
            got += store.tick(now)
        elif step[0] == "cut":
            expected += plain.cut(sorted(step[1]), step[2])
            got += [row for out in store.panes.cut(beyond(step[1], step[2])) for row in test_panes.rows(out)]
        elif step in ("save", "restart"):
            if window.revise:
                continue  # which windows are to be revised is not saved: a restart puts out one revision more
            part = store.panes.checkpoint(everything=number % 7 == 0)
            saved = saved if part is None else [part] if number % 7 == 0 else [*saved, part]
            if step == "restart":
                store = test_panes.Store(window)
                store.panes.restore(saved, now)
                for state in plain.keys.values():
                    state.seen = now
        else:
            expected += plain.insert(*step, float(number), now)
            store.add(*step, float(number))
            got += store.flush(now)
    assert by_key(got) == by_key(expected)
    if not saved:
        assert store.panes.late == plain.late


@settings(max_examples=150, deadline=None)
@given(test_rolling.windows, steps)
def test_rolling_windows_cut_short_equal_the_plain_reference_over_restarts(window: Window, steps: list[Any]) -> None:
    plain, store = reference(window), test_rolling.Store(window)
    now, expected, got, saved = 0, [], [], []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            now += step
            expected += plain.tick(now)
            got += store.tick(now)
        elif step[0] == "cut":
            expected += plain.cut(sorted(step[1]), step[2])
            got += [row for out in store.rolling.cut(beyond(step[1], step[2])) for row in test_rolling.rows(out)]
        elif step in ("save", "restart"):
            part = store.rolling.checkpoint(everything=number % 7 == 0)
            saved = saved if part is None else [part] if number % 7 == 0 else [*saved, part]
            if step == "restart":
                store = test_rolling.Store(window)
                assert store.rolling.restore(saved, now)
                for state in plain.keys.values():
                    state.seen = now
        else:
            expected += plain.insert(*step, float(number), now)
            store.add(*step, float(number))
            got += store.flush(now)
    test_rolling.assert_same(got, expected)


@pytest.mark.parametrize("window", [tumbling("1m"), hopping("2m", "1m"), session("40s"), sliding("1m")], ids=str)
@pytest.mark.parametrize("jump", [3600, -3600, 20, -20, -57 * 365 * 86400, 80 * 365 * 86400], ids=str)
def test_no_window_holds_samples_of_both_sides_and_none_is_late(window: Window, jump: int) -> None:
    """A sample each 10 s, and the clock is set in the middle of a window."""
    start = 1_800_000_000 * S
    before = [start + i * 10 * S for i in range(10)]
    after = [ts + jump * S for ts in range(before[-1] + 10 * S, before[-1] + 110 * S, 10 * S)]
    store = test_panes.Store(window)
    rows = []
    for value, ts in ((0.0, ts) for ts in before):
        store.add(0, ts, value)
        rows += store.flush(0)
    rows += [row for out in store.panes.cut(beyond({0})) for row in test_panes.rows(out)]
    assert store.panes.samples == 0
    for value, ts in ((1.0, ts) for ts in after):
        store.add(0, ts, value)
        rows += store.flush(0)
    rows += [row for out in store.panes.cut(beyond({0})) for row in test_panes.rows(out)]
    assert store.panes.late == 0
    assert all(len(set(samples)) == 1 for _, _, samples, _ in rows)
    if window.kind != "sliding" and window.step == window.size:
        assert sum(len(samples) for _, _, samples, _ in rows) == 20
    for _, end, samples, _ in rows:
        stamps = after if samples[0] else before
        assert stamps[0] <= end <= stamps[-1] + window.size


def test_windows_of_a_count_go_on() -> None:
    store = test_panes.Store(Window("count", 3, 3))
    for value in (1.0, 2.0):
        store.add(0, 100, value)
    assert store.flush(0) == []
    assert list(store.panes.cut(beyond({0}))) == []
    store.add(0, 7, 3.0)
    assert store.flush(0) == [(0, 7, (1.0, 2.0, 3.0), False)]


def test_only_keys_that_have_come_further_are_cut() -> None:
    store = test_panes.Store(tumbling(1e-8))
    store.add(0, 105, 1.0)
    store.add(1, 55, 1.0)
    store.flush(0)
    (closed,) = store.panes.cut(beyond({0, 1}, 60))
    assert test_panes.rows(closed) == [(0, 110, (1.0,), False)]
    store.add(0, 3, 2.0)  # it begins anew
    store.add(1, 12, 2.0)  # and this one is late
    store.flush(0)
    assert store.panes.late == 1


def test_a_cut_is_saved_also_without_the_samples() -> None:
    store = test_rolling.Store(tumbling(1e-8), [loops.SUM])
    store.add(0, 105, 1.0)
    store.flush(0)
    snapshot = store.rolling.checkpoint(everything=True)
    assert sum(out.n for out in store.rolling.cut(beyond({0}))) == 1
    small = store.rolling.checkpoint(rows=False)
    again = test_rolling.Store(tumbling(1e-8), [loops.SUM])
    assert again.rolling.restore([snapshot or {}, small or {}], 0)
    assert again.rolling.samples == 0
    again.add(0, 5, 2.0)
    again.add(0, 10, 2.0)
    assert [row[:3] for row in again.flush(0)] == [(0, 10, 1)]
