"""The options that handlers of all kinds take, checked where they are written, so that each complaint names its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from edgefn import durations, policies
from edgefn.errors import Finding, HandlerError, TopicError
from edgefn.topics import check_topic

PRIORITIES = {"low": 0, "normal": 1, "high": 2}

Timestamps = Literal["auto", "s", "ms", "us", "ns", "iso", "arrival"]


@dataclass(frozen=True, slots=True)
class Options:
    """What every handler may be given besides its work."""

    to: tuple[str, ...]
    priority: int = 1
    ttl: int | None = None  # nanoseconds
    qos: int = 0
    enabled: bool = True
    quota: int | None = None  # bytes
    on_full: tuple[str, ...] = policies.DEFAULT

    @property
    def thins(self) -> bool:
        return "thin" in self.on_full


class Place:
    """Where in the author's file a handler is written, so that every complaint can name it."""

    def __init__(self, file: str, line: int, name: str) -> None:
        self.file, self.line, self.name = file, line, name

    def error(self, message: str, hint: str = "") -> HandlerError:
        return HandlerError(Finding(self.file, self.line, f"{self.name}: {message}", hint))


def place_of(function: Callable[..., Any]) -> Place:
    code = getattr(function, "__code__", None)
    if code is None:
        raise TypeError(f"{function!r} is not a function; put the decorator on a plain `def`")
    return Place(code.co_filename, code.co_firstlineno, function.__name__)


class Common(TypedDict, total=False):
    """The options that every handler takes."""

    name: str | None  # by default that of the function
    to: str | Iterable[str] | None  # "local", "uplink", a topic, or several
    priority: str  # "low", "normal" or "high": what goes first, and what is given up last
    ttl: str | float | None  # after this time it need not reach the cloud any more
    qos: int  # of what is published here
    enabled: bool
    quota: str | int | None  # what its rows may take while they wait for the cloud, such as "10MB"
    on_full: str | Iterable[str] | None  # what is given up then, or when the store is full: one word or several
    ts: Timestamps  # how devices write the time of an event, where "auto" cannot tell; "arrival": when it came
    retained: bool  # lets retained messages in, which otherwise only feed `latest` and state


def options_of(place: Place, options: Common, defaults: Common) -> Options:
    if unknown := options.keys() - Common.__annotations__.keys():
        known = ", ".join(sorted(Common.__annotations__))
        raise place.error(f"unknown option {', '.join(sorted(unknown))}", f"a handler takes {known}")
    given: Common = {**defaults, **{name: value for name, value in options.items() if value is not None}}  # type: ignore[typeddict-item]
    to, priority, ttl, qos = given.get("to", ()), given.get("priority", "normal"), given.get("ttl"), given.get("qos", 0)
    targets = (to,) if isinstance(to, str) else tuple(to or ())
    for target in targets:
        if target not in ("local", "uplink"):
            try:
                check_topic(target)
            except TopicError as error:
                raise place.error(f"to={target!r}: {error}", 'to is "local", "uplink", a topic, or several') from error
    if priority not in PRIORITIES:
        raise place.error(f"priority={priority!r}", f"a priority is one of {', '.join(PRIORITIES)}")
    if qos not in (0, 1):
        raise place.error(f"qos={qos!r}", "a handler publishes with qos=0 or qos=1")
    try:
        lifetime = None if ttl is None else durations.parse(ttl)
    except ValueError as error:
        raise place.error(f"ttl: {error}") from error
    return Options(
        to=targets,
        priority=PRIORITIES[priority],
        ttl=lifetime,
        qos=qos,
        enabled=bool(given.get("enabled", True)),
        quota=_quota(place, given.get("quota")),
        on_full=_on_full(place, given.get("on_full")),
    )


def _quota(place: Place, quota: str | int | None) -> int | None:
    if quota is None:
        return None
    from edgefn.config import parse_size  # here only: it reads TOML, and few handlers have a quota

    try:
        size = parse_size(quota)
    except ValueError as error:
        raise place.error(f"quota={quota!r}: {error}") from error
    if size < policies.MIN_QUOTA:
        raise place.error(f"quota={quota!r}", f"a quota below {policies.MIN_QUOTA} bytes would hold a few rows only")
    return size


def _on_full(place: Place, words: str | Iterable[str] | None) -> tuple[str, ...]:
    try:
        return policies.DEFAULT if words is None else policies.chain(words)
    except ValueError as error:
        raise place.error(f"on_full: {error}") from error


def check_name(place: Place, name: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii() or len(name) > 64:
        raise place.error(f"name {name!r}", "a name has letters, digits, - and _ only, 64 at the most: it is a topic")
