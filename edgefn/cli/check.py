"""edgefn check: everything that is wrong with settings and handlers, at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgefn.certificates import check_tls
from edgefn.cli import common
from edgefn.clock import SystemClock
from edgefn.config import Config, UplinkSettings, cache_folder
from edgefn.errors import EdgefnError, Trouble
from edgefn.resources import bundled

if TYPE_CHECKING:
    from edgefn.manifest import Manifest


@click.command(epilog="Example: edgefn check my-gateway && systemctl restart edgefn")
@click.argument("where", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(where: Path | None, as_json: bool) -> None:
    """Check the settings, drivers, uplinks and handlers of a folder; exit status 1 where anything is wrong."""
    findings: list[str] = []
    handlers: list[dict[str, Any]] = []
    folder = where / "handlers" if where is not None else None
    warnings: tuple[str, ...] = ()
    settings: Config | None = None
    try:
        settings = common.load(where)
    except EdgefnError as error:
        findings += str(error).splitlines()
    else:
        findings += _drivers(settings)
        troubles = [*_uplinks(settings), *_broker(settings), *_store(settings)]
        findings += [f"{settings.file}: {trouble}" for trouble in troubles if trouble.fatal]
        told = tuple(f"{settings.file}: {trouble}" for trouble in troubles if not trouble.fatal)
        for warning in told:
            click.echo(f"edgefn: warning: {warning}", err=True)
        warnings = settings.warnings + told
        folder = Path(settings.gateway.handlers) if settings.gateway.handlers else None
    from edgefn import manifest
    from edgefn.gateway import loading, streams

    if folder is None or folder.is_dir():
        folder = folder or bundled("handlers")
        from rich.console import Console

        with Console(stderr=True, quiet=as_json).status("") as status:
            manifests = loading.check(folder, cache_folder(), lambda what: status.update(f"compiling {what}"))
        for one in manifests:
            findings += [str(finding) for finding in one.findings]
            handlers += [{"file": one.file, "name": handler.name, "kind": handler.kind} for handler in one.everything]
        findings += [str(finding) for finding in manifest.conflicts(manifests)]
        if settings is not None:
            idle = (*_idle_patterns(settings.uplink, manifests), *streams.idle_tables(manifests, settings.stream))
            for warning in idle:
                click.echo(f"edgefn: warning: {warning}", err=True)
            warnings += idle
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


def _idle_patterns(uplinks: Iterable[UplinkSettings], manifests: Iterable[Manifest]) -> Iterator[str]:
    from edgefn.uplink import idle_patterns, split_options

    streams = [handler.stream for one in manifests for handler in one.everything if handler.stream]
    for entry in uplinks:
        with suppress(EdgefnError):  # told with everything else that is wrong in the settings
            for pattern in idle_patterns(split_options(entry.name, entry.options)[0].streams, streams):
                known = ", ".join(streams) or "none"
                yield f"uplink {entry.name}: {pattern!r} in streams matches nothing that is here; there are {known}"


def _drivers(settings: Config) -> Iterator[str]:
    from edgefn.drivers import load_driver

    for entry in settings.driver:
        try:
            driver = load_driver(
                entry.use or entry.name, [settings.gateway.drivers] if settings.gateway.drivers else []
            )
            driver.check(entry.options)
        except (EdgefnError, msgspec.ValidationError) as error:
            named = str(error) if str(error).startswith("driver ") else f"driver {entry.name}: {error}"
            yield f"{settings.file}: {named}"


def _uplinks(settings: Config) -> Iterator[Trouble]:
    from edgefn.sinks import load_sink
    from edgefn.uplink import split_options

    for entry in settings.uplink:
        try:
            _, options = split_options(entry.name, entry.options)
            sink = load_sink(entry.type, options, gateway=settings.gateway.id, folder=settings.folder)
            troubles = list(sink.check(SystemClock().now()))
        except EdgefnError as error:
            troubles = [Trouble(str(error))]
        for trouble in troubles:
            yield Trouble(f"uplink {entry.name}: {trouble}", trouble.fatal)


def _broker(settings: Config) -> Iterator[Trouble]:
    try:
        tls = settings.address().tls
    except EdgefnError as error:
        yield Trouble(str(error).removeprefix(f"{settings.file}: "))
        return
    for trouble in check_tls(tls, SystemClock().now()) if tls else ():
        yield Trouble(f"broker: {trouble}", trouble.fatal)


def _store(settings: Config) -> list[Trouble]:
    from edgefn.store import place

    return place.look(settings.store_path, settings.store.ballast)
