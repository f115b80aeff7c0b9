"""edgefn init: a folder to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from edgefn import config
from edgefn.resources import bundled


@click.command(epilog="Example: edgefn init my-gateway && edgefn run my-gateway")
@click.argument("where", type=click.Path(file_okay=False, path_type=Path))
def init(where: Path) -> None:
    """Make a folder with annotated settings and the handlers that ship. Changes no file that is there already."""
    (where / "handlers").mkdir(parents=True, exist_ok=True)
    copies = [(bundled("systemd") / config.FILE, where / config.FILE)]
    copies += [(file, where / "handlers" / file.name) for file in sorted(bundled("handlers").glob("*.py"))]
    for source, target in copies:
        if target.exists():
            click.echo(f"kept    {target}")
        else:
            shutil.copyfile(source, target)
            click.echo(f"created {target}")
    click.echo(f"\nRun it:   edgefn run {where}\nWatch it: mosquitto_sub -v -t 'edgefn/#'")
