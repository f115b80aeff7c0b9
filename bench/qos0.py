"""JSON events at QoS 0 through one filter and one aggregate of a second: the rate without loss."""

from __future__ import annotations

from bench.load import Spec
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import in_turns
from bench.workload import CLIMATE


def run(options: Options) -> list[Row]:
    with Rig({"climate.py": CLIMATE}) as rig:
        n = 60_000 if options.quick else 200_000
        pair = in_turns(rig, Spec(rig.broker.port, "bench/{}/climate", n), options.repeats)
    return [
        Row(
            "QoS 0 JSON events, filter + 1 s aggregate",
            pair.rate,
            "events/s",
            f"mosquitto_sub {pair.peer_rate:,.0f}/s",
            pair.rate / pair.peer_rate,
            Target(0.8, 0.95, "higher", "ratio"),
            f"{pair.account()}; {pair.margin}",
            bool(pair.lost),
        ),
        *pair.costs("QoS 0"),
    ]
