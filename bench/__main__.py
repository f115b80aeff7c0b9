"""`python -m bench`: runs the benchmarks, prints one table and writes bench/results/latest.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import edgefn
from bench import plot
from bench.rows import Options, Row, sign

QUICK = ("qos0", "qos1", "batch", "cpu", "latency", "memory", "idle", "start", "enqueue", "backlog", "functions")
GROWTHS = ("growth_handlers", "growth_keys", "growth_payloads")
NAMES = (*QUICK, "drain", "writes", *GROWTHS)
RESULTS = Path(__file__).parent / "results" / "latest.json"
COLOURS = {"aim": "green", "must": "yellow", "missed": "red", "not measured": "red"}

Benchmark = Callable[[Options], list[Row]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure a whole gateway on this machine.")
    parser.add_argument("--quick", action="store_true", help="a first look: one repetition, without the slow ones")
    parser.add_argument("--full", action="store_true", help="a backlog of 1,000,000 rows")
    parser.add_argument("--only", choices=NAMES, action="append", help="this benchmark; may be given several times")
    parser.add_argument("--plot", metavar="FOLDER", type=Path, help="measure nothing: draw what was measured last")
    arguments = parser.parse_args()
    if arguments.plot is not None:
        return _plot(arguments.plot)
    options = Options(quick=arguments.quick, full=arguments.full)
    RESULTS.parent.mkdir(exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 160)
    rows: list[Row] = []
    took: dict[str, float] = {}
    failed = False
    for name in arguments.only or (QUICK if options.quick else NAMES):
        benchmark: Benchmark = import_module(f"bench.{name}").run
        started = time.monotonic()
        with console.status(f"measuring {name}"):
            try:
                rows += benchmark(options)
            except Exception as error:
                # The others are worth having all the same; this one is told as what it is.
                failed = True
                traceback.print_exc()
                rows.append(Row(name, None, "", note=f"not measured: {type(error).__name__}: {error}".split("\n")[0]))
        took[name] = round(time.monotonic() - started, 1)
        # After each: a run that is interrupted has measured something all the same.
        RESULTS.write_text(json.dumps(_results(rows, took, options), indent=1, ensure_ascii=False) + "\n")
    console.print(_table(rows))
    console.print(_machine()["machine"], highlight=False)
    return 1 if failed else 0


def _plot(folder: Path) -> int:
    try:
        for path in plot.write(RESULTS, folder):
            print(path)
    except plot.NothingToPlotError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _table(rows: list[Row]) -> Table:
    table = Table(title="edgefn, measured", show_lines=False)
    table.add_column("what", max_width=44)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("÷ peer", justify="right", no_wrap=True)
    table.add_column("must / aim", justify="right", no_wrap=True)
    table.add_column("reached", no_wrap=True)
    table.add_column("peer and notes", max_width=60)
    for row in rows:
        limits = ""
        if row.target is not None:
            limits = f"{sign(row.target.must)} / {sign(row.target.aim)}"
        verdict = row.verdict
        note = "; ".join(part for part in (row.peer, row.note) if part)
        table.add_row(
            row.what,
            f"{sign(row.value)} {row.unit}",
            sign(row.ratio) if row.ratio is not None else "",
            limits,
            f"[{COLOURS[verdict]}]{verdict}[/]" if verdict else "",
            note,
        )
    return table


def _machine() -> dict[str, Any]:
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, edgefn {edgefn.__version__}",
        "load": os.getloadavg()[0],
    }


def _results(rows: list[Row], took: dict[str, float], options: Options) -> dict[str, Any]:
    return {
        "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **_machine(),
        "options": asdict(options),
        "seconds": took,
        "rows": [{**asdict(row), "reached": row.verdict} for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
