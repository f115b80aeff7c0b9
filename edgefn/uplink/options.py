"""What a `[[uplink]]` table says about the uplink itself; the rest of the table is its sink's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec

from edgefn.config import parse_size
from edgefn.errors import ConfigError
from edgefn.sinks import convert_options

_SIZES = ("max_rate", "daily_bytes")


class UplinkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    streams: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ("*",)  # patterns of what goes this way
    # The part of the bytes that goes to what is new while a backlog drains. 0: everything by priority and age.
    live_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    max_rate: Annotated[int, msgspec.Meta(ge=100)] | None = None  # bytes a second
    # Bytes in a day by UTC; less than a few items would stop the uplink.
    daily_bytes: Annotated[int, msgspec.Meta(ge=4096)] | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256  # items
    batch_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1 << 20  # of payload; what one batch may take of the memory
    batch_age_ms: Annotated[int, msgspec.Meta(ge=0)] = 200  # how long a first item waits for others
    # How long an acknowledgement waits for a commit to go along with while there is no backlog; for two commits at
    # least, where they are further apart. A power cut in that time sends the batch again; a transaction of its own each
    # second cost 1 GB of writes a day.
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    backoff_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    backoff_cap_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0


def split_options(name: str, options: Mapping[str, Any]) -> tuple[UplinkOptions, dict[str, Any]]:
    """The uplink's own options, and the rest, which are the sink's. Raises ConfigError for a wrong value."""
    own = {field.name for field in msgspec.structs.fields(UplinkOptions)}
    mine = {key: value for key, value in options.items() if key in own}
    for key in _SIZES:
        if key in mine:
            try:
                mine[key] = parse_size(mine[key])
            except ValueError as error:
                raise ConfigError(f"{key} = {mine[key]!r}: {error}") from error
    return convert_options(name, mine, UplinkOptions), {key: value for key, value in options.items() if key not in own}


def wants(patterns: Iterable[str], stream: str) -> bool:
    """Whether a stream matches one of the patterns: `*` is any text, also over `/`; `?` one character; `[ab]` one of them."""
    return any(fnmatchcase(stream, pattern) for pattern in patterns)


def idle_patterns(patterns: Iterable[str], streams: Iterable[str]) -> list[str]:
    """The patterns that match none of the streams: a slip of the pen, or a handler that is still to come."""
    known = list(streams)
    return [one for one in patterns if one != "*" and not any(wants([one], stream) for stream in known)]
