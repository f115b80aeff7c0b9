"""The handlers that ship do what their first line says."""

from __future__ import annotations

import numpy as np
import pytest

from edgefn.resources import bundled
from edgefn.testing import Bench

HANDLERS = bundled("handlers")
TOPIC = "edgefn/gw/event"


def test_climate_keeps_what_is_plausible_and_alerts_on_what_is_unusual() -> None:
    bench = Bench(HANDLERS / "climate.py")
    for i in range(40):
        bench.publish(f"{TOPIC}/climate/attic", {"temperature": 20 + (i % 3) * 0.1, "humidity": 40})
        bench.publish(f"{TOPIC}/climate/attic", {"temperature": 900, "humidity": 40})
        bench.advance("100ms")
    bench.publish(f"{TOPIC}/climate/attic", {"temperature": 35, "humidity": 40})
    (alert,) = bench.rows("unusual")
    assert (alert.key, alert.values["raised"], alert.values["value"]) == ("attic", 1, 35)
    bench.advance("10s")
    assert sum(row.values["n"] for row in bench.rows("comfort")) == 41
    assert max(row.values["peak"] for row in bench.rows("comfort")) == 35


def test_boiler_reports_its_cycle_and_overheating() -> None:
    bench = Bench(HANDLERS / "boiler.py")
    for flow in (60, 70, 79, 77, 71):
        bench.publish(f"{TOPIC}/boiler", {"flow": flow, "return_": flow - 10, "burner": flow > 65})
    assert [row.values["raised"] for row in bench.rows("overheating")] == [1, 0]
    bench.advance("10s")
    (cycle,) = bench.rows("cycle")
    assert cycle.values == pytest.approx({"flow": 71.4, "peak": 79, "spread": 10, "duty": 0.8})


def test_a_knocking_motor_is_told_from_a_smooth_one() -> None:
    bench = Bench(HANDLERS / "motor.py")
    t = np.arange(1000) / 1000
    smooth = (0.1 * np.sin(2 * np.pi * 25 * t)).astype(np.float32)
    knocks = smooth.copy()
    knocks[::100] += 1.5
    for samples in (smooth, knocks, smooth):
        for part in np.split(samples, 4):
            bench.publish(f"{TOPIC}/motor", {"vibration": part, "dt": 1_000_000})
    assert [row.values["raised"] for row in bench.rows("knocking")] == [1, 0]
    first = bench.rows("vibration")[0].values
    assert first["rms"] == pytest.approx(0.1 / 2**0.5, rel=1e-3)
    assert first["crest"] == pytest.approx(2**0.5, rel=1e-2)


def test_doors_are_counted_when_they_open() -> None:
    bench = Bench(HANDLERS / "door.py")
    for is_open in (True, False, True, False, True):
        bench.publish(f"{TOPIC}/door", {"open": is_open})
    bench.advance("20s")
    assert [row.values for row in bench.rows("openings")] == [{"value": 3}]


def test_the_machine_is_summarised_without_code() -> None:
    bench = Bench(HANDLERS / "host.py")
    for cpu in (10, 20, 60):
        bench.publish(f"{TOPIC}/host", {"cpu": cpu, "memory": 50, "load": 1, "received": 0, "sent": 0})
    bench.advance("20s")
    (row,) = bench.rows("machine")
    assert (row.values["cpu_mean"], row.values["cpu_max"]) == (30, 60)
