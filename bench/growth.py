"""What more aggregates cost: 1, 10 and 100 on one stream, one field and one window."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.load import Spec
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.throughput import through_gateway
from bench.workload import many_aggregates
from edgefn.config import cache_folder


def run(options: Options) -> list[Row]:
    counts = (1, 10) if options.quick else (1, 10, 100, 300) if options.full else (1, 10, 100)
    costs = {n: _cost(n, options) for n in counts}
    most = counts[-1]
    return [
        Row(
            f"{most} aggregates on one stream ÷ one",
            costs[most],
            "µs",
            f"one {costs[1]:.2f} µs",
            costs[most] / costs[1],
            Target(30 * most / 300, 10 * most / 300, "lower", "ratio") if most == 300 else None,
            "engine CPU per event; "
            + ", ".join(f"{n}: {costs[n]:.2f} µs" for n in counts)
            + ("" if most == 300 else "; the target is for 300 (30, 10)"),
        )
    ]


def _compile(source: str) -> None:
    """Fills the cache: a hundred handlers in one file take longer than the gateway waits for one file."""
    cache = cache_folder()
    with tempfile.TemporaryDirectory(prefix="edgefn-bench-") as folder:
        file = Path(folder) / "many.py"
        file.write_text(source)
        subprocess.run(
            [sys.executable, "-m", "edgefn.loader", "--cache", str(cache), str(file)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache / "numba"), "NUMBA_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _cost(n: int, options: Options) -> float:
    """µs of engine CPU per event."""
    events = 40_000 if options.quick else 80_000
    costs = []
    source = many_aggregates(n)
    _compile(source)
    with Rig({"many.py": source}) as rig:
        for _ in range(options.repeats):
            spec = Spec(rig.broker.port, "bench/{}/climate", events, mark=rig.next_mark())
            one = through_gateway(rig, spec, aggregate=f"second_{n - 1}")
            if one.lost:
                # A file that does not compile in time would otherwise look like one that costs nothing.
                raise RuntimeError(
                    f"{one.lost} events are in no summary of {n} aggregates; the log:\n{rig.log[-2000:]}"
                )
            costs.append(one.cpu / events * 1e6)
    return median(costs)
