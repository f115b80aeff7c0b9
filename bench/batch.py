"""Batch events of 1,000 float32 samples through filter, aggregate and anomaly: payload bytes a second."""

from __future__ import annotations

from bench.load import Spec
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import in_turns
from bench.workload import SAMPLES, VIBRATION


def run(options: Options) -> list[Row]:
    with Rig({"vibration.py": VIBRATION}) as rig:
        n = 3_000 if options.quick else 10_000
        load = Spec(rig.broker.port, "bench/{}/motor", n, "batch")
        pair = in_turns(rig, load, options.repeats, samples=SAMPLES)
    size = pair.ours[0].sent.bytes / n
    return [
        Row(
            "batch events, 1,000 float32 each, filter + aggregate + anomaly",
            pair.rate * SAMPLES,
            "samples/s",
            f"mosquitto_sub {pair.peer_rate * size / 1e6:,.0f} MB/s",
            pair.rate / pair.peer_rate,
            Target(0.5, 0.9, "higher", "ratio"),
            f"{pair.rate * size / 1e6:,.0f} MB/s; engine {pair.cpu:.0f} ns a sample; {pair.account(SAMPLES)}; {pair.margin}",
            bool(pair.lost),
        ),
        *pair.costs("batch events"),
    ]
