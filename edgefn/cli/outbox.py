"""edgefn outbox: what waits for the cloud, and what an operator does about it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from edgefn.cli import asking, common
from edgefn.cli.asking import as_json, of_all, of_ids, where, without_asking
from edgefn.errors import EdgefnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefn.cli.remote import Operator

of_stream = click.option("--stream", help="Only rows of this stream, such as summary/minute.")
for_uplink = click.option("--uplink", help="Only what waits for this uplink.")


@click.group()
def outbox() -> None:
    """Look at what waits for the cloud, export it, send it again, give it up.

    WHERE is the folder of a gateway (or its settings file). Where that gateway runs, it is asked over its local broker; else its
    store is opened directly. Exit status: 0; 1 where nothing matched or it was refused; 2 where it cannot run.
    """


@outbox.command(epilog="Example: edgefn outbox status my-gateway")
@where
@as_json
def status(where: Path | None, as_json: bool) -> None:
    """Tell how much waits, for which uplink, of which stream, and what was given up."""

    async def job(operator: Operator) -> dict[str, Any]:
        return {"running": operator.running, **await operator.ask("outbox-status", {})}

    told = asking.work(where, job)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from edgefn.cli import outbox_tables

    outbox_tables.show_status(told)


@outbox.command(epilog="Example: edgefn outbox peek my-gateway --stream alert/spike --limit 3")
@where
@of_stream
@for_uplink
@click.option("--dead", is_flag=True, help="Look at dead letters: what an uplink refused for good.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many rows.")
@as_json
def peek(where: Path | None, stream: str | None, uplink: str | None, dead: bool, limit: int, as_json: bool) -> None:
    """Show the rows that wait longest, as the cloud will see them. Nothing is changed."""
    if dead and (stream or uplink):
        raise click.UsageError("--dead shows all dead letters; it takes neither --stream nor --uplink")
    verb, kind = ("dead-peek", "letters") if dead else ("outbox-peek", "items")
    rows = asking.rows(where, verb, kind, {} if dead else _selection(stream, uplink), limit)
    if as_json:
        click.echo(json.dumps({kind: rows}, indent=2))
    else:
        from edgefn.cli import dead_tables, outbox_tables

        (dead_tables.show_letters if dead else outbox_tables.show_items)(rows)
    if not rows:
        asking.nothing()


@outbox.command(epilog="Example: edgefn outbox export my-gateway --to waiting.ndjson")
@where
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="The file; without it, standard output.")
@of_stream
@for_uplink
def export(where: Path | None, to: Path | None, stream: str | None, uplink: str | None) -> None:
    """Write all rows that wait, a line of JSON each, as an uplink sends them. They stay in the outbox.

    Rows that are stored meanwhile are left out. The file gets its name when it is complete.
    """
    with _target(to) as file:
        n, unfit = asking.work(where, lambda operator: _export(operator, file, _selection(stream, uplink)))
    click.echo(f"{n} rows written to {to or 'standard output'}", err=True)
    for row in unfit:
        click.echo(f"edgefn: left out: {row['key']}: {row['error']}", err=True)
    if unfit or not n:
        raise SystemExit(common.BAD_INPUT)


@outbox.command(epilog="Example: edgefn outbox requeue my-gateway --id 3 --id 4")
@where
@of_ids
@of_all
def requeue(where: Path | None, ids: tuple[int, ...], every: bool) -> None:
    """Put dead letters back, as `edgefn dead requeue` does. Their ids: edgefn dead list"""
    arguments = asking.letters(ids, every)
    asking.end(asking.work(where, lambda operator: operator.ask("dead-requeue", arguments))["requeued"], "requeued")


@outbox.command(epilog="Example: edgefn outbox purge my-gateway --stream summary/minute --uplink archive")
@where
@of_stream
@for_uplink
@click.option("--dead", is_flag=True, help="Throw dead letters away: those of --id, or all.")
@of_ids
@without_asking
def purge(
    where: Path | None, stream: str | None, uplink: str | None, dead: bool, ids: tuple[int, ...], yes: bool
) -> None:
    """Give up rows that wait: of one stream, for one uplink, or both; or dead letters. Counted as dropped (purged)."""
    if dead == bool(stream or uplink) or (ids and not dead):
        raise click.UsageError("say what: --stream or --uplink or both; or --dead, with --id for some of them")
    if not yes:
        asking.confirm(
            lambda: _question(asking.work(where, lambda one: one.ask("outbox-status", {})), stream, uplink, ids)
        )
    if dead:
        arguments: dict[str, Any] = {"ids": ids} if ids else {"all": True}
        answer = asking.work(where, lambda operator: operator.ask("dead-purge", arguments))
    else:
        answer = asking.work(where, lambda operator: operator.ask("outbox-purge", _selection(stream, uplink)))
    asking.end(answer["purged"], "purged")


def _question(told: dict[str, Any], stream: str | None, uplink: str | None, ids: tuple[int, ...]) -> str:
    """What is about to go, as far as that is counted."""
    if stream and uplink:
        return f"Give up all rows of {stream} that wait for {uplink}?"
    if stream:
        n = sum(one["rows"] for one in told["streams"] if one["name"] == stream)
        return f"Give up the {n} rows of {stream}, for all uplinks?"
    if uplink:
        return f"Give up the {told['uplinks'].get(uplink, {}).get('rows', 0)} rows that wait for {uplink}?"
    return f"Throw {len(ids) or told['dead']} dead letters away?"


def _selection(stream: str | None, uplink: str | None) -> dict[str, str]:
    return {name: value for name, value in (("stream", stream), ("uplink", uplink)) if value}


async def _export(operator: Operator, file: IO[bytes], wanted: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
    """Returns how many were written, and what could not be (bounded: a hundred of those)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    told = await operator.ask("outbox-status", {})
    of_stream = {one["name"]: 0 for one in told["streams"]}
    for one in told["streams"]:
        of_stream[one["name"]] += one["rows"]
    if "uplink" in wanted:
        total = told["uplinks"].get(wanted["uplink"], {}).get("rows", 0)
    else:
        total = of_stream.get(wanted["stream"], 0) if "stream" in wanted else sum(of_stream.values())
    n = 0
    unfit: list[dict[str, Any]] = []
    console = Console(stderr=True)
    columns = ("exporting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        async for page in asking.pages(operator, "outbox-peek", "items", wanted):
            for row in page:
                if row["position"] > told["position"]:
                    return n, unfit  # stored since it began: a gateway at work would never come to an end
                if "item" in row:
                    file.write(json.dumps(row["item"], ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                    n += 1
                elif len(unfit) < 100:
                    unfit.append(row)
            progress.advance(bar, len(page))
    return n, unfit


@contextmanager
def _target(to: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file under a temporary name that is on the disk when it gets its own."""
    if to is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if to.exists():
        raise EdgefnError(f"{to} is there already; choose another name or remove it")
    part = to.with_name(to.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(to)
    except OSError as error:
        raise EdgefnError(f"{to}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
