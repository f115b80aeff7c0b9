"""Rows a second into the durable outbox, in batches of 256, and what they cost the disk."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import proc
from bench.rig import GATEWAY
from bench.rows import Options, Row, Target
from edgefn.clock import SystemClock
from edgefn.metrics import Metrics
from edgefn.store import Commit, NewItem, Store, open_store

BATCH = 256
PAYLOAD = 200  # bytes of a usual summary


def store_at(path: Path) -> Store:
    """The store of the gateway that is measured, with one uplink, `cloud`."""
    return open_store(
        path, gateway=GATEWAY, clock=SystemClock(), metrics=Metrics(), max_bytes=1 << 30, uplinks=["cloud"]
    )


async def fill(path: Path, n: int, batch: int = BATCH, end: Callable[[], None] = lambda: None) -> float:
    """Writes n rows for the uplink `cloud`; returns the seconds that the commits took. `end`: before the store is closed."""
    payload = b'{"ts":"2026-01-01T00:00:00.000Z","handler":"second","key":"room01","values":{"mean":21.5}}'
    payload = payload[:-1] + b',"pad":"%s"}' % (b"x" * (PAYLOAD - len(payload) - 9))
    clock = SystemClock()
    async with store_at(path) as store:
        started = time.perf_counter()
        for at in range(0, n, batch):
            ts = clock.now()
            items = [NewItem(f"summary/h{i % 10}", payload, ts) for i in range(min(batch, n - at))]
            await store.commit(Commit(items))
        seconds = time.perf_counter() - started
        end()
        return seconds


def run(options: Options) -> list[Row]:
    n = BATCH * (100 if options.quick else 800)
    with tempfile.TemporaryDirectory(prefix="edgefn-bench-") as folder:
        before = proc.io(os.getpid())["write_bytes"]
        seconds = asyncio.run(fill(Path(folder) / "edgefn.db", n))
        written = proc.io(os.getpid())["write_bytes"] - before
    return [
        Row(
            "durable enqueue into the outbox, batches of 256",
            n / seconds,
            "rows/s",
            target=Target(20_000, 100_000, "higher", "value"),
            note=f"{n:,} rows of {PAYLOAD} bytes, one fsync a batch; {written / n:.0f} bytes written a row"
            if written
            else f"{n:,} rows of {PAYLOAD} bytes, one fsync a batch; this file system does not count what it writes",
        )
    ]
