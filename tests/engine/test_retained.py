"""Retained messages initialise what handlers remember, and are in no window, unless a handler asks for them."""

from __future__ import annotations

from pathlib import Path

from edgefn.testing import Bench

SOURCE = """
from dataclasses import dataclass
from edgefn import aggregate, anomaly, count, transform

@dataclass
class Last:
    x: float = 0.0

@transform("a/+", to="steps")
def step(x, state: Last):
    change = x - state.x
    state.x = x
    return change

@aggregate(step, count(1))
def steps(value) -> float:
    return value[0]

@anomaly("a/+", threshold=50.0)
def high(x) -> float:
    return x

@aggregate("a/+", count(1), retained=True)
def everything(x) -> float:
    return x[0]
"""


def test_they_change_state_and_put_nothing_out(tmp_path: Path) -> None:
    file = tmp_path / "steps.py"
    file.write_text(SOURCE)
    bench = Bench(file)
    bench.publish("a/1", {"x": 100}, retained=True)
    assert [bench.rows(name) for name in ("step", "steps", "high")] == [[], [], []]
    assert [row.values["value"] for row in bench.rows("everything")] == [100]
    bench.publish("a/1", {"x": 103})
    assert [row.values["value"] for row in bench.rows("steps")] == [3]
    assert [row.values["raised"] for row in bench.rows("high")] == [1]
    assert [row.values["value"] for row in bench.rows("everything")] == [100, 103]
