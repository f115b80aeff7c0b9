"""What Python handlers are written with: each decorator notes on the function what starts it, and leaves it unchanged.

    @on("edgefn/+/event/door", retries=5)
    async def light(event, ctx):
        await ctx.publish("lights/hall/set", {"on": event["open"]})

A function may have several decorators: it runs for each of them. It takes the event, or the event and a context, or nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args

import msgspec

from edgefn import durations
from edgefn.api import ATTRIBUTE, Handler
from edgefn.errors import TopicError
from edgefn.options import Common, Options, Place, check_name, options_of, place_of
from edgefn.topics import Pattern

FUNCTION = "__edgefn_function__"
NS = durations.UNITS["s"]
MIN_MEMORY = 16 << 20

Occasion = Literal[
    "start", "stop", "clock-synced", "network-up", "network-down", "disk-low", "disk-ok", "under-voltage", "voltage-ok"
]
Overflow = Literal["drop-oldest", "drop-newest", "dead-letter"]
Function = TypeVar("Function", bound=Callable[..., Any])


class OnTopic(msgspec.Struct, frozen=True, tag="topic"):
    """A message on a topic that the pattern matches."""

    pattern: str
    retained: bool = False


class OnOutput(msgspec.Struct, frozen=True, tag="output"):
    """A row that another handler has put out: its name."""

    handler: str


class Every(msgspec.Struct, frozen=True, tag="every"):
    """An interval, in ns."""

    interval: int


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """A line of cron's five fields, in a time zone; an empty one is that of the machine."""

    line: str
    zone: str = ""
    catch_up: bool = False


class OnFile(msgspec.Struct, frozen=True, tag="file"):
    """Files whose path matches: an absolute folder, and a pattern for the name."""

    folder: str
    name: str


class OnOccasion(msgspec.Struct, frozen=True, tag="occasion"):
    """Something that happened to this machine."""

    occasion: Occasion


Trigger = OnTopic | OnOutput | Every | Cron | OnFile | OnOccasion


class Policy(msgspec.Struct, frozen=True):
    """How invocations of a function are run, bounded and tried again. Durations in ns, memory in bytes."""

    timeout: int = 10 * NS  # of one attempt
    memory: int = 64 << 20  # what it may have on top of what an idle worker has
    retries: int = 3  # attempts after the first
    backoff: int = NS  # before the first retry, on average half of it; it doubles with each
    concurrency: int = 0  # invocations at once; 0: 1 for a plain function, 8 for an async one
    max_queue: int = 1000  # that wait
    on_overflow: Overflow | None = None  # None: dead-letter what is durable, drop the oldest of what is not
    ordered: bool = False  # those of one key one after the other
    durable: bool | None = None  # None: what came with QoS 1, and files


class FunctionOptions(TypedDict, total=False):
    """The options that every Python handler takes; those of `Common` mean the same as for compiled ones."""

    name: str | None
    to: str | Iterable[str] | None  # where a returned value goes: "local", "uplink", a topic, or several
    priority: str
    ttl: str | float | None
    qos: int
    enabled: bool
    quota: str | int | None
    on_full: str | Iterable[str] | None
    timeout: str | float
    memory: str | int
    retries: int
    backoff: str | float
    concurrency: int
    max_queue: int
    on_overflow: Overflow
    ordered: bool
    durable: bool


@dataclass(slots=True)
class FunctionSpec:
    """All that the decorators say about one Python handler."""

    name: str
    function: Callable[..., Any]
    file: str
    line: int
    options: Options
    policy: Policy
    takes: int  # how many arguments: nothing, the event, or the event and the context
    given: dict[str, Any] = field(default_factory=dict)  # the options of all its decorators
    sources: list[Trigger | Handler] = field(default_factory=list)

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Once all handlers of the file have their names: a `summarize` gets that of its variable."""
        return tuple(OnOutput(one.name) if isinstance(one, Handler) else one for one in self.sources)

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)


def on(
    *sources: str | Callable[..., Any] | Handler, retained: bool = False, **options: Unpack[FunctionOptions]
) -> Callable[[Function], Function]:
    """Runs for each message on topics that a pattern matches, or each row that another handler of the file puts out.

    retained: messages that the broker has kept start it as well.
    """

    def decorate(function: Function) -> Function:
        place = place_of(function)
        if not sources:
            raise place.error("@on() names no source", '@on("sensors/{room}/motion"), or @on(handler)')
        for source in reversed(sources):
            _note(function, place, _source(place, source, retained), options)
        return function

    return decorate


def every(interval: str | float, **options: Unpack[FunctionOptions]) -> Callable[[Function], Function]:
    """Runs each `interval`, the first time one interval after the start. One that is late is not run twice."""

    def decorate(function: Function) -> Function:
        place = place_of(function)
        try:
            ns = durations.parse(interval)
        except ValueError as error:
            raise place.error(f"@every: {error}") from error
        if ns < NS // 10:
            raise place.error(f"@every({interval!r})", "the shortest interval is 100ms")
        _note(function, place, Every(ns), options)
        return function

    return decorate


def cron(
    line: str, *, zone: str = "", catch_up: bool = False, **options: Unpack[FunctionOptions]
) -> Callable[[Function], Function]:
    """Runs when a line of cron says so: minute, hour, day of the month, month, day of the week.

    zone: as in "Europe/Berlin"; by default that of the machine. catch_up: a run that fell into a time when the gateway was
    off is made up for once, at the start.
    """

    def decorate(function: Function) -> Function:
        place = place_of(function)
        _check_cron(place, line, zone)
        _note(function, place, Cron(line, zone, catch_up), options)
        return function

    return decorate


def watch(path: str, **options: Unpack[FunctionOptions]) -> Callable[[Function], Function]:
    """Runs once for each file that appears, such as @watch("/data/*.csv"), when it is complete. Durable by default."""

    def decorate(function: Function) -> Function:
        place = place_of(function)
        pure = PurePath(path)
        if not pure.is_absolute() or any(sign in str(pure.parent) for sign in "*?["):
            raise place.error(f"@watch({path!r})", 'write an absolute folder and a pattern for the name: "/data/*.csv"')
        _note(function, place, OnFile(str(pure.parent), pure.name), options)
        return function

    return decorate


def system(*occasions: Occasion, **options: Unpack[FunctionOptions]) -> Callable[[Function], Function]:
    """Runs when something happens to this machine, such as "start", "clock-synced" or "disk-low"."""

    def decorate(function: Function) -> Function:
        place = place_of(function)
        known = get_args(Occasion)
        for occasion in occasions:
            if occasion not in known:
                raise place.error(f"@system({occasion!r}): there is no such occasion", f"known are {', '.join(known)}")
        for occasion in reversed(occasions):
            _note(function, place, OnOccasion(occasion), options)
        if not occasions:
            raise place.error("@system() names no occasion", f"known are {', '.join(known)}")
        return function

    return decorate


def functions_of(namespace: dict[str, Any]) -> list[FunctionSpec]:
    """The Python handlers that a module defines, in the order of its lines."""
    found = {
        id(spec): spec
        for value in namespace.values()
        if isinstance(spec := getattr(value, FUNCTION, None), FunctionSpec)
        and spec.file == namespace.get("__file__", spec.file)
    }
    return sorted(found.values(), key=lambda spec: spec.line)


def _source(place: Place, source: str | Callable[..., Any] | Handler, retained: bool) -> Trigger | Handler:
    if isinstance(source, str):
        try:
            return OnTopic(Pattern(source).text, retained)
        except TopicError as error:
            raise place.error(str(error)) from error
    found = (
        source if isinstance(source, Handler) else getattr(source, ATTRIBUTE, None) or getattr(source, FUNCTION, None)
    )
    if not isinstance(found, (Handler, FunctionSpec)):
        shown = getattr(source, "__name__", repr(source))
        raise place.error(f"its source {shown} is no handler", "name a topic pattern, or put @on, @anomaly, … on it")
    if found.file != place.file:
        raise place.error(
            f"its source {found.name} stands in another file",
            f'listen to what it publishes: @on("edgefn/+/alert/{found.name}/#")',
        )
    if isinstance(found, Handler) and found.kind == "filter":
        raise place.error(
            f"its source {found.name} is a filter, which puts nothing out",
            "build a @transform on it, and listen to that",
        )
    return found if isinstance(found, Handler) else OnOutput(found.name)


def _check_cron(place: Place, line: str, zone: str) -> None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from cronsim import CronSim, CronSimError

    try:
        if zone:
            ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise place.error(
            f"@cron: there is no time zone {zone!r}", 'write one such as "Europe/Berlin" or "UTC"'
        ) from error
    from datetime import UTC, datetime

    hint = 'five fields: minute, hour, day of the month, month, day of the week; "0 6 * * mon-fri" is 6 o\'clock on weekdays'
    if not isinstance(line, str) or len(line.split()) != 5:
        raise place.error(f"@cron({line!r})", hint)
    try:
        next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise place.error(f"@cron({line!r}): {error}", hint) from error
    except StopIteration:
        raise place.error(f"@cron({line!r}) never comes: there is no such day", hint) from None


def _note(function: Callable[..., Any], place: Place, source: Trigger | Handler, options: FunctionOptions) -> None:
    spec: FunctionSpec | None = getattr(function, FUNCTION, None)
    given = {name: value for name, value in options.items() if value is not None}
    if spec is None:
        if (
            hasattr(function, ATTRIBUTE)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            raise place.error(
                "a Python handler is a plain or an async function", "give it a function of its own, without yield"
            )
        spec = _make(function, place, given)
        setattr(function, FUNCTION, spec)
    elif twice := sorted(name for name in given.keys() & spec.given.keys() if given[name] != spec.given[name]):
        raise place.error(f"two of its decorators say {', '.join(twice)}", "write it once; it holds for all of them")
    elif given:
        new = _make(function, place, {**spec.given, **given})
        spec.name, spec.options, spec.policy, spec.given = new.name, new.options, new.policy, new.given
    if source not in spec.sources:
        spec.sources.insert(0, source)  # decorators are applied from below


def _make(function: Callable[..., Any], place: Place, given: dict[str, Any]) -> FunctionSpec:
    if unknown := given.keys() - FunctionOptions.__annotations__.keys():
        known = ", ".join(sorted(FunctionOptions.__annotations__))
        raise place.error(f"unknown option {', '.join(sorted(unknown))}", f"a Python handler takes {known}")
    common: Common = {name: value for name, value in given.items() if name in Common.__annotations__}  # type: ignore[assignment]
    name = given.get("name") or function.__name__
    check_name(place, name)
    return FunctionSpec(
        name=name,
        function=function,
        file=place.file,
        line=place.line,
        options=options_of(place, common, {"to": "local"}),
        policy=_policy(place, given),
        takes=_takes(place, function),
        given=given,
    )


def _takes(place: Place, function: Callable[..., Any]) -> int:
    parameters = list(inspect.signature(function).parameters.values())
    needed = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_POSITIONAL]
    if len(needed) > 2 or any(one.kind is one.KEYWORD_ONLY for one in needed):
        shown = ", ".join(one.name for one in needed)
        raise place.error(f"it takes {shown}", "a Python handler takes (event, ctx), (event), or nothing")
    return len(needed)


def _policy(place: Place, given: dict[str, Any]) -> Policy:
    from edgefn.config import parse_size

    values: dict[str, Any] = {}
    for name in ("timeout", "backoff"):
        if name in given:
            try:
                values[name] = durations.parse(given[name])
            except ValueError as error:
                raise place.error(f"{name}: {error}") from error
    if values.get("timeout", NS) < NS // 100:
        raise place.error(f"timeout={given['timeout']!r}", "10ms or more is allowed")
    if "memory" in given:
        try:
            values["memory"] = parse_size(given["memory"])
        except ValueError as error:
            raise place.error(f"memory={given['memory']!r}: {error}") from error
        if values["memory"] < MIN_MEMORY:
            raise place.error(f"memory={given['memory']!r}", f"{MIN_MEMORY >> 20}MB or more is allowed")
    for name, low, high in (("retries", 0, 100), ("concurrency", 1, 64), ("max_queue", 1, 100_000)):
        if name in given:
            value = given[name]
            if type(value) is not int or not low <= value <= high:
                raise place.error(f"{name}={value!r}", f"a number from {low} to {high} is allowed")
            values[name] = value
    if "on_overflow" in given:
        if given["on_overflow"] not in get_args(Overflow):
            raise place.error(f"on_overflow={given['on_overflow']!r}", f"known are {', '.join(get_args(Overflow))}")
        values["on_overflow"] = given["on_overflow"]
    values |= {name: bool(given[name]) for name in ("ordered", "durable") if name in given}
    return Policy(**values)
