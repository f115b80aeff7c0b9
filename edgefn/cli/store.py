"""edgefn store: look over the store of a gateway that is stopped, and take over what can be read of another one."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgefn import config
from edgefn.cli import common
from edgefn.errors import StoreError


@click.group()
def store() -> None:
    """Look into the store of a gateway that is stopped.

    DIR is the folder of the settings, or the folder of the store itself: /var/lib/edgefn for the service.
    """


@store.command(epilog="Example: systemctl stop edgefn && edgefn store check /var/lib/edgefn")
@click.argument("where", metavar="[DIR]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(where: Path | None, as_json: bool) -> None:
    """Read all of the store and say what is wrong with it. Changes nothing.

    Exit status 0: all is well. 1: findings. 2: it cannot be read, or a gateway has it open.
    """
    from edgefn.store import checking

    report = checking.check(_path(where))
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _print(report)
    raise SystemExit(common.BAD_INPUT if report.findings else 0)


@store.command(epilog="Example: edgefn store salvage /media/usb/edgefn.db.damaged-20261123T101500Z /var/lib/edgefn")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("where", metavar="[DIR]", required=False, type=click.Path(exists=True, path_type=Path))
def salvage(file: Path, where: Path | None) -> None:
    """Take what can be read of FILE, a damaged or foreign store, into the store of DIR.

    Its items keep their keys and go to the uplinks that did not have them. What was taken before is not taken twice. A
    gateway does this by itself with a store that it sets aside; this is for files that come from elsewhere.

    Exit status 0: all of it was taken. 1: not all can be read, or there was no room. 2: nothing could be done.
    """
    from rich.console import Console
    from rich.progress import Progress

    from edgefn.store import opening

    path = _path(where)
    if path.exists() and path.samefile(file):
        raise StoreError(f"{file}: this is the store of {path.parent} itself; a gateway that starts mends it")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=None)
        found = opening.salvage_into(
            path, file, time.time_ns(), lambda done, of: bar.update(task, completed=done, total=of)
        )
    click.echo(f"{file}: {found}")
    raise SystemExit(common.BAD_INPUT if found.damaged or not found.counted or not found.complete else 0)


def _path(where: Path | None) -> Path:
    if where is not None and (where / config.STORE).exists():
        return where / config.STORE
    return common.load(where).store_path


def _print(report: Any) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    console = Console()
    facts = Table(box=None, show_header=False)
    log = f", and {decimal(report.log_size)} of log" if report.log_size else ""
    for name, value in (
        ("store", report.path),
        ("version", f"{report.version}, epoch {report.epoch or 'unknown'}"),
        ("size", f"{decimal(report.size)}{log}; {decimal(report.free_inside)} of it free for new rows"),
        ("disk", f"{decimal(report.free_on_disk)} free, and {decimal(report.ballast)} of ballast"),
        ("state", f"of {report.state_of} handlers and windows"),
        ("dead letters", str(report.dead_letters)),
    ):
        facts.add_row(name, value)
    console.print(facts)
    if report.streams:
        streams = Table("epoch", "stream", "rows", "given up")
        for epoch, name, rows, dropped in report.streams:
            streams.add_row(epoch, name, str(rows), str(dropped))
        console.print(streams)
    for finding in report.findings:
        click.echo(finding)
    n = len(report.findings)
    click.echo(f"{n} finding{'' if n == 1 else 's'}" if n else "all is well", err=True)
