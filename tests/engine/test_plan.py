"""A plan survives a change of its files and a restart: what it puts out is what it would have put out anyway."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.manifest import Manifest
from tests.engine.harness import SECOND, Bench, Kept, compiled

FILTERED = """
from edgefn import aggregate, filter, tumbling

@filter("{pattern}")
def kept(x):
    return x {test}

@aggregate(kept, tumbling("10s"))
def total(x) -> float:
    return x.sum()
"""

COUNTER = """
from dataclasses import dataclass
from edgefn import transform

@dataclass
class Kept:
    n: {type} = 0
    {more}

@transform("t/+", to="out/n")
def counted(x, state: Kept) -> float:
    state.n += 1
    return {factor} * state.n
"""


@pytest.fixture(scope="session")
def narrow(folder: Path) -> Manifest:
    return compiled(folder, "kept", FILTERED.format(pattern="t/+", test="> 0"))


@pytest.fixture(scope="session")
def wide(folder: Path) -> Manifest:
    return compiled(folder, "kept", FILTERED.format(pattern="t/+", test="> -100"))


@pytest.fixture(scope="session")
def elsewhere(folder: Path) -> Manifest:
    return compiled(folder, "kept", FILTERED.format(pattern="s/+", test="> 0"))


@pytest.fixture(scope="session")
def counter(folder: Path) -> Manifest:
    return compiled(folder, "counter", COUNTER.format(type="int", more="", factor=1))


@pytest.fixture(scope="session")
def changed_counter(folder: Path) -> Manifest:
    return compiled(folder, "counter", COUNTER.format(type="int", more="", factor=100))


@pytest.fixture(scope="session")
def other_counter(folder: Path) -> Manifest:
    return compiled(folder, "counter", COUNTER.format(type="float", more="", factor=1))


def test_a_changed_function_keeps_windows_and_a_changed_pattern_does_not(
    narrow: Manifest, wide: Manifest, elsewhere: Manifest
) -> None:
    bench = Bench(narrow)
    bench.feed("t/a", {"x": 1.0})
    bench.feed("t/a", {"x": -1.0})
    bench.reload(wide)
    bench.feed("t/a", {"x": -3.0})
    bench.feed("t/a", {"x": 0.0}, 10 * SECOND)
    assert [(row.key, row.values) for row in bench.take()] == [("t/a", (-2.0,))]
    bench.reload(elsewhere)
    bench.feed("s/b", {"x": 7.0}, 10 * SECOND)
    bench.feed("s/b", {"x": 7.0}, 20 * SECOND)
    assert [(row.key, row.values) for row in bench.take()] == [("s/b", (7.0,))]


def test_windows_of_another_pattern_close_nowhere(narrow: Manifest, elsewhere: Manifest) -> None:
    bench = Bench(narrow)
    for i in range(9):
        bench.feed(f"t/{i}", {"x": 1.0})
    bench.reload(elsewhere)
    bench.tick(100 * SECOND)
    assert bench.take() == []


def test_state_is_kept_where_its_layout_is(
    counter: Manifest, changed_counter: Manifest, other_counter: Manifest
) -> None:
    bench = Bench(counter)
    bench.feed("t/a", {"x": 1.0})
    bench.reload(changed_counter)
    assert bench.plan.fresh == []
    bench.feed("t/a", {"x": 1.0})
    bench.reload(other_counter)
    assert bench.plan.fresh == ["counted"]
    bench.feed("t/a", {"x": 1.0})
    assert bench.values("counted") == [(1.0,), (200.0,), (1.0,)]


def test_what_a_reload_takes_over_is_in_the_next_checkpoint(narrow: Manifest, wide: Manifest) -> None:
    bench, kept = Bench(narrow), Kept()
    bench.feed("t/a", {"x": 1.0})
    kept.add(bench.plan.checkpoint(everything=True))
    bench.plan.urgent.add("t/+")
    bench.feed("t/a", {"x": 2.0})
    bench.reload(wide)
    kept.add(bench.plan.checkpoint(everything=False))
    again = Bench(wide)
    again.plan.restore(kept.parts, 0)
    again.feed("t/a", {"x": 0.0}, 10 * SECOND)
    assert again.values("total") == [(3.0,)]


def test_a_handler_that_returns_leaves_nothing_of_its_former_life_in_the_store(
    counter: Manifest, narrow: Manifest
) -> None:
    bench, kept = Bench(counter), Kept()
    for i in range(3):
        bench.feed(f"t/{i}", {"x": 1.0})
    kept.add(bench.plan.checkpoint(everything=True))
    bench.reload(narrow)
    bench.reload(counter)
    bench.feed("t/2", {"x": 1.0})
    kept.add(bench.plan.checkpoint(everything=True))
    again = Bench(counter)
    again.plan.restore(kept.parts, 0)
    for i in range(3):
        again.feed(f"t/{i}", {"x": 1.0})
    assert [row.values for row in again.take()] == [(1.0,), (1.0,), (2.0,)]


def test_late_events_are_counted_once_over_a_reload(narrow: Manifest, wide: Manifest) -> None:
    bench = Bench(narrow)
    for ts in (30, 0):
        bench.feed("t/a", {"x": 1.0}, ts * SECOND)
    [group] = bench.plan.groups.values()
    assert group.news()["events.late"] == 1
    bench.reload(wide)
    [group] = bench.plan.groups.values()
    assert group.news()["events.late"] == 0


def test_a_part_that_cannot_be_read_costs_its_owner_only(counter: Manifest, narrow: Manifest) -> None:
    bench, kept = Bench(counter, narrow), Kept()
    bench.feed("t/a", {"x": 1.0})
    kept.add(bench.plan.checkpoint(everything=True))
    kept.parts["state counted t/+"] = [b"\xc1"]
    again = Bench(counter, narrow)
    again.plan.restore(kept.parts, 0)
    assert again.plan.fresh == ["counted"]
    again.feed("t/a", {"x": 2.0}, 10 * SECOND)
    assert again.values("total") == [(1.0,)]


def test_filters_that_others_cover_are_not_subscribed(counter: Manifest, folder: Path) -> None:
    source = """
from edgefn import summarize
a = summarize("t/x", "1s", fields="v")
b = summarize("t/{name}", "1s", fields="v")
"""
    bench = Bench(counter, compiled(folder, "covered", source))
    assert bench.plan.filters() == {"t/+"}
    assert set(bench.plan.sources) == {"t/+", "t/x", "t/{name}"}


events = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["climate", "climate", "climate", "level", "ring"]),
        st.integers(0, 15),
        st.floats(-50, 90, width=16),
        st.sampled_from(["go on", "go on", "commit", "crash", "tick"]),
    ),
    max_size=50,
)


@settings(max_examples=60, deadline=None)
@given(events, st.booleans())
def test_restarts_change_nothing(zoo: Manifest, events: list, full: bool) -> None:
    """Events of QoS 1: after a crash those that no commit holds come again, and rows put out are those of the commits."""
    straight, bench, kept = Bench(zoo), Bench(zoo), Kept()
    done = 0  # events in the last commit
    committed: list = []
    ts = now = 0
    script = []
    for room, kind, step, value, action in events:
        ts += step * SECOND
        now += SECOND if action != "tick" else 30 * SECOND
        name = {"climate": "temperature", "level": "level", "ring": "x"}[kind]
        script.append((f"t/{room}/{kind}", {name: value}, ts, now, action))

    def play(on: Bench, entry: tuple) -> None:
        topic, fields, ts, now, action = entry
        on.context.now = now
        on.feed(topic, fields, ts)
        if action == "tick":
            on.tick(now + 20 * SECOND)

    def commit(number: int) -> None:
        nonlocal done
        kept.add(bench.plan.checkpoint(everything=full and number % 3 == 0))
        committed.extend(bench.take())
        done = number

    for number, entry in enumerate(script, 1):
        play(straight, entry)
        bench.plan.urgent |= set(bench.plan.sources)
        if entry[4] == "tick":
            # The window closes long after the event, whose commit has been by then.
            topic, fields, ts, now, _ = entry
            play(bench, (topic, fields, ts, now, ""))
            commit(number)
            bench.tick(now + 20 * SECOND)
            commit(number)
        else:
            play(bench, entry)
        if entry[4] == "commit":
            commit(number)
        if entry[4] == "crash":
            bench = Bench(zoo)
            bench.plan.restore(kept.parts, script[done - 1][3] if done else 0)
            bench.plan.urgent |= set(bench.plan.sources)
            for again in script[done:number]:
                play(bench, again)
    committed.extend(bench.take())
    for handler in bench.plan.nodes:
        for key in ("a", "b", "c"):
            assert [row for row in committed if (row.handler, row.key) == (handler, key)] == [
                row for row in straight.rows if (row.handler, row.key) == (handler, key)
            ]


def test_what_a_window_closed_by_the_clock_changes_is_saved_with_what_it_put_out(zoo: Manifest) -> None:
    bench, kept = Bench(zoo), Kept()
    for window in range(2):
        bench.plan.urgent |= set(bench.plan.sources)
        bench.feed("t/a/climate", {"temperature": 1.0}, 100 * window * SECOND)
        kept.add(bench.plan.checkpoint(everything=False))
        bench.tick((100 * window + 50) * SECOND)
        kept.add(bench.plan.checkpoint(everything=False))
        again = Bench(zoo)
        again.plan.restore(kept.parts, 0)
        rows, bench = bench.take("spread-pairs"), again
    assert [row.values for row in rows] == [(2.0 + 1000 * 2,)]
    assert bench.plan.nodes["spread-pairs"].state.rows["n"][0] == 2
