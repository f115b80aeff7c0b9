"""edgefn new: a file to start from, with its test."""

from __future__ import annotations

import keyword
from pathlib import Path

import click

from edgefn.cli import common

_HANDLER = '''"""{title}: say here in one sentence what passes through this file."""

from typing import NamedTuple

from edgefn import aggregate, filter, tumbling


@filter("sensors/{{room}}/climate")  # which topics; each room is kept apart
def {name}_plausible(temperature):  # a field of the payload; return whether the event is kept
    return -40 < temperature < 85


class {title}(NamedTuple):  # the names of what is put out
    mean: float
    peak: float


@aggregate({name}_plausible, tumbling("1m"))
def {name}(temperature) -> {title}:  # all samples of one room and one minute, as an array
    return {title}(temperature.mean(), temperature.max())
'''


@click.group()
def new() -> None:
    """Make a new file to start from."""


@new.command("handler", epilog="Example: edgefn new handler comfort --folder my-gateway/handlers")
@click.argument("name")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("handlers"), show_default=True)
def new_handler(name: str, folder: Path) -> None:
    """Write a handler file NAME.py with a filter and an aggregate."""
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii() or name.startswith("_"):
        click.echo(f"edgefn: {name!r} is not a name; use letters, digits and _, as in room_comfort", err=True)
        raise SystemExit(common.CANNOT_RUN)
    target = folder / f"{name}.py"
    if target.exists():
        click.echo(f"edgefn: {target} is there already; choose another name or remove it", err=True)
        raise SystemExit(common.CANNOT_RUN)
    folder.mkdir(parents=True, exist_ok=True)
    title = "".join(part.capitalize() for part in name.split("_"))
    target.write_text(_HANDLER.format(name=name, title=title))
    click.echo(f"created {target}; the gateway whose handlers are in {folder} runs it from now on")
