"""Where items go when they leave the gateway: the contract of a sink, and how one is found and set up by its type.

An uplink calls `connect`, then `send` with one batch at a time, from one task. After NotConnectedError it waits, calls
`connect` again and sends the same batch again; `close` comes last and may come at any time. `check` is for those who
look at the settings, before or beside all that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, get_origin

import msgspec

from edgefn.clock import Clock, SystemClock
from edgefn.errors import ConfigError, Trouble
from edgefn.metrics import Metrics

if TYPE_CHECKING:
    from edgefn.store import Item

GROUP = "edgefn.sinks"
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})  # hosts to which nothing has to be encrypted


class FilePath(str):
    """An option that names a file or a folder; a relative one begins at the folder of the settings."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The far side will never take this item. `reason` is the short name it is counted under, `detail` what was said."""

    item_id: int
    reason: str
    detail: str = ""


class Sink(Protocol):
    """One kind of destination."""

    bytes_sent: int  # since it was made, what was sent again included; without what TCP and TLS add

    def check(self, now: int) -> Iterable[Trouble]:
        """What can be known to be wrong without the far side: files, certificates at the time `now` (ns), folders."""

    async def connect(self) -> None:
        """Makes it ready, or returns at once where it is. Raises NotConnectedError (AccessError where not let in)."""

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        """Returns once the far side has every item except the refused ones, which are refused for good.

        Raises NotConnectedError where the outcome of any item is unknown: all are sent again later, and the far side
        tells repeated ones by their key. The items of one stream arrive in the order given.
        """

    async def close(self) -> None:
        """Lets go of everything. Calling it again does nothing."""


class SinkType(Protocol):
    """What an entry point of the group `edgefn.sinks` names: a class with its options as a msgspec Struct.

    It raises ConfigError for options that can never work. Files that are missing are for `check` and `connect` to tell:
    they may come back, and a gateway whose uplink cannot start has other things to do.
    """

    Options: ClassVar[type[msgspec.Struct]]

    def __call__(self, options: Any, *, gateway: str, metrics: Metrics, clock: Clock) -> Sink: ...


def load_sink(
    type_name: str,
    options: Mapping[str, Any],
    *,
    gateway: str,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
    folder: Path | None = None,
) -> Sink:
    """Makes the sink of an installed type; `folder` is where relative paths begin.

    Raises ConfigError that names the key, its value and what is allowed.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if type_name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"sink type {type_name!r} is not installed; known types: {known}")
    try:
        sink_type: SinkType = found[type_name].load()
    except ImportError as error:
        raise ConfigError(f"sink type {type_name!r} ({found[type_name].value}) cannot be loaded: {error}") from error
    return sink_type(
        convert_options(type_name, options, sink_type.Options, folder),
        gateway=gateway,
        metrics=metrics or Metrics(),
        clock=clock or SystemClock(),
    )


def convert_options(
    type_name: str, options: Mapping[str, Any], struct: type[msgspec.Struct], folder: Path | None = None
) -> Any:
    """The options as the sink's Struct. Raises ConfigError."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for name in options:
        if name not in fields:
            raise ConfigError(f"sink {type_name}: unknown key {name!r}; known keys: {', '.join(fields)}")
    for name, field in fields.items():
        if field.required and name not in options:
            raise ConfigError(f"sink {type_name}: the key {name!r} is missing")

    def convert(kind: type, value: Any) -> Any:
        if kind is not FilePath:
            raise NotImplementedError(f"no conversion to {kind}")
        if not isinstance(value, str) or not value:
            raise ValueError("a path is expected")
        return FilePath((folder or Path.cwd()) / value)

    try:
        return msgspec.convert(dict(options), struct, dec_hook=convert)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        path = path.rstrip("`")
        if not path:
            raise ConfigError(f"sink {type_name}: {said}") from error
        value: Any = options
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        shown = "(hidden)" if path.startswith(("password", "headers")) else repr(value)
        choices = get_args(fields[path].type) if path in fields and get_origin(fields[path].type) is Literal else ()
        allowed = f"; allowed: {', '.join(map(repr, choices))}" if choices else ""
        raise ConfigError(f"sink {type_name}: {path} = {shown}: {said.replace('`', '')}{allowed}") from error
