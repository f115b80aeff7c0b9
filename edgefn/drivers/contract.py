"""What a driver is: a generator of readings whose keyword parameters are its configuration.

    @driver(fields={"temperature": Field("°C", "temperature")})
    async def probe(*, pin: int, interval: Duration = 10.0) -> Readings:
        with Probe(pin) as probe:                      # open
            async for _ in ticks(interval):
                yield {"temperature": probe.read()}    # a reading
                                                       # close: the `with`, or a `finally`

The host calls the function once, takes readings until it stops or fails, and closes the generator, so that its
`finally` runs. An async generator runs in the host's event loop and must not block it; a plain generator runs in a
thread of its own and may. What it raises is told as the driver's error and the driver is started again after a pause; a
generator that ends has finished for good. A parameter named `clock` is given the host's clock and is no configuration.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import msgspec

from edgefn import durations
from edgefn.clock import Clock
from edgefn.errors import DriverError

_DURATION = "edgefn.duration"
Duration = Annotated[float, _DURATION]  # seconds; the configuration may also say "500ms" or "1m30s"

MARK = "__edgefn_driver__"
RESERVED = frozenset({"seq", "src", "seq_floor"})  # the host's own: they make deduplication exact


@dataclass(frozen=True, slots=True)
class Field:
    """What a field measures. `unit` and `device_class` are those of Home Assistant, "" where it has none."""

    unit: str = ""
    device_class: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading that is more than its fields: for one of several channels, or with the time it was taken.

    `fields` maps names to scalars, or to one-dimensional numpy arrays, with `dt` as the nanoseconds between samples.
    `ts` is in nanoseconds since the epoch, of the first sample where there are many.
    """

    fields: Mapping[str, Any]
    channel: str = ""
    ts: int | None = None


Readings = AsyncIterator[Reading | Mapping[str, Any]]  # what an async driver returns
PlainReadings = Iterator[Reading | Mapping[str, Any]]  # what a plain one returns


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver function with what its signature and decorator say."""

    name: str
    function: Callable[..., Any]
    fields: Mapping[str, Field] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return Path(self.function.__code__.co_filename)

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Its configuration. Raises DriverError for a parameter without a type or that is not by keyword."""
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise DriverError(
                f"driver {self.name!r} ({self.file}): the type of a parameter is not known: {error}"
            ) from error
        found = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if name == "clock":
                continue
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name not in hints:
                raise DriverError(
                    f"driver {self.name!r} ({self.file}): parameter {name!r} must be by keyword and have a type: "
                    f"async def {self.name}(*, {name}: int = 1)"
                )
            found[name] = parameter.replace(annotation=hints[name])
        return found

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as the function's keyword arguments. Raises DriverError that says what is wrong and allowed."""
        parameters = self.parameters()
        checked = {}
        for name, value in options.items():
            if name not in parameters:
                raise DriverError(f"driver {self.name!r} has no parameter {name!r}; {_meant(name, parameters)}")
            checked[name] = self._convert(name, value, parameters[name].annotation)
        missing = [
            name for name, p in parameters.items() if p.default is inspect.Parameter.empty and name not in checked
        ]
        if missing:
            raise DriverError(f"driver {self.name!r} needs a value for {', '.join(map(repr, missing))}")
        return checked

    def open(self, options: Mapping[str, Any], clock: Clock) -> Readings | PlainReadings:
        """Starts the generator with options that `check` returned. Raises DriverError where it is none."""
        extra = {"clock": clock} if "clock" in inspect.signature(self.function).parameters else {}
        readings = self.function(**options, **extra)
        if not hasattr(readings, "__anext__") and not hasattr(readings, "__next__"):
            if inspect.iscoroutine(readings):
                readings.close()
            raise DriverError(
                f"driver {self.name!r} ({self.file}) returned a {type(readings).__name__}; yield the readings instead"
            )
        return typing.cast(Readings | PlainReadings, readings)

    def _convert(self, name: str, value: Any, annotation: Any) -> Any:
        try:
            if _DURATION in getattr(annotation, "__metadata__", ()):
                value = durations.parse(value) / 1e9
            return msgspec.convert(value, annotation)
        except (msgspec.ValidationError, ValueError, AttributeError) as error:
            raise DriverError(
                f"driver {self.name!r}: parameter {name!r} cannot be {value!r}: {error}{_allowed(annotation)}"
            ) from error


F = TypeVar("F", bound=Callable[..., Any])


@overload
def driver(function: F, /) -> F: ...


@overload
def driver(*, fields: Mapping[str, Field]) -> Callable[[F], F]: ...


def driver(function: Any = None, /, *, fields: Mapping[str, Field] | None = None) -> Any:
    """Declares a generator function to be a driver of its name. The function is returned unchanged."""

    def mark(function: Any) -> Any:
        setattr(function, MARK, Driver(function.__name__, function, fields or {}))
        return function

    return mark if function is None else mark(function)


async def ticks(interval: float) -> AsyncIterator[int]:
    """Counts 0, 1, 2 … every `interval` seconds, the first at once; a tick that was slept through is left out.

    The ticks keep to the times set at the start, so that a slow reading does not make the next ones late.
    """
    loop = asyncio.get_running_loop()
    start, n = loop.time(), 0
    while True:
        yield n
        passed = loop.time() - start
        n = max(n, int(passed / interval)) + 1 if interval > 0 else n + 1
        await asyncio.sleep(start + n * interval - loop.time())


def _meant(name: str, parameters: Mapping[str, object]) -> str:
    if close := difflib.get_close_matches(name, parameters, 1):
        return f"did you mean {close[0]!r}?"
    return f"it has {', '.join(map(repr, parameters))}" if parameters else "it has none"


def _allowed(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return f"; allowed are {', '.join(map(repr, typing.get_args(annotation)))}"
    return ""
