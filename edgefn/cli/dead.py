"""edgefn dead: what an uplink refused for good, or a handler could not do, and what an operator does about it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgefn.cli import asking, common
from edgefn.cli.asking import as_json, of_all, of_ids, where, without_asking


@click.group()
def dead() -> None:
    """Look at dead letters, send them again, throw them away.

    A dead letter is a row that an uplink refused for good, or an event that a Python handler could not do. WHERE is the folder of
    a gateway (or its settings file). Where that gateway runs, it is asked over its local broker; else its store is opened
    directly. Exit status: 0; 1 where nothing matched or it was refused; 2 where it cannot run.
    """


@dead.command("list", epilog="Example: edgefn dead list my-gateway --limit 100")
@where
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many.")
@as_json
def list_(where: Path | None, limit: int, as_json: bool) -> None:
    """List dead letters, the oldest first. Nothing is changed."""
    letters = asking.rows(where, "dead-peek", "letters", {}, limit)
    if as_json:
        click.echo(json.dumps({"letters": letters}, indent=2))
    else:
        from edgefn.cli import dead_tables

        dead_tables.show_letters(letters)
    if not letters:
        asking.nothing()


@dead.command(epilog="Example: edgefn dead show 3 my-gateway")
@click.argument("id_", metavar="ID", type=click.IntRange(1))
@where
@as_json
def show(id_: int, where: Path | None, as_json: bool) -> None:
    """Show one dead letter: who refused it and why, and all that it holds."""
    letters = asking.rows(where, "dead-peek", "letters", {}, 1, after=id_ - 1)
    if not letters or letters[0]["id"] != id_:
        click.echo(f"edgefn: there is no dead letter {id_}; see edgefn dead list", err=True)
        raise SystemExit(common.BAD_INPUT)
    if as_json:
        click.echo(json.dumps(letters[0], indent=2))
        return
    from edgefn.cli import dead_tables

    dead_tables.show_letter(letters[0])


@dead.command(epilog="Example: edgefn dead requeue my-gateway --id 3 --id 4")
@where
@of_ids
@of_all
@as_json
def requeue(where: Path | None, ids: tuple[int, ...], every: bool, as_json: bool) -> None:
    """Put dead letters back: into the outbox for the uplink that refused them, or before the handler that failed."""
    arguments = asking.letters(ids, every)
    told = asking.work(where, lambda operator: operator.ask("dead-requeue", arguments))
    asking.end(told["requeued"], "requeued", as_json)


@dead.command(epilog="Example: edgefn dead purge my-gateway --all --yes")
@where
@of_ids
@of_all
@without_asking
@as_json
def purge(where: Path | None, ids: tuple[int, ...], every: bool, yes: bool, as_json: bool) -> None:
    """Throw dead letters away. Counted as dropped (purged)."""
    arguments = asking.letters(ids, every)
    if not yes:
        asking.confirm(lambda: _question(len(ids) or _n_dead(where)))
    told = asking.work(where, lambda operator: operator.ask("dead-purge", arguments))
    asking.end(told["purged"], "purged", as_json)


def _question(n: int) -> str:
    return "Throw one dead letter away?" if n == 1 else f"Throw {n} dead letters away?"


def _n_dead(where: Path | None) -> int:
    told = asking.work(where, lambda operator: operator.ask("outbox-status", {}))
    return int(told["dead"])
