"""edgefn invoke: one handler, once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgefn.cli import common, trying
from edgefn.manifest import FunctionManifest
from edgefn.timestamps import to_iso

if TYPE_CHECKING:
    from edgefn.trial.invoke import Invoked

MAX_SHOWN = 50  # messages that a handler published


@click.command(epilog="Example: edgefn invoke handlers/light.py --event '{\"open\": true}'")
@click.argument("handler", metavar="FILE[:NAME]")
@click.option("--event", metavar="JSON|FILE", help="Its payload: JSON as it is, or a file that holds it.")
@click.option("--topic", help="The topic that it came on; by default one that the handler listens to.")
@click.option("--state", metavar="JSON", help="What a Python handler has kept: an object.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
def invoke(handler: str, event: str | None, topic: str | None, state: str | None, as_json: bool) -> None:
    """Run one handler of FILE over one event, without broker, cloud or hardware, and print what came of it.

    NAME may be left away where the file has one handler. A Python handler runs in a process of its own, with its timeout and its
    memory limit; what it publishes is shown and goes nowhere. A compiled one runs as in the engine, its windows closing
    right after the event.

    Exit status 0: it ran. 1: it raised, took too long, or could not use the event. 2: there is no such handler, or it cannot be
    loaded.
    """
    file, name = _split(handler)
    payload = _payload(event)
    kept = _state(state)
    (manifest,) = trying.load([file])
    from edgefn.trial import invoke as trial

    one = trial.find(manifest, name)
    if isinstance(one, FunctionManifest):
        places = trying.places()
        result = trial.function(manifest, one, topic, payload, kept, gateway=places.gateway, secrets=places.secrets)
    elif state is not None:
        raise trial.InvokeError(f"{one.name} is compiled; --state is for Python handlers")
    else:
        result = trial.compiled(manifest, one, topic, payload)
    if as_json:
        click.echo(msgspec.json.encode(result.as_dict()))
    else:
        _print(result)
    raise SystemExit(common.BAD_INPUT if result.error else 0)


def _split(handler: str) -> tuple[Path, str | None]:
    text, colon, name = handler.rpartition(":")
    if colon and not Path(handler).exists():
        return _file(text), name
    return _file(handler), None


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise click.BadParameter(f"there is no file {text}", param_hint="FILE[:NAME]")
    return path


def _payload(event: str | None) -> bytes:
    """What --event says."""
    if event is None:
        return b"{}"
    try:
        if Path(event).is_file():
            return Path(event).read_bytes()
    except OSError as error:  # it is JSON, and too long for the name of a file
        if error.strerror is None or "File name too long" not in error.strerror:
            raise click.BadParameter(f"{event}: {error.strerror}", param_hint="--event") from error
    _json(event, "--event", ", and there is no file of that name")
    return event.encode()


def _state(state: str | None) -> dict[str, Any]:
    value = {} if state is None else _json(state, "--state")
    if not isinstance(value, dict):
        raise click.BadParameter(f"{state}: an object of names and values is expected", param_hint="--state")
    return value


def _json(text: str, option: str, more: str = "") -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        hint = "" if text[:1] in '{["' else "; a text in JSON stands in double quotes: '\"on\"'"
        raise click.BadParameter(f"{text}: not JSON ({error}){more}{hint}", param_hint=option) from error


def _print(result: Invoked) -> None:
    for line in result.output:
        click.echo(f"{result.handler}: {line}", err=True)
    took = f" ({_duration(result.seconds)})" if result.seconds else ""
    if result.error:
        click.echo(f"{result.handler} on {result.topic}: {result.error}{took}", err=True)
        if result.traceback:
            click.echo(result.traceback.rstrip(), err=True)
    else:
        click.echo(f"{result.handler} on {result.topic}: done{took}")
    if result.kept is not None:
        click.echo("  it keeps the event" if result.kept else "  it leaves the event out")
    if result.note:
        click.echo(f"  {result.note}")
    for row in result.rows:
        click.echo(f"  row        {to_iso(row['ts'])}  {row['key']}  {_text(row['values'])}")
    for one in result.published[:MAX_SHOWN]:
        flags = (f"  qos={one['qos']}" if one["qos"] else "") + ("  retain" if one["retain"] else "")
        click.echo(f"  published  {one['topic']}  {_text(one['payload'])}{flags}")
    if len(result.published) > MAX_SHOWN:
        click.echo(f"  … and {len(result.published) - MAX_SHOWN} more that it published; --json has them all")
    for one in result.forwarded:
        click.echo(f"  forwarded  summary/{result.handler}  {one['key']}  {_text(one['values'])}")
    for one in result.invoked:
        click.echo(f"  invoked    {one['handler']}  {_text(one['data'])}")
    if result.returned is not None:
        click.echo(f"  returned   {_text(result.returned)}")
    if result.state:
        click.echo(f"  state      {_text(result.state)}")
    sys.stdout.flush()


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"
