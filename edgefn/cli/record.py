"""edgefn record: live topics into a file that `edgefn replay` reads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefn.cli import common

if TYPE_CHECKING:
    from edgefn.trial.recorder import Recorder


@click.command(epilog="Example: edgefn record my-gateway --to monday.ndjson --topic 'sensors/#' --seconds 3600")
@click.argument("where", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--to", "to", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.ndjson")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="PATTERN",
    help="What is recorded; may be given several times. Without it: all but what gateways say themselves.",
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Ends after so long.")
@click.option("--count", type=click.IntRange(min=1), help="Ends after so many messages.")
def record(where: Path | None, to: Path, topics: tuple[str, ...], seconds: float | None, count: int | None) -> None:
    """Record messages of a gateway's broker into FILE, until Ctrl-C.

    Each message is a line: when it came, its topic and its payload; bytes that are no text as base64. Messages that the broker
    had kept are among them, and marked. The gateway need not run, the broker has to.
    """
    if to.suffix not in (".ndjson", ".jsonl"):
        raise click.BadParameter(f"{to}: a recording is called something.ndjson", param_hint="--to")
    logging.basicConfig(level=logging.WARNING, format="edgefn: %(message)s")
    settings = common.load(where)
    from edgefn.trial.recorder import Recorder

    recorder = Recorder(settings.address(), topics)
    asyncio.run(_run(recorder, to, seconds, count))
    dropped = f"; {recorder.dropped} came faster than they could be written and are missing" if recorder.dropped else ""
    nothing = "" if recorder.recorded else "; no file was made"
    click.echo(f"{to}: {recorder.recorded} messages{nothing}{dropped}", err=True)


async def _run(recorder: Recorder, to: Path, seconds: float | None, count: int | None) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, recorder.stop)
    async with _shown(recorder):
        await recorder.run(
            to, seconds=seconds, count=count, begun=lambda: click.echo("recording; Ctrl-C ends it", err=True)
        )


@contextlib.asynccontextmanager
async def _shown(recorder: Recorder) -> AsyncIterator[None]:
    """On a terminal, how many there are so far."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:

        async def update() -> None:
            while True:
                status.update(f"{recorder.recorded} messages")
                await asyncio.sleep(1.0)

        task = asyncio.create_task(update())
        try:
            yield
        finally:
            task.cancel()
