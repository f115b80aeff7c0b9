"""edgefn replay: recorded events through handlers, by the clock of the recording."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgefn.cli import common, trying
from edgefn.timestamps import to_iso
from edgefn.trial.rows import Failed, Forwarded, Published, Row, Told

if TYPE_CHECKING:
    from edgefn.trial.recording import Recording
    from edgefn.trial.replay import Counts, Replay

MAX_TOLD = 20  # bad lines and failures that are told one by one
INTERRUPTED = 130


@click.command(epilog="Example: edgefn replay monday.ndjson --handlers my-gateway/handlers --json > rows.ndjson")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--handlers",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR|FILE",
    help="What they go through; may be given several times. Without it: the handlers of this folder's gateway.",
)
@click.option("--topic", help="The topic of all rows of a CSV file that has no such column.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="N",
    help="N times as fast as it was recorded: 1 is real time. 0, as is without it: as fast as it goes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print NDJSON: a line a row, and at the end the counts.")
def replay(file: Path, handlers: tuple[Path, ...], topic: str | None, speed: float, as_json: bool) -> None:
    """Send the events of FILE (.ndjson or .csv) through handlers, and print what they put out.

    The times in the file drive the clock: windows close, and @every and @cron come, as they would have. No broker, cloud or
    hardware is needed. `edgefn record` makes such files; the guide says what is in them.

    Exit status 0: all lines were read. 1: some were bad, and are told by their number. 2: it cannot run.
    130: Ctrl-C has ended it.
    """
    from edgefn.trial.recording import Recording
    from edgefn.trial.replay import Replay
    from edgefn.trial.workers import Workers

    places = trying.places(handlers)
    manifests = trying.load(places.handlers)
    told = _Printer(as_json)
    with (
        Recording(file, topic) as recording,
        Replay(
            manifests,
            lambda clock: Workers(places.gateway, places.secrets, told.printed),
            told,
            gateway=places.gateway,
            speed=speed,
        ) as run,
    ):
        ended_early = not _go(recording, run, told)
        counts = run.count()
    told.finish(counts, ended_early)
    raise SystemExit(INTERRUPTED if ended_early else common.BAD_INPUT if counts.bad_lines else 0)


def _go(recording: Recording, run: Replay, told: _Printer) -> bool:
    """False where Ctrl-C has ended it."""
    with _progress(recording) as update, contextlib.suppress(KeyboardInterrupt):
        for number, message in enumerate(recording):
            run.take(message, lambda text: told.problem(text, f"{recording.path}:{recording.line}"))
            if number % 256 == 0:
                update()
        run.finish()
        return True
    return False


@contextlib.contextmanager
def _progress(recording: Recording) -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Rows that go to the same terminal are printed above the bar; those that go to a file must not.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    with bar:
        task = bar.add_task(recording.path.name, total=recording.size)
        yield lambda: bar.update(task, completed=recording.position)


class _Printer:
    """Prints what comes out as it does, so that nothing gathers."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._told = 0

    def __call__(self, told: Told) -> None:
        if isinstance(told, Failed):
            self.problem(f"{told.handler}: {told.error}")
        elif self._as_json:
            click.echo(msgspec.json.encode(_as_dict(told)))
        else:
            click.echo(_as_text(told))

    def printed(self, handler: str, level: str, line: str) -> None:
        """What a Python handler printed or logged."""
        click.echo(f"{handler}: {line}", err=True)

    def problem(self, text: str, where: str = "") -> None:
        self._told += 1
        if self._told <= MAX_TOLD:
            click.echo(f"edgefn: {text if text.startswith(where) else f'{where}: {text}'}", err=True)
        elif self._told == MAX_TOLD + 1:
            click.echo("edgefn: and so on; the rest is counted", err=True)

    def finish(self, counts: Counts, ended_early: bool) -> None:
        if self._as_json:
            click.echo(msgspec.json.encode({"counts": {**counts.as_dict(), "ended_early": ended_early}}))
        else:
            _print_counts(counts, ended_early)


def _as_dict(told: Told) -> dict[str, Any]:
    body: dict[str, Any] = {"ts": to_iso(told.ts), "handler": told.handler}
    if isinstance(told, Published):
        data = told.data
        body |= {"topic": told.topic, "payload": data if not isinstance(data, bytes) else told.payload.hex()}
    elif isinstance(told, Row):
        body |= {"key": told.key, "values": told.values}
    elif isinstance(told, Forwarded):
        body |= {"key": told.key, "stream": told.stream, "values": told.values}
    return body


def _as_text(told: Told) -> str:
    head = f"{to_iso(told.ts)}  {told.handler:<16}"
    if isinstance(told, Published):
        return f"{head} → {told.topic}  {told.payload[:200].decode(errors='backslashreplace')}"
    if isinstance(told, (Row, Forwarded)):
        mark = "⇒ cloud" if isinstance(told, Forwarded) else ""
        values = told.values.items() if isinstance(told.values, dict) else [("value", told.values)]
        shown = "  ".join(f"{name}={_short(value)}" for name, value in values)
        return f"{head} {told.key:<16} {mark + '  ' if mark else ''}{shown}"
    return head


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_counts(counts: Counts, ended_early: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    table = Table("handler", box=None)
    for name in ("events", "rows", "skipped", "raised"):
        table.add_column(name, justify="right")
    for handler, line in counts.handlers.items():
        table.add_row(handler, *map(str, line.values()))
    if counts.handlers:
        console.print(table)
    said = [f"{counts.events} events" + (f" of {(counts.last - counts.first) / 1e9:.1f} s" if counts.events else "")]
    said += [f"{n} payloads failed: {reason}" for reason, n in counts.failed.items()]
    for n, what in (
        (counts.unheard, "that no handler listens to"),
        (counts.late, "samples too late for their window"),
        (counts.earlier, "earlier than one before them"),
        (counts.bad_lines, "bad lines"),
    ):
        if n:
            said.append(f"{n} {what}")
    console.print(("ended early; " if ended_early else "") + ", ".join(said), soft_wrap=True)
