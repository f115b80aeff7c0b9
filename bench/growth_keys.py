"""What more keys cost: 1, 1,000 and 100,000 rooms in turn, each with a window of its own; beside mosquitto_sub."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from bench import proc
from bench.curves import account, cpu_curve, point, rate_curves
from bench.load import Spec
from bench.rig import Rig
from bench.rows import Curve, Figure, Options, Panel, Row
from bench.throughput import Pair, Run, peer_of, through_gateway, through_mosquitto_sub
from bench.workload import KEYED, MANY, SECOND, US

MOST = 100_000


def run(options: Options) -> list[Row]:
    counts = (1, 1_000) if options.quick else (1, 1_000, MOST)
    pairs = {keys: Pair() for keys in counts}
    first: dict[int, float] = {}
    with ExitStack() as stack:
        # A gateway for each: one that has seen a hundred thousand keys goes on knowing them.
        rigs = {keys: stack.enter_context(Rig({"keyed.py": MANY if keys == MOST else KEYED})) for keys in counts}
        for keys, rig in rigs.items():
            _measure(rig, _spec(rig, 10_000, 1))  # warm
            one = _measure(rig, _spec(rig, keys, keys))
            if one.lost == keys:
                raise RuntimeError(f"no event is in a summary of {keys:,} keys; the log:\n{rig.log[-2000:]}")
            first[keys] = one.cpu / keys * 1e6
        for _ in range(options.repeats):
            for keys, rig in rigs.items():
                load = _spec(rig, 50_000 if options.quick else max(100_000, 2 * keys), keys)
                pairs[keys].theirs.append(through_mosquitto_sub(peer_of(load), rig.broker_pid))
                pairs[keys].ours.append(_measure(rig, load))
        memory = {keys: proc.pss(rig.engine) / 2**20 for keys, rig in rigs.items()}
        dropped = sum(_dropped(rig) for rig in rigs.values())
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
            f"engine {memory[1]:.0f} MB with one, {memory[most]:.0f} MB with {most:,}; {account(pairs)}; "
            f"{dropped:,} of {most * (options.repeats + 1):,} summaries of so many keys dropped on the way to the local broker",
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


def _spec(rig: Rig, n: int, keys: int) -> Spec:
    # One window for each key: within a second, which no run before can have closed.
    start = time.time_ns() // SECOND * SECOND
    return Spec(rig.broker.port, "bench/{}/climate", n, mark=rig.next_mark(), start=start, keys=keys, step=US)


def _measure(rig: Rig, load: Spec) -> Run:
    # When all windows close in one moment, more summaries come than the queue to the local broker takes. It counts what
    # it drops; all have the same number of samples, so that the account still has to come out even.
    each = load.n // load.keys
    return through_gateway(rig, load, counted=lambda: rig.samples["second"] + _dropped(rig) * each)


def _dropped(rig: Rig) -> int:
    """Messages that did not fit into the queue to the local broker."""
    return int(rig.metrics.get("counters", {}).get("local.dropped.queue_full", 0))
