"""What more keys cost: 1, 1,000 and 100,000 rooms in turn, each with a window of its own; beside mosquitto_sub."""

from __future__ import annotations

import time
from statistics import median

from bench import proc
from bench.curves import account, cpu_curve, point, rate_curves
from bench.load import Spec
from bench.rig import Rig
from bench.rows import Curve, Figure, Options, Panel, Row
from bench.throughput import Pair, peer_of, through_gateway, through_mosquitto_sub
from bench.workload import KEYED, SECOND, US

EVENTS = 300_000


def run(options: Options) -> list[Row]:
    counts = (1, 1_000) if options.quick else (1, 1_000, 100_000)
    events = 60_000 if options.quick else EVENTS
    pairs = {keys: Pair() for keys in counts}
    first: dict[int, float] = {}
    memory: dict[int, float] = {}
    with Rig({"keyed.py": KEYED}) as rig:

        def spec(n: int, keys: int) -> Spec:
            # One window for each key: within a second, which no run before can have closed.
            start = time.time_ns() // SECOND * SECOND
            return Spec(rig.broker.port, "bench/{}/climate", n, mark=rig.next_mark(), start=start, keys=keys, step=US)

        through_gateway(rig, spec(10_000, 1))  # warm
        for keys in counts:
            first[keys] = through_gateway(rig, spec(keys, keys)).cpu / keys * 1e6
            memory[keys] = proc.pss(rig.engine) / 2**20
        for _ in range(options.repeats):
            for keys, pair in pairs.items():
                load = spec(events, keys)
                pair.theirs.append(through_mosquitto_sub(peer_of(load), rig.broker_pid))
                pair.ours.append(through_gateway(rig, load))
    most = counts[-1]
    cost = {keys: pair.cpu for keys, pair in pairs.items()}
    closing = median((one.cpu_closed - one.cpu) / most * 1e6 for one in pairs[most].ours)
    lost = any(pair.lost for pair in pairs.values())
    closed = Curve(
        "with all summaries",
        tuple(point(keys, [one.cpu_closed / one.n * 1e6 for one in pair.ours]) for keys, pair in pairs.items()),
    )
    return [
        Row(
            f"{most:,} keys ÷ one",
            cost[most],
            "µs",
            f"one {cost[1]:.2f} µs",
            cost[most] / cost[1],
            note="engine CPU per event; "
            + ", ".join(f"{keys:,}: {value:.2f} µs" for keys, value in cost.items())
            + f"; {closing:.0f} µs more for each key's summary; {first[most]:.0f} µs for the first event of a key; "
            f"engine {memory[1]:.0f} MB with one, {memory[most]:.0f} MB with {most:,}; {account(pairs)}",
            lost=lost,
            figure=Figure(
                "growth-keys",
                "Keys of one stream",
                (
                    Panel(
                        "CPU of the engine",
                        "keys",
                        "µs per event",
                        (cpu_curve("to the last event", pairs), closed),
                    ),
                    Panel("Rate", "keys", "events per second", rate_curves(pairs)),
                ),
            ),
        )
    ]
