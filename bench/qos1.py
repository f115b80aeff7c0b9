"""JSON events at QoS 1, acknowledged after the commit: the rate without loss."""

from __future__ import annotations

from bench.load import Spec
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import in_turns
from bench.workload import CLIMATE


def run(options: Options) -> list[Row]:
    with Rig({"climate.py": CLIMATE}) as rig:
        n = 20_000 if options.quick else 60_000
        pair = in_turns(rig, Spec(rig.broker.port, "bench/{}/climate", n, qos=1), options.repeats)
    return [
        Row(
            "QoS 1 JSON events, acknowledged after commit",
            pair.rate,
            "events/s",
            f"mosquitto_sub {pair.peer_rate:,.0f}/s",
            pair.rate / pair.peer_rate,
            Target(0.7, 0.95, "higher", "ratio"),
            f"{pair.account()}; {pair.margin}",
            bool(pair.lost),
        ),
        *pair.costs("QoS 1"),
    ]
