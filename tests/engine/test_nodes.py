"""Handlers run compiled give what the same functions give as plain Python, and each failure costs one event."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn import aot
from edgefn.aot import unavailable
from edgefn.manifest import Manifest
from tests.engine.harness import SECOND, Bench, compiled
from tests.engine.zoo import ZOO


@pytest.fixture(scope="session")
def plain() -> Any:
    """The same file as the plain Python that it is."""
    module = ModuleType("zoo_plain")
    import sys

    sys.modules[module.__name__] = module
    exec(compile(ZOO, "zoo.py", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="session", params=["just in time", "ahead of time"])
def zoo(folder: Path, zoo: Manifest, request: pytest.FixtureRequest) -> Manifest:
    """Machine code means the same whenever it was made."""
    if request.param == "just in time":
        return zoo
    if why := unavailable():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aot, "unavailable", unavailable)
        made = compiled(folder, "ahead", f"{ZOO}\n# another module, with a library of its own\n")
    assert Path(made.module).with_suffix(".so").exists()
    return made


@pytest.fixture
def bench(zoo: Manifest) -> Bench:
    return Bench(zoo)


readings = st.lists(
    st.fixed_dictionaries(
        {"temperature": st.floats(-60, 100, width=32)},
        optional={
            "humidity": st.floats(-10, 110, width=32),
            "gain": st.integers(-3, 3),
            "flip": st.booleans(),
            "room": st.sampled_from("ab"),
        },
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(readings, st.integers(1, 7))
def test_filters_and_transforms_equal_plain_calls(zoo: Manifest, plain: Any, events: list, batch: int) -> None:
    bench, expected = Bench(zoo), []
    for number, event in enumerate(events):
        room = event.pop("room", "c")
        bench.collect(f"t/{room}/climate", event, number)
        if number % batch == 0:
            bench.run()
        temperature = event["temperature"]
        if plain.plausible(temperature, event.get("humidity", 50.0)):
            made = plain.calibrated(temperature, event.get("gain", 2), event.get("flip", False))
            expected.append((room, number, tuple(map(float, made))))
    bench.run()
    assert [(row.key, row.ts, row.values) for row in bench.take("calibrated")] == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(-100, 100, width=16)), max_size=60))
def test_alerts_rise_at_the_threshold_and_clear_below_the_lower_one(
    zoo: Manifest, plain: Any, events: list[tuple[str, float]]
) -> None:
    bench, states, active, expected = Bench(zoo), {}, dict[str, bool](), []
    for number, (room, temperature) in enumerate(events):
        bench.collect(f"t/{room}/climate", {"temperature": temperature}, number)
        score = plain.jump(temperature, states.setdefault(room, plain.Seen()))
        raised = active.get(room, False)
        if (not raised and score >= 10) or (raised and score < 5):
            active[room] = not raised
            expected.append((room, number, (score, temperature, float(not raised))))
    bench.run()
    assert [(row.key, row.ts, row.values) for row in bench.take("jump")] == expected


def test_a_score_that_is_not_a_number_changes_nothing(bench: Bench) -> None:
    for temperature in (0.0, 50.0):
        bench.feed("t/a/climate", {"temperature": temperature})
    bench.plan.nodes["jump"].state.rows["last"][0] = math.nan
    bench.feed("t/a/climate", {"temperature": 0.0})
    assert [row.values[2] for row in bench.take("jump")] == [1.0]


def test_an_aggregate_takes_what_a_transform_puts_out(bench: Bench) -> None:
    for second, temperature in enumerate((10.0, 11.0, 99.0, 12.0, 30.0)):
        bench.feed("t/a/climate", {"temperature": temperature}, 3 * second * SECOND)
    assert [(row.ts, row.values, row.samples) for row in bench.take("spread")] == [(10 * SECOND, (20, 24, 3), 3)]


def test_an_aggregate_of_an_aggregate_and_its_state(bench: Bench) -> None:
    for window in range(5):
        for i in range(3):
            bench.feed("t/a/climate", {"temperature": float(window + i)}, (10 * window + i) * SECOND)
    # Windows 0 to 3 are closed, two at a time; gain is 2.
    assert bench.values("spread-pairs") == [(2 * 3 + 1000 * 6,), (2 * 5 + 1000 * 12,)]


def test_an_aggregate_of_an_anomaly_sees_its_changes(bench: Bench) -> None:
    for i, temperature in enumerate((0.0, 40.0, 40.0, 7.0, 7.0)):
        bench.feed("t/a/climate", {"temperature": temperature}, i)
    assert [row.values[1:] for row in bench.rows if row.handler == "jump"] == [(40, 1), (40, 0), (7, 1), (7, 0)]
    assert bench.values("jumps") == [(140.0,), (107.0,)]


def test_a_filter_with_a_kernel_keeps_its_state_per_key(bench: Bench) -> None:
    for value in (0.0, 0.5, 1.1, 1.2, 5.0, 5.5, 9.0):
        for room in "ab":
            bench.collect(f"t/{room}/level", {"level": value})
    bench.run()
    assert [(row.key, row.values) for row in bench.take("levels")] == [("a", (6.1,)), ("b", (6.1,))]


def test_int_and_bool_parameters(bench: Bench) -> None:
    for opened, floor in ((True, 1), (True, 2), (False, 3), (1, 5.9), ("yes", 7)):
        bench.feed("t/a/gate", {"open": opened, "floor": floor})
    meter = bench.plan.nodes["gate"].meter
    assert (meter.events, meter.rows, meter.skipped) == (5, 2, 1)  # a text is no number: the field is missing


def test_ts_and_key_are_given_to_those_who_ask(bench: Bench) -> None:
    for room, ts in (("x", 5), ("y", 7), ("x", 9)):
        bench.feed(f"t/{room}/gate", {}, ts)
    assert bench.values("when") == [(5.0,), (8.0,), (9.0,)]


def test_a_handler_that_raises_costs_its_event_and_nothing_else(bench: Bench) -> None:
    for x in (1.0, -1.0, 2.0, 7.0, -9.0, 3.0):
        bench.collect("t/a/fault", {"x": x})
    bench.run()
    node = bench.plan.nodes["faulty"]
    assert bench.values("faulty") == [(2.0,), (3.0,), (4.0,)]
    assert node.meter.raised == 3  # two ValueErrors, and an index that a kernel without bounds checks writes to
    assert node.failed_row == {"x": -1.0}


def test_too_large_an_allocation_costs_its_event(bench: Bench) -> None:
    for x in (0.0, 1e3, 0.0):
        bench.collect("t/a/fault", {"x": x})
    bench.run()
    assert bench.values("greedy") == [(1.0,), (1.0,)]


def test_state_with_an_array_is_a_row_of_its_own_for_each_key(bench: Bench) -> None:
    for i in range(6):
        bench.feed("t/a/ring", {"x": float(i)})
    bench.feed("t/b/ring", {"x": 100.0})
    assert bench.values("ring") == [(0,), (1,), (3,), (6,), (10,), (14,), (100,)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_statistics_equal_numpys(zoo: Manifest, values: list[float]) -> None:
    bench = Bench(zoo)
    bench.feed("t/a/climate", {"temperature": np.array(values), "dt": 1})
    bench.feed("t/a/climate", {"temperature": 0.0}, 20 * SECOND)
    x = np.array(values)
    [row] = bench.take("climate")
    assert row.samples == len(values)
    expected = [
        x.size, x.mean(), x.min(), x.max(), x.sum(), x.std(), x[0], x[-1],
        np.median(x), np.percentile(x, 5), np.percentile(x, 99),
    ]  # fmt: skip
    assert row.values == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_several_fields_are_summarised_each(bench: Bench) -> None:
    for i, temperature in enumerate((10.0, 20.0, 30.0, 40.0)):
        bench.feed("t/a/climate", {"temperature": temperature}, i)
    assert bench.values("two") == [(50.0, 50.0, 5.0, 5.0)]


def test_the_watch_hears_of_each_call(bench: Bench) -> None:
    bench.feed("t/a/ring", {"x": 1.0})
    assert bench.entered == [bench.plan.nodes["ring"].number]


def test_more_rows_than_one_call_takes(bench: Bench) -> None:
    n = 150_000
    bench.collect("t/a/ring", {"x": np.ones(n, np.float32)})
    bench.run()
    assert len(bench.entered) == 3
    assert bench.plan.nodes["ring"].meter.rows == n


def test_an_index_out_of_range_costs_one_event(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The loop around a handler checks nothing; the handler does, wherever it reads."""
    source = """
import numpy as np
from edgefn import filter, transform

STEPS = np.array([1.0, 2.0, 3.0])

@filter("t/+")
def within(n: int):
    return STEPS[n] > 0

@transform("t/+", to="local")
def made(n: int) -> float:
    return STEPS[n]
"""
    bench = Bench(compiled(tmp_path_factory.mktemp("handlers"), "steps", source))
    for n in (0, 7, 2, -9):
        bench.collect("t/a", {"n": n})
    bench.run()
    assert bench.values("made") == [(1.0,), (3.0,)]
    assert [bench.plan.nodes[name].meter.raised for name in ("within", "made")] == [2, 2]
