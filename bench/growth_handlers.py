"""What more aggregates cost: 1, 10, 100 and 300 on one stream, one field and one window."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.curves import point
from bench.load import Spec
from bench.rig import Rig
from bench.rows import Curve, Figure, Options, Panel, Row, Target
from bench.throughput import Run, through_gateway
from bench.workload import many_aggregates
from edgefn.config import cache_folder


def run(options: Options) -> list[Row]:
    counts = (1, 10) if options.quick else (1, 10, 100, 300)
    runs = _runs(counts, options)
    cpu = Curve(
        "engine",
        tuple(point(n, [one.cpu / one.n * 1e6 for one in runs[n]]) for n in counts),
    )
    costs = {n: cpu.points[i][1] for i, n in enumerate(counts)}
    most = counts[-1]
    lost = sum(abs(one.lost) for some in runs.values() for one in some)
    return [
        Row(
            f"{most} aggregates on one stream ÷ one",
            costs[most],
            "µs",
            f"one {costs[1]:.2f} µs",
            costs[most] / costs[1],
            Target(30, 10, "lower", "ratio") if most == 300 else None,
            "engine CPU per event; "
            + ", ".join(f"{n}: {cost:.2f} µs" for n, cost in costs.items())
            + f"; {lost or 'none'} lost"
            + ("" if most == 300 else "; the target is for 300 (30, 10)"),
            bool(lost),
            Figure(
                "growth-handlers",
                "Aggregates on one stream",
                (Panel("CPU of the engine", "aggregates", "µs per event", (cpu,)),),
            ),
        )
    ]


def _runs(counts: tuple[int, ...], options: Options) -> dict[int, list[Run]]:
    """One gateway for each count, all at once, so that a slow moment of the machine is not one count's own."""
    events = 40_000 if options.quick else 80_000
    runs: dict[int, list[Run]] = {n: [] for n in counts}
    with ExitStack() as stack:
        rigs = {}
        for n in counts:
            source = many_aggregates(n)
            _compile(source)
            rigs[n] = stack.enter_context(Rig({"many.py": source}))
        for number in range(-1, options.repeats):
            for n, rig in rigs.items():
                size = events if number >= 0 else events // 10
                spec = Spec(rig.broker.port, "bench/{}/climate", size, mark=rig.next_mark())
                one = through_gateway(rig, spec, aggregate=f"second_{n - 1}")
                if one.lost == size:
                    # A file that does not compile in time would otherwise look like one that costs nothing.
                    raise RuntimeError(f"no event is in a summary of {n} aggregates; the log:\n{rig.log[-2000:]}")
                if number >= 0:
                    runs[n].append(one)
    return runs


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
