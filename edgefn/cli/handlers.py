"""edgefn handlers: which there are and how they are, and what an operator does about one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefn.cli.asking import as_json, where, work

if TYPE_CHECKING:
    from edgefn.cli.remote import Operator

of_name = click.argument("name")


@click.group()
def handlers() -> None:
    """Look at handlers, stop one, let it run again, go back to the version before.

    WHERE is the folder of a gateway (or its settings file). Where that gateway runs, it is asked over its local broker; else
    its state folder is read and written, and what is done holds when it is started. Exit status: 0; 1 where there is no such
    handler or version; 2 where it cannot run.
    """


@handlers.command("list", epilog="Example: edgefn handlers list my-gateway")
@where
@as_json
def list_(where: Path | None, as_json: bool) -> None:
    """Tell of all handlers what they are and whether they run."""
    told = _ask(where, "handlers", {})
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from edgefn.cli import handlers_tables

    handlers_tables.show_list(told)


@handlers.command(epilog="Example: edgefn handlers show spike my-gateway")
@of_name
@where
@as_json
def show(name: str, where: Path | None, as_json: bool) -> None:
    """Tell all of one handler: its state, what is wrong, its meter, and the versions that are kept."""
    told = _ask(where, "handlers", {"handler": name})
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from edgefn.cli import handlers_tables

    handlers_tables.show_one(told)


@handlers.command(epilog="Example: edgefn handlers pause spike my-gateway")
@of_name
@where
@as_json
def pause(name: str, where: Path | None, as_json: bool) -> None:
    """Stop a handler until it is resumed, also over restarts."""
    _end(_ask(where, "pause", {"handler": name}), as_json, f"{name} is paused")


@handlers.command(epilog="Example: edgefn handlers resume spike my-gateway")
@of_name
@where
@as_json
def resume(name: str, where: Path | None, as_json: bool) -> None:
    """Let a handler run again that was paused or is in quarantine."""
    told = _ask(where, "resume", {"handler": name})
    _end(told, as_json, f"{name} is {told['state']}" if told["running"] else f"{name} runs when the gateway is started")


@handlers.command(epilog="Example: edgefn handlers rollback spike my-gateway --to d47804d9")
@of_name
@where
@click.option(
    "--to", "version", help="The version, or its beginning; without it, the one before. See edgefn handlers show"
)
@as_json
def rollback(name: str, where: Path | None, version: str | None, as_json: bool) -> None:
    """Go back to a good version of a handler's file, until that changes. NAME is a handler, or a file such as climate.py.

    All handlers of the file go back.
    """
    kind = "file" if name.endswith(".py") else "handler"
    told = _ask(where, "rollback", {kind: name, **({} if version is None else {"version": version})})
    names = ", ".join(told["handlers"])
    running = "runs" if told["running"] else "runs when the gateway is started"
    _end(told, as_json, f"{Path(told['file']).name} {running} as version {told['to']} ({names})")


def _ask(where: Path | None, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    async def job(operator: Operator) -> dict[str, Any]:
        return {"running": operator.running, **await operator.ask(verb, arguments)}

    return work(where, job)


def _end(told: Mapping[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(told, indent=2) if as_json else text)
