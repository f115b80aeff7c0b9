"""JSON events at QoS 1, acknowledged after the commit: the rate without loss."""

from __future__ import annotations

from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import in_turns
from bench.workload import CLIMATE


def run(options: Options) -> list[Row]:
    with Rig({"climate.py": CLIMATE}) as rig:
        pair = in_turns(rig, 20_000 if options.quick else 60_000, options.repeats, qos=1)
    return [
        Row(
            "QoS 1 JSON events, acknowledged after commit",
            pair.rate,
            "events/s",
            f"mosquitto_sub {pair.peer_rate:,.0f}/s",
            pair.rate / pair.peer_rate,
            Target(0.7, 0.95, "higher", "ratio"),
            pair.account(),
            bool(pair.lost),
        )
    ]
