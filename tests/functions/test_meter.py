"""The bill of a handler adds up."""

from __future__ import annotations

from edgefn.functions.meter import KEPT, Meter


def test_a_handler_that_never_ran_has_no_times() -> None:
    assert Meter().report() == {"invocations": 0, "wall_s": 0.0, "cpu_s": 0.0, "peak_memory": 0}


def test_outcomes_times_and_memory() -> None:
    meter = Meter()
    for ms in range(1, 101):
        meter.note("done" if ms % 4 else "failed", ms * 1_000_000, 2 * ms * 1_000_000, 1_000_000, ms)
    meter.dropped["queue_full"] += 3
    assert meter.report() == {
        "invocations": 100,
        "done": 75,
        "failed": 25,
        "dropped": {"queue_full": 3},
        "wait_ms": {"p50": 51.0, "p99": 100.0},
        "duration_ms": {"p50": 102.0, "p99": 200.0},
        "wall_s": 10.1,
        "cpu_s": 0.1,
        "peak_memory": 100,
    }


def test_quantiles_are_of_the_newest() -> None:
    meter = Meter()
    for ms in [1000] * KEPT + [1] * KEPT:
        meter.note("done", ms * 1_000_000, 0, 0, 0)
    assert meter.report()["wait_ms"] == {"p50": 1.0, "p99": 1.0}
