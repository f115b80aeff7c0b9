"""From an event to its alert on local MQTT, while other events keep the engine busy."""

from __future__ import annotations

import time

import numpy as np

from bench.load import Generator, Spec
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.workload import CLIMATE

RATES = (100, 1_000, 10_000, 50_000)  # events a second, the probes among them
PROBES = 50  # a second: each changes the alert, and so brings one


def run(options: Options) -> list[Row]:
    rows = []
    with Rig({"climate.py": CLIMATE}) as rig:
        for rate in RATES:
            milliseconds, missing = _measure(rig, rate, 2.0 if options.quick else 6.0)
            p50, p99 = np.percentile(milliseconds, (50, 99))
            note = f"{len(milliseconds)} probes, worst {milliseconds.max():.1f} ms"
            if missing:
                note += f", {missing} brought no alert"
            target = rate == 10_000
            for name, value, limits in (("p50", p50, (5.0, 2.0)), ("p99", p99, (20.0, 5.0))):
                rows.append(
                    Row(
                        f"event → alert at {rate:,} events/s, {name}",
                        float(value),
                        "ms",
                        target=Target(*limits, "lower", "value") if target else None,
                        note=note,
                        lost=bool(missing),
                    )
                )
    return rows


def _measure(rig: Rig, rate: int, seconds: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], int]:
    """Latencies in ms, and how many probes brought no alert. A probe carries the time at which it is written."""
    others = rate - PROBES
    spec = Spec(rig.broker.port, "bench/{}/climate", int(others * (seconds + 1)), rate=others)
    rig.clear_mark()
    seen = set(rig.marks)
    sent = 0
    with Generator(spec) as generator:
        generator.go()
        rig.listen(0.5)
        end = time.monotonic() + seconds
        due = time.monotonic()
        while due < end:
            rig.listen(due - time.monotonic())
            sent += 1
            # A probe alternates, so that each changes the alert's state.
            rig.send("mark/end", b'{"n":%d,"value":%d}' % (time.monotonic_ns(), sent % 2))
            due += 1 / PROBES
        rig.listen(1.0)
    found = [at - number for number, at in rig.marks.items() if number not in seen]
    return np.array(found, dtype=np.float64) / 1e6, sent - len(found)
