"""What longer messages cost: one reading out of 20 bytes to 100 kB of JSON, beside mosquitto_sub."""

from __future__ import annotations

from bench.curves import account, cpu_curve, rate_curves
from bench.load import Spec
from bench.rig import Rig
from bench.rows import Figure, Options, Panel, Row
from bench.throughput import Pair, peer_of, through_gateway, through_mosquitto_sub
from bench.workload import SIZED

# Bytes of a payload, and how many such messages: about a second's work, and no more than 100 MB in the generator.
LOADS = {20: 100_000, 200: 100_000, 2_000: 30_000, 20_000: 5_000, 100_000: 1_000}


def run(options: Options) -> list[Row]:
    pairs = {size: Pair() for size in LOADS}
    with Rig({"sized.py": SIZED}) as rig:
        for number in range(-1, options.repeats):
            for size, pair in pairs.items():
                n = LOADS[size] // (2 if options.quick else 1)
                if number < 0:
                    n //= 10
                load = Spec(rig.broker.port, "bench/{}/sized", n, "sized", mark=rig.next_mark(), size=size)
                if number >= 0:
                    pair.theirs.append(through_mosquitto_sub(peer_of(load), rig.broker_pid))
                ours = through_gateway(rig, load)
                if number >= 0:
                    pair.ours.append(ours)
    small, large = min(pairs), max(pairs)
    lost = any(pair.lost for pair in pairs.values())
    return [
        Row(
            f"payloads of {large // 1000} kB, one field of it",
            pairs[large].rate * large / 1e6,
            "MB/s",
            f"mosquitto_sub {pairs[large].peer_rate * large / 1e6:,.0f} MB/s",
            pairs[large].rate / pairs[large].peer_rate,
            note="engine CPU per event and rate ÷ mosquitto_sub; "
            + ", ".join(
                f"{size:,} B: {pair.cpu:.2f} µs, {pair.rate / pair.peer_rate:.2f}" for size, pair in pairs.items()
            )
            + f"; {(pairs[large].cpu - pairs[small].cpu) / (large - small) * 1e3:.2f} ns a byte; {account(pairs)}",
            lost=lost,
            figure=Figure(
                "growth-payloads",
                "Bytes of a payload",
                (
                    Panel("CPU of the engine", "bytes", "µs per event", (cpu_curve("engine", pairs),), log=True),
                    Panel("Rate", "bytes", "events per second", rate_curves(pairs), log=True),
                ),
            ),
        )
    ]
