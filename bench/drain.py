"""A backlog on its way out through the MQTT sink, against a bare paho publisher; and the memory that it takes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import proc
from bench.enqueue import fill
from bench.rig import UNLIMITED, Rig
from bench.rows import Options, Row, Target
from bench.wire import Connection
from edgefn.broker import PrivateBroker

SMALL = 10_000  # rows of the backlog that memory is compared with
WINDOW = 100  # messages that may wait for their PUBACK: the sink's default
SILENCE = 20.0  # seconds without a message after which the rest counts as lost


@dataclass
class Arrivals:
    """What a subscriber in the cloud has got."""

    n: int = 0
    first: int = 0
    last: int = 0
    bytes: int = 0
    keys: set[str] = field(default_factory=set)

    @property
    def rate(self) -> float:
        return (self.n - 1) / (self.last - self.first) * 1e9


def run(options: Options) -> list[Row]:
    n = 1_000_000 if options.full else 20_000 if options.quick else 100_000
    _, _, small = _drain(SMALL)
    arrivals, first, large = _drain(n)
    size = arrivals.bytes // arrivals.n
    peers = [_publish(min(n, 30_000), size) for _ in range(options.repeats)]
    peer = median(peers)
    missing = n - len(arrivals.keys)
    extra = arrivals.n - len(arrivals.keys)
    return [
        Row(
            f"drain of a {n:,}-row backlog over MQTT, QoS 1",
            arrivals.rate,
            "rows/s",
            f"bare paho {peer:,.0f}/s",
            arrivals.rate / peer,
            Target(0.7, 1.0, "higher", "ratio"),
            f"{missing:,} missing, {extra:,} twice; {size} bytes a message",
            bool(missing),
        ),
        Row(
            f"gateway memory while it drains {n:,} rows ÷ {SMALL:,} rows",
            large / 2**20,
            "MB",
            f"{small / 2**20:.0f} MB",
            large / small,
            Target(1.15, 1.05, "lower", "ratio"),
            f"{first / 2**20:.0f} MB before the first row arrived; 15 % is taken for independent of the backlog",
        ),
    ]


def _drain(n: int) -> tuple[Arrivals, int, int]:
    """Starts a gateway on a store with a backlog; what arrived, and its memory before that and at most meanwhile."""
    first = peak = 0
    with (
        Rig({}, prepare=lambda state: _fill(state, n), wait=False) as rig,
        Connection(rig.cloud.port, "bench-cloud") as cloud,
    ):
        cloud.subscribe("edgefn/#")
        arrivals = Arrivals()
        looked = 0.0
        for _ in _until_silent(cloud, arrivals, n):
            if time.monotonic() - looked > 0.25:
                memory, looked = proc.pss(rig.gateway), time.monotonic()
                peak = max(peak, memory)
                first = first if arrivals.n else memory
    return arrivals, first, peak


def _fill(state: Path, n: int) -> None:
    asyncio.run(fill(state / "edgefn.db", n, 1024))


def _until_silent(cloud: Connection, arrivals: Arrivals, n: int) -> Iterator[None]:
    quiet = time.monotonic()
    while len(arrivals.keys) < n and time.monotonic() - quiet < SILENCE:
        for message in cloud.receive(0.25):
            quiet = time.monotonic()
            arrivals.first = arrivals.first or message.at
            arrivals.last = message.at
            arrivals.n += 1
            arrivals.bytes += len(message.payload)
            arrivals.keys.add(json.loads(message.payload)["id"] if message.payload[:1] == b"{" else str(arrivals.n))
        yield


def _publish(n: int, size: int) -> float:
    """Messages a second of bench/peer_publisher.py, seen by the same kind of subscriber."""
    with PrivateBroker(config=UNLIMITED) as broker, Connection(broker.port, "bench-cloud") as cloud:
        cloud.subscribe("edgefn/#")
        arrivals = Arrivals()
        command = [sys.executable, "-m", "bench.peer_publisher", *map(str, (broker.port, n, size, WINDOW))]
        with subprocess.Popen(command):
            for _ in _until_silent(cloud, arrivals, n):
                pass
    return arrivals.rate
