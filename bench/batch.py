"""Batch events of 1,000 float32 samples through filter, aggregate and anomaly: payload bytes a second."""

from __future__ import annotations

from statistics import median

from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import in_turns
from bench.workload import SAMPLES, VIBRATION


def run(options: Options) -> list[Row]:
    with Rig({"vibration.py": VIBRATION}) as rig:
        n = 3_000 if options.quick else 10_000
        pair = in_turns(rig, n, options.repeats, batch=True)
    size = pair.ours[0].sent.bytes / n
    cpu = median(run.cpu / (run.n * SAMPLES) for run in pair.ours)
    return [
        Row(
            "batch events, 1,000 float32 each, filter + aggregate + anomaly",
            pair.rate * SAMPLES,
            "samples/s",
            f"mosquitto_sub {pair.peer_rate * size / 1e6:,.0f} MB/s",
            pair.rate / pair.peer_rate,
            Target(0.5, 0.9, "higher", "ratio"),
            f"{pair.rate * size / 1e6:,.0f} MB/s; engine {cpu * 1e9:.0f} ns a sample; {pair.account(SAMPLES)}",
            bool(pair.lost),
        )
    ]
