"""A hundred thousand keys are no trouble, and more topics than that cost memory for so many only."""

from __future__ import annotations

from pathlib import Path

from edgefn.engine.sources import MAX_KEYS, MAX_TOPICS, Router, Source
from edgefn.metrics import Metrics
from edgefn.topics import Pattern
from tests.engine.harness import NOW, Bench, compiled

SOURCE = """
from dataclasses import dataclass
from edgefn import aggregate, anomaly, count

@aggregate("m/+", count(2))
def pair(x) -> float:
    return x.sum()

@dataclass
class Seen:
    n: int = 0

@anomaly("m/+", threshold=2.0)
def twice(x, state: Seen) -> float:
    state.n += 1
    return float(state.n)
"""


def test_every_one_of_a_hundred_thousand_keys_has_its_window_and_its_state(tmp_path: Path) -> None:
    bench = Bench(compiled(tmp_path, "many", SOURCE))
    source = bench.plan.sources["m/+"]
    for value in (1.0, 2.0):
        for i in range(MAX_KEYS):
            bench.plan.add(source, f"m/{i}", {"x": value}, NOW)
        bench.run()
    pairs = [row for row in bench.rows if row.handler == "pair"]
    assert len(pairs) == len([row for row in bench.rows if row.handler == "twice"]) == MAX_KEYS
    assert {row.values for row in pairs} == {(3.0,)}
    assert source.keys.evicted == 0


def test_more_topics_than_that_are_forgotten_and_counted() -> None:
    metrics = Metrics()
    source = Source(Pattern("m/{id}"), ["x"])
    router = Router([source], metrics)
    for i in range(MAX_TOPICS + 10):
        ((_, label),) = router.route(b"m/%d" % i)
        assert label == str(i)
    assert len(router._routes) <= MAX_TOPICS
    assert metrics.counters["topics.forgotten"] == MAX_TOPICS
