"""How long a store takes to open, with a backlog and without one, closed in order and after kill -9; and with what memory.

As a program it is the child that is measured: `python -m bench.backlog fill PATH N` stores N rows and kills itself,
`python -m bench.backlog open PATH` prints what opening took.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.enqueue import fill, store_at
from bench.rows import Options, Row, Target


def run(options: Options) -> list[Row]:
    n = 1_000_000 if options.full else 20_000 if options.quick else 200_000
    with tempfile.TemporaryDirectory(prefix="edgefn-bench-") as folder:
        small, large = Path(folder) / "small.db", Path(folder) / "large.db"
        _child("fill", small, 0)
        _child("fill", large, n)
        killed = _child("open", large)
        opened = {path: [_child("open", path) for _ in range(options.repeats)] for path in (small, large)}
    empty, clean = (median(one["seconds"] for one in opened[path]) for path in (small, large))
    memory = max(one["peak"] for one in opened[small])
    return [
        Row(
            f"opening a store of {n:,} rows, after kill -9",
            killed["seconds"] * 1000,
            "ms",
            f"empty {empty * 1000:.1f} ms",
            killed["seconds"] / empty,
            note=f"{clean * 1000:.1f} ms where it was closed in order; until the first batch is read",
        ),
        Row(
            f"memory to open a store of {n:,} rows, after kill -9",
            killed["peak"] / 2**20,
            "MB",
            f"empty {memory / 2**20:.0f} MB",
            killed["peak"] / memory,
            Target(1.15, 1.05, "lower", "ratio"),
            "largest resident size of the process",
        ),
    ]


def _child(what: str, path: Path, *more: object) -> dict[str, Any]:
    """Runs this module in a process of its own; what it printed."""
    command = [sys.executable, "-m", "bench.backlog", what, str(path), *map(str, more)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{' '.join(command)} ended with status {ended.returncode}:\n{ended.stderr}")
    result: dict[str, Any] = json.loads(ended.stdout or "{}")
    return result


async def _fill(path: Path, n: int) -> None:
    await fill(path, n, 1024, end=lambda: os.kill(os.getpid(), signal.SIGKILL))


async def _open(path: Path) -> None:
    started = time.perf_counter()
    async with store_at(path) as store:
        await store.read("cloud", 256)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        print(json.dumps({"seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        asyncio.run(_fill(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        asyncio.run(_open(Path(sys.argv[2])))
