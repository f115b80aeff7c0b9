"""Rows a second into the durable outbox, in batches of 256."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.rig import GATEWAY
from bench.rows import Options, Row, Target
from edgefn.clock import SystemClock
from edgefn.metrics import Metrics
from edgefn.store import Commit, NewItem, open_store

BATCH = 256
PAYLOAD = 200  # bytes of a usual summary


async def fill(path: Path, n: int, batch: int = BATCH) -> float:
    """Writes n rows for the uplink `cloud`; returns the seconds that the commits took."""
    payload = b'{"ts":"2026-01-01T00:00:00.000Z","handler":"second","key":"room01","values":{"mean":21.5}}'
    payload = payload[:-1] + b',"pad":"%s"}' % (b"x" * (PAYLOAD - len(payload) - 9))
    clock = SystemClock()
    store = open_store(path, gateway=GATEWAY, clock=clock, metrics=Metrics(), max_bytes=1 << 30, uplinks=["cloud"])
    async with store:
        started = time.perf_counter()
        for at in range(0, n, batch):
            ts = clock.now()
            items = [NewItem(f"summary/h{i % 10}", payload, ts) for i in range(min(batch, n - at))]
            await store.commit(Commit(items))
        return time.perf_counter() - started


def run(options: Options) -> list[Row]:
    n = 256 * (100 if options.quick else 800)
    with tempfile.TemporaryDirectory(prefix="edgefn-bench-") as folder:
        seconds = asyncio.run(fill(Path(folder) / "edgefn.db", n))
    return [
        Row(
            "durable enqueue into the outbox, batches of 256",
            n / seconds,
            "rows/s",
            target=Target(20_000, 100_000, "higher", "value"),
            note=f"{n:,} rows of {PAYLOAD} bytes, one fsync a batch",
        )
    ]
