"""What people write handlers with: each decorator turns a function into a `Handler`, kept on the function unchanged."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, TypeVar

from edgefn import durations
from edgefn.errors import Finding, HandlerError, TopicError
from edgefn.topics import Pattern, check_topic
from edgefn.windows import Window, tumbling

ATTRIBUTE = "__edgefn__"
RESERVED = ("ts", "key", "state")
PRIORITIES = {"low": 0, "normal": 1, "high": 2}
STATISTICS = (
    "n",
    "mean",
    "min",
    "max",
    "sum",
    "std",
    "first",
    "last",
    "median",
)  # and any percentile, as "p95"

Kind = Literal["filter", "transform", "aggregate", "anomaly", "summarize"]
Type = Literal["float", "int", "bool"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Field:
    """A named number: a field of the payload that a handler takes, or one of the values that it puts out."""

    name: str
    type: Type = "float"
    default: float | None = None  # of a parameter that is optional


@dataclass(frozen=True, slots=True)
class Options:
    """What every handler may be given besides its work."""

    to: tuple[str, ...]
    priority: int = 1
    ttl: int | None = None  # nanoseconds
    qos: int = 0
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Handler:
    """All that the decorator and the signature say about one handler. Immutable, and without a word about how it is run."""

    name: str
    kind: Kind
    source: Pattern | str  # a str is the name of another handler of the same file
    function: Callable[..., Any] | None  # None for summarize, which needs no code
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    options: Options
    file: str
    line: int
    uses: frozenset[str] = frozenset()  # which of RESERVED the function takes
    state: type | None = None
    window: Window | None = None
    threshold: float = 0.0
    clear: float = 0.0
    parameters: tuple[str, ...] = ()  # all parameter names in order


Source = str | Callable[..., Any] | Handler


class _Place:
    """Where in the author's file a handler is written, so that every complaint can name it."""

    def __init__(self, file: str, line: int, name: str) -> None:
        self.file, self.line, self.name = file, line, name

    def error(self, message: str, hint: str = "") -> HandlerError:
        return HandlerError(Finding(self.file, self.line, f"{self.name}: {message}", hint))


def _place(function: Callable[..., Any]) -> _Place:
    code = getattr(function, "__code__", None)
    if code is None:
        raise TypeError(f"{function!r} is not a function; put the decorator on a plain `def`")
    return _Place(code.co_filename, code.co_firstlineno, function.__name__)


def _source(place: _Place, source: Source) -> Pattern | str:
    if isinstance(source, str):
        try:
            return Pattern(source)
        except TopicError as error:
            raise place.error(str(error)) from error
    handler = source if isinstance(source, Handler) else getattr(source, ATTRIBUTE, None)
    if not isinstance(handler, Handler):
        shown = getattr(source, "__name__", repr(source))
        raise place.error(
            f"its source {shown} is not a handler",
            "put @filter, @transform, … on it, or name a topic pattern",
        )
    if handler.file != place.file:
        raise place.error(
            f"its source {handler.name} stands in another file",
            'handlers build on handlers of the same file; between files, publish to a topic with to="…"',
        )
    return handler.name


def _options(
    place: _Place,
    default_to: tuple[str, ...],
    to: str | Iterable[str] | None,
    priority: str,
    ttl: str | float | None,
    qos: int,
    enabled: bool,
) -> Options:
    targets = default_to if to is None else (to,) if isinstance(to, str) else tuple(to)
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
    return Options(targets, PRIORITIES[priority], lifetime, qos, bool(enabled))


def _type(place: _Place, what: str, annotation: Any) -> Type:
    if annotation in (inspect.Parameter.empty, float, "float"):
        return "float"
    if annotation in (int, "int"):
        return "int"
    if annotation in (bool, "bool"):
        return "bool"
    shown = getattr(annotation, "__name__", annotation)
    raise place.error(
        f"{what} is annotated {shown}, and compiled handlers take and give numbers only",
        "leave the annotation away or use float, int or bool",
    )


def _inputs(place: _Place, function: Callable[..., Any], arrays: bool) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    fields, names = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise place.error(
                f"parameter *{parameter.name}: the fields that a handler takes are named one by one",
                "write the payload's field names as parameters",
            )
        names.append(parameter.name)
        if parameter.name in RESERVED:
            continue
        annotation = inspect.Parameter.empty if arrays else parameter.annotation
        default = None
        if parameter.default is not parameter.empty:
            if arrays:
                raise place.error(
                    f"parameter {parameter.name} has a default, which an array of samples cannot use",
                    "give the default in a @transform before this handler",
                )
            if isinstance(parameter.default, (int, float)):
                default = float(parameter.default)
            else:
                raise place.error(f"the default of {parameter.name} is not a number")
        fields.append(Field(parameter.name, _type(place, f"parameter {parameter.name}", annotation), default))
    if not fields and not set(names) & {"ts", "key"}:
        raise place.error("it takes no field", "parameter names are the payload's fields: def handler(temperature): …")
    return tuple(fields), tuple(names)


def _outputs(place: _Place, function: Callable[..., Any]) -> tuple[Field, ...]:
    """The values named by a NamedTuple annotation; a plain number is called `value`."""
    annotation = _hints(place, function).get("return", inspect.Parameter.empty)
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        hints = typing.get_type_hints(annotation)
        return tuple(
            Field(name, _type(place, f"value {name} of {annotation.__name__}", hints.get(name, float)))
            for name in annotation._fields
        )
    if annotation in (inspect.Parameter.empty, float, int, bool):
        return (Field("value", _type(place, "the result", annotation)),)
    raise place.error(
        f"its result is annotated {getattr(annotation, '__name__', annotation)}",
        "name several values with a NamedTuple: class Row(NamedTuple): mean: float",
    )


def _hints(place: _Place, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise place.error(f"an annotation: {error}", "define or import it above the handler") from error


def _state(place: _Place, function: Callable[..., Any], names: tuple[str, ...]) -> type | None:
    if "state" not in names:
        return None
    annotation = _hints(place, function).get("state")
    if not (isinstance(annotation, type) and is_dataclass(annotation)):
        raise place.error("its state has no type", "annotate it with a dataclass whose fields all have defaults")
    return annotation


def _handler(
    function: Callable[..., Any],
    kind: Kind,
    source: Source,
    *,
    default_to: tuple[str, ...],
    name: str | None,
    to: str | Iterable[str] | None,
    priority: str,
    ttl: str | float | None,
    qos: int,
    enabled: bool,
    outputs: tuple[Field, ...] | None = None,
    **extra: Any,
) -> None:
    place = _place(function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise place.error("a compiled handler is a plain function", "use `def` and `return`, without async and yield")
    inputs, names = _inputs(place, function, arrays=kind == "aggregate")
    handler = Handler(
        name=name or function.__name__,
        kind=kind,
        source=_source(place, source),
        function=function,
        inputs=inputs,
        outputs=_outputs(place, function) if outputs is None else outputs,
        options=_options(place, default_to, to, priority, ttl, qos, enabled),
        file=place.file,
        line=place.line,
        uses=frozenset(names) & frozenset(RESERVED),
        state=_state(place, function, names),
        parameters=names,
        **extra,
    )
    check_name(place, handler.name)
    setattr(function, ATTRIBUTE, handler)


def check_name(place: _Place, name: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii() or len(name) > 64:
        raise place.error(f"name {name!r}", "a name has letters, digits, - and _ only, 64 at the most: it is a topic")


def filter(source: Source, *, name: str | None = None, enabled: bool = True) -> Callable[[Function], Function]:
    """Keeps the events for which the function is true: scalars in, bool out."""

    def decorate(function: Function) -> Function:
        _handler(
            function,
            "filter",
            source,
            default_to=(),
            name=name,
            to=None,
            priority="normal",
            ttl=None,
            qos=0,
            enabled=enabled,
            outputs=(),
        )
        return function

    return decorate


def transform(
    source: Source,
    *,
    name: str | None = None,
    to: str | Iterable[str] | None = None,
    priority: str = "normal",
    ttl: str | float | None = None,
    qos: int = 0,
    enabled: bool = True,
) -> Callable[[Function], Function]:
    """Makes other values of each event: scalars in, a number or a NamedTuple out. Its output feeds other handlers."""

    def decorate(function: Function) -> Function:
        _handler(
            function,
            "transform",
            source,
            default_to=(),
            name=name,
            to=to,
            priority=priority,
            ttl=ttl,
            qos=qos,
            enabled=enabled,
        )
        return function

    return decorate


def aggregate(
    source: Source,
    window: Window,
    *,
    name: str | None = None,
    to: str | Iterable[str] | None = None,
    priority: str = "normal",
    ttl: str | float | None = None,
    qos: int = 0,
    enabled: bool = True,
) -> Callable[[Function], Function]:
    """Makes one row of all samples of one key in one window: arrays in, a number or a NamedTuple out."""

    def decorate(function: Function) -> Function:
        place = _place(function)
        if not isinstance(window, Window):
            raise place.error(f"its window is {window!r}", 'write a window such as tumbling("1m") or count(100)')
        _handler(
            function,
            "aggregate",
            source,
            default_to=("local", "uplink"),
            name=name,
            to=to,
            priority=priority,
            ttl=ttl,
            qos=qos,
            enabled=enabled,
            window=window,
        )
        return function

    return decorate


def anomaly(
    source: Source,
    *,
    threshold: float,
    clear: float | None = None,
    name: str | None = None,
    to: str | Iterable[str] | None = None,
    priority: str = "high",
    ttl: str | float | None = None,
    qos: int = 1,
    enabled: bool = True,
) -> Callable[[Function], Function]:
    """Raises an alert when the score that the function gives reaches `threshold`, and clears it below `clear`."""

    def decorate(function: Function) -> Function:
        place = _place(function)
        low = threshold if clear is None else clear
        if not low <= threshold:
            raise place.error(f"clear={low} is above threshold={threshold}", "an alert clears below what raises it")
        _handler(
            function,
            "anomaly",
            source,
            default_to=("local", "uplink"),
            name=name,
            to=to,
            priority=priority,
            ttl=ttl,
            qos=qos,
            enabled=enabled,
            threshold=float(threshold),
            clear=float(low),
            outputs=(Field("score"), Field("value"), Field("raised", "bool")),
        )
        return function

    return decorate


def summarize(
    source: Source,
    every: str | float | Window,
    stats: Iterable[str] = ("mean", "min", "max", "p95"),
    *,
    fields: str | Iterable[str] | None = None,
    name: str | None = None,
    to: str | Iterable[str] | None = None,
    priority: str = "normal",
    ttl: str | float | None = None,
    qos: int = 0,
    enabled: bool = True,
) -> Handler:
    """An aggregate without code: room = summarize("sensors/{room}/climate", "1m", fields="temperature").

    With one field its statistics are called mean, min, …; with several temperature_mean, humidity_mean, …. On a handler
    the fields are those it puts out, unless others are named.
    """
    frame = sys._getframe(1)
    place = _Place(frame.f_code.co_filename, frame.f_lineno, name or "summarize")
    window = every if isinstance(every, Window) else tumbling(every)
    wanted = tuple(stats)
    for stat in wanted:
        if stat not in STATISTICS and not is_percentile(stat):
            raise place.error(f"unknown statistic {stat!r}", f"known are {', '.join(STATISTICS)} and p1 to p99")
    if fields is None:
        handler = source if isinstance(source, Handler) else getattr(source, ATTRIBUTE, None)
        while handler is not None and handler.kind == "filter" and isinstance(handler.source, str):
            handler = None
        if handler is None or not handler.outputs:
            raise place.error("it does not know what to summarise", 'name the fields: fields=("temperature",)')
        names = tuple(field.name for field in handler.outputs)
    else:
        names = (fields,) if isinstance(fields, str) else tuple(fields)
    outputs = tuple(
        Field(stat if len(names) == 1 else f"{field}_{stat}", "int" if stat == "n" else "float")
        for field in names
        for stat in wanted
    )
    return Handler(
        name=name or "",  # the loader gives it the name of the variable
        kind="summarize",
        source=_source(place, source),
        function=None,
        inputs=tuple(Field(field) for field in names),
        outputs=outputs,
        options=_options(place, ("local", "uplink"), to, priority, ttl, qos, enabled),
        file=place.file,
        line=place.line,
        window=window,
        parameters=wanted,
    )


def is_percentile(stat: str) -> bool:
    return stat[:1] == "p" and stat[1:].isdigit() and 1 <= int(stat[1:]) <= 99


def handlers_of(namespace: dict[str, Any]) -> list[Handler]:
    """The handlers that a module defines, in the order of its lines."""
    found: dict[int, Handler] = {}
    for variable, value in namespace.items():
        handler = value if isinstance(value, Handler) else getattr(value, ATTRIBUTE, None)
        if isinstance(handler, Handler) and handler.file == namespace.get("__file__", handler.file):
            if not handler.name:
                object.__setattr__(handler, "name", variable)
            found.setdefault(id(handler), handler)
    return sorted(found.values(), key=lambda handler: handler.line)
