"""edgefn check: everything that is wrong with settings and handlers, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from edgefn.cli import common
from edgefn.config import cache_folder
from edgefn.errors import EdgefnError
from edgefn.resources import bundled


@click.command(epilog="Example: edgefn check my-gateway && systemctl restart edgefn")
@click.argument("where", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(where: Path | None, as_json: bool) -> None:
    """Check the settings, drivers, uplinks and handlers of a folder; exit status 1 where anything is wrong."""
    findings: list[str] = []
    handlers: list[dict[str, Any]] = []
    folder = where / "handlers" if where is not None else None
    warnings: tuple[str, ...] = ()
    try:
        settings = common.load(where)
    except EdgefnError as error:
        findings += str(error).splitlines()
    else:
        warnings = settings.warnings
        findings += _drivers_and_sinks(settings)
        folder = Path(settings.gateway.handlers) if settings.gateway.handlers else None
    from edgefn import manifest
    from edgefn.gateway import handler_files

    if folder is None or folder.is_dir():
        folder = folder or bundled("handlers")
        from rich.console import Console

        with Console(stderr=True, quiet=as_json).status("") as status:
            manifests = handler_files.check(folder, cache_folder(), lambda what: status.update(f"compiling {what}"))
        for one in manifests:
            findings += [str(finding) for finding in one.findings]
            handlers += [{"file": one.file, "name": handler.name, "kind": handler.kind} for handler in one.handlers]
        findings += [str(finding) for finding in manifest.conflicts(manifests)]
    elif not findings:
        findings.append(f"{folder}: there is no such folder; `edgefn init DIR` makes one")
    if as_json:
        click.echo(json.dumps({"findings": findings, "warnings": warnings, "handlers": handlers}, indent=2))
    else:
        for finding in findings:
            click.echo(finding)
        counts = (("handler", len(handlers)), ("finding", len(findings)), ("warning", len(warnings)))
        click.echo(", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts), err=True)
    raise SystemExit(common.BAD_INPUT if findings else 0)


def _drivers_and_sinks(settings: Any) -> list[str]:
    from edgefn.drivers import load_driver
    from edgefn.sinks import load_sink
    from edgefn.uplink import split_options

    findings = []
    for entry in settings.driver:
        try:
            driver = load_driver(
                entry.use or entry.name, [settings.gateway.drivers] if settings.gateway.drivers else []
            )
            driver.check(entry.options)
        except (EdgefnError, msgspec.ValidationError) as error:
            named = str(error) if str(error).startswith("driver ") else f"driver {entry.name}: {error}"
            findings.append(f"{settings.file}: {named}")
    for entry in settings.uplink:
        try:
            _, options = split_options(entry.name, entry.options)
            load_sink(entry.type, options, gateway=settings.gateway.id)
        except EdgefnError as error:
            findings.append(f"{settings.file}: uplink {entry.name}: {error}")
    try:
        settings.address()
    except EdgefnError as error:
        findings.append(str(error))
    return findings
