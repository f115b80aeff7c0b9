"""What one event costs the engine in CPU, against a hand-written program of paho, json and numpy that does the same."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from bench.load import Generator, Spec
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import through_gateway
from bench.workload import CLIMATE


def run(options: Options) -> list[Row]:
    n = 60_000 if options.quick else 100_000
    full, paced, peer, rates = [], [], [], []
    lost = 0
    with Rig({"climate.py": CLIMATE}) as rig:
        for _ in range(options.repeats):
            cost, rate = _peer(rig.broker.port, n)
            peer.append(cost)
            rates.append(rate)
            one = through_gateway(rig, Spec(rig.broker.port, "bench/{}/climate", n, mark=rig.next_mark()))
            slow = Spec(rig.broker.port, "bench/{}/climate", n // 5, rate=10_000, mark=rig.next_mark())
            two = through_gateway(rig, slow)
            full.append(one.cpu / one.n * 1e6)
            paced.append(two.cpu / two.n * 1e6)
            lost += abs(one.lost) + abs(two.lost)
    ours, theirs = median(full), median(peer)
    return [
        Row(
            "engine CPU per QoS 0 JSON event",
            ours,
            "µs",
            target=Target(2.0, 0.5, "lower", "value"),
            note=f"at full rate; {median(paced):.2f} µs at 10,000 events/s",
            lost=bool(lost),
        ),
        Row(
            "the same ÷ a hand-written paho program",
            ours,
            "µs",
            f"paho + json + numpy {theirs:.1f} µs",
            ours / theirs,
            Target(1 / 8, 1 / 30, "lower", "ratio"),
            f"1/{theirs / ours:.1f}; it takes {median(rates):,.0f} events/s",
            bool(lost),
        ),
    ]


def _peer(port: int, n: int) -> tuple[float, float]:
    """µs of CPU per event of bench/peer_paho.py, and its events a second."""
    command = [sys.executable, "-m", "bench.peer_paho", str(port), str(n)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()  # it is subscribed
        with Generator(Spec(port, "peers/{}/climate", n)) as generator:
            generator.go()
            result = json.loads(program.stdout.readline())
    return float(result["cpu"]) / n * 1e6, n / float(result["seconds"])
