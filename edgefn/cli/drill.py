"""edgefn drill: a fault made on purpose on a gateway that runs, and what came of it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefn.cli import common
from edgefn.cli.asking import work

if TYPE_CHECKING:
    from edgefn.cli.remote import Operator

DAY = 86_400


@click.group()
def drill() -> None:
    """Make a fault on purpose, and see that nothing is lost."""


@drill.command(epilog="Example: edgefn drill offline 60 my-gateway")
@click.argument("seconds", type=click.FloatRange(0, DAY, min_open=True))
@click.argument("where", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--uplink", help="Only this one; without it, all.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def offline(seconds: float, where: Path | None, uplink: str | None, as_json: bool) -> None:
    """Cut the uplinks of the running gateway for SECONDS, then see that all that was buffered arrives.

    Handlers and local MQTT go on. Ctrl-C restores the lines at once (and, said again, ends the waiting for what was buffered);
    the gateway restores them by itself when the time is over, whatever becomes of this command. Exit status: 0 where all
    arrived, 1 where anything was lost or still waits, 2 where no gateway runs.
    """
    arguments = {"seconds": seconds, **({"uplink": uplink} if uplink else {})}
    told = work(where, lambda operator: _run(operator, arguments, seconds, quiet=as_json))
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _show(told)
    raise SystemExit(common.BAD_INPUT if told["lost"] or told["waiting"] else 0)


async def _run(operator: Operator, arguments: dict[str, Any], seconds: float, *, quiet: bool) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    loop = asyncio.get_running_loop()
    said: set[asyncio.Task[None]] = set()

    def stop() -> None:
        task = loop.create_task(operator.say("drill-stop"))
        said.add(task)
        task.add_done_callback(said.discard)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        bar = progress.add_task("cutting", total=seconds, note="")
        backlog = 0

        def news(one: dict[str, Any]) -> None:
            nonlocal backlog
            waiting = sum(one["waiting"].values())
            if one["phase"] == "offline":
                left = one["left_s"]
                note = f"{left:.0f} s left, {waiting} waiting"
                progress.update(bar, description="offline", total=seconds, completed=seconds - left, note=note)
            else:
                backlog = max(backlog, waiting)
                note = f"{waiting} waiting"
                progress.update(
                    bar, description="draining", total=max(1, backlog), completed=backlog - waiting, note=note
                )

        result: dict[str, Any] = await operator.ask("drill-offline", arguments, news)
        return result


def _show(told: dict[str, Any]) -> None:
    from edgefn.cli.outbox_tables import console, new_table

    out = console()
    early = " (stopped early)" if told["stopped"] else ""
    out.print(f"offline for {told['offline_s']} s{early}, drained in {told['drain_s']} s")
    rows = new_table("uplink", "*waited before", "*buffered", "*replayed", "*dropped", "*still waiting", "*lost")
    for name, one in told["uplinks"].items():
        dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(one["dropped"].items())) or "0"
        numbers = [str(one[what]) for what in ("before", "buffered", "replayed")]
        rows.add_row(name, *numbers, dropped, str(one["waiting"]), str(one["lost"]))
    out.print(rows)
