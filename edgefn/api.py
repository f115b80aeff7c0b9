"""What people write handlers with: each decorator turns a function into a `Handler`, kept on the function unchanged."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, TypeVar, Unpack, get_args

from edgefn import policies
from edgefn.errors import TopicError
from edgefn.fields import RESERVED, Field, check_path, inputs_of, type_of
from edgefn.options import Common, Options, Place, Timestamps, check_name, options_of, place_of
from edgefn.topics import Pattern
from edgefn.windows import Window, tumbling

ATTRIBUTE = "__edgefn__"
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
Function = TypeVar("Function", bound=Callable[..., Any])


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
    ts: Timestamps = "auto"
    retained: bool = False


Source = str | Callable[..., Any] | Handler


def _source(place: Place, source: Source) -> Pattern | str:
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


def can_thin(kind: Kind, window: Window | None) -> bool:
    """Whether rows of neighbouring windows can be merged: they know what to add up, and share no sample."""
    if kind != "summarize" or window is None or window.kind != "time":
        return False
    return window.step == window.size and not window.revise


def _check_thin(place: Place, handler: Handler) -> None:
    if handler.options.thins and not can_thin(handler.kind, handler.window):
        raise place.error(
            'on_full="thin" merges rows of neighbouring windows, and these cannot be merged',
            "it is for `summarize` on a tumbling window without revisions: others count a sample twice or say no counts; "
            f"use {', '.join(word for word in policies.WORDS if word != 'thin')}",
        )


def _listening(place: Place, source: Pattern | str, options: Common) -> tuple[Timestamps, bool]:
    """How a handler listens to topics; one that listens to another handler has no say in it."""
    ts, retained = options.get("ts", "auto"), bool(options.get("retained", False))
    if ts not in get_args(Timestamps):
        raise place.error(f"ts={ts!r}", f"ts is one of {', '.join(get_args(Timestamps))}")
    if isinstance(source, str) and (ts != "auto" or retained):
        raise place.error("ts= and retained= are for handlers that listen to topics", f"write them on {source}")
    return ts, retained


def _outputs(place: Place, function: Callable[..., Any]) -> tuple[Field, ...]:
    """The values named by a NamedTuple annotation; a plain number is called `value`."""
    annotation = _hints(place, function).get("return", inspect.Parameter.empty)
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        hints = typing.get_type_hints(annotation)
        return tuple(
            Field(name, type_of(place, f"value {name} of {annotation.__name__}", hints.get(name, float)))
            for name in annotation._fields
        )
    if annotation in (inspect.Parameter.empty, float, int, bool):
        return (Field("value", type_of(place, "the result", annotation)),)
    raise place.error(
        f"its result is annotated {getattr(annotation, '__name__', annotation)}",
        "name several values with a NamedTuple: class Row(NamedTuple): mean: float",
    )


def _hints(place: Place, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise place.error(f"an annotation: {error}", "define or import it above the handler") from error


def _state(place: Place, function: Callable[..., Any], names: tuple[str, ...]) -> type | None:
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
    options: Common,
    defaults: Common,
    outputs: tuple[Field, ...] | None = None,
    **extra: Any,
) -> None:
    place = place_of(function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise place.error("a compiled handler is a plain function", "use `def` and `return`, without async and yield")
    inputs, names = inputs_of(place, function, arrays=kind == "aggregate")
    feed = _source(place, source)
    ts, retained = _listening(place, feed, options)
    handler = Handler(
        name=options.get("name") or function.__name__,
        kind=kind,
        source=feed,
        function=function,
        inputs=inputs,
        outputs=_outputs(place, function) if outputs is None else outputs,
        options=options_of(place, options, defaults),
        file=place.file,
        line=place.line,
        uses=frozenset(names) & frozenset(RESERVED),
        state=_state(place, function, names),
        parameters=names,
        ts=ts,
        retained=retained,
        **extra,
    )
    check_name(place, handler.name)
    _check_thin(place, handler)
    setattr(function, ATTRIBUTE, handler)


def filter(source: Source, **options: Unpack[Common]) -> Callable[[Function], Function]:
    """Keeps the events for which the function is true: scalars in, bool out. Puts nothing out itself."""

    def decorate(function: Function) -> Function:
        if "to" in options:
            raise place_of(function).error(
                "a filter puts nothing out", "put to= on a @transform or @aggregate built on it"
            )
        _handler(function, "filter", source, options, {}, outputs=())
        return function

    return decorate


def transform(source: Source, **options: Unpack[Common]) -> Callable[[Function], Function]:
    """Makes other values of each event: scalars in, a number or a NamedTuple out. Its output feeds other handlers."""

    def decorate(function: Function) -> Function:
        _handler(function, "transform", source, options, {})
        return function

    return decorate


def aggregate(source: Source, window: Window, **options: Unpack[Common]) -> Callable[[Function], Function]:
    """Makes one row of all samples of one key in one window: arrays in, a number or a NamedTuple out."""

    def decorate(function: Function) -> Function:
        if not isinstance(window, Window):
            raise place_of(function).error(
                f"its window is {window!r}", 'write a window such as tumbling("1m") or count(100)'
            )
        _handler(function, "aggregate", source, options, {"to": ("local", "uplink")}, window=window)
        return function

    return decorate


def anomaly(
    source: Source, *, threshold: float, clear: float | None = None, **options: Unpack[Common]
) -> Callable[[Function], Function]:
    """Raises an alert when the score that the function gives reaches `threshold`, and clears it below `clear`."""

    def decorate(function: Function) -> Function:
        low = threshold if clear is None else clear
        if not low <= threshold:
            raise place_of(function).error(
                f"clear={low} is above threshold={threshold}", "an alert clears below what raises it"
            )
        _handler(
            function,
            "anomaly",
            source,
            options,
            {"to": ("local", "uplink"), "priority": "high", "qos": 1},
            outputs=(Field("score"), Field("value"), Field("raised", "bool")),
            threshold=float(threshold),
            clear=float(low),
        )
        return function

    return decorate


def summarize(
    source: Source,
    every: str | float | Window,
    stats: Iterable[str] = ("mean", "min", "max", "p95"),
    *,
    fields: str | Iterable[str] | None = None,
    **options: Unpack[Common],
) -> Handler:
    """An aggregate without code: room = summarize("sensors/{room}/climate", "1m", fields="temperature").

    With one field its statistics are called mean, min, …; with several temperature_mean, humidity_mean, …. On a handler
    the fields are those it puts out, unless others are named. "AM2301.Temperature" is a field of an object in the payload.
    """
    frame = sys._getframe(1)
    place = Place(frame.f_code.co_filename, frame.f_lineno, options.get("name") or "summarize")
    window = every if isinstance(every, Window) else tumbling(every)
    wanted = tuple(stats)
    for stat in wanted:
        if stat not in STATISTICS and not is_percentile(stat):
            raise place.error(f"unknown statistic {stat!r}", f"known are {', '.join(STATISTICS)} and p1 to p99")
    if fields is None:
        handler = source if isinstance(source, Handler) else getattr(source, ATTRIBUTE, None)
        if handler is None or not handler.outputs:
            raise place.error("it does not know what to summarise", 'name the fields: fields=("temperature",)')
        names = tuple(field.name for field in handler.outputs)
    else:
        names = (fields,) if isinstance(fields, str) else tuple(fields)
    for name in names:
        check_path(place, "fields: ", name)
    outputs = tuple(
        Field(stat if len(names) == 1 else f"{field}_{stat}", "int" if stat == "n" else "float")
        for field in names
        for stat in wanted
    )
    feed = _source(place, source)
    ts, retained = _listening(place, feed, options)
    handler = Handler(
        name=options.get("name") or "",  # else the loader gives it the name of the variable
        kind="summarize",
        source=feed,
        function=None,
        inputs=tuple(Field(field) for field in names),
        outputs=outputs,
        options=options_of(place, options, {"to": ("local", "uplink")}),
        file=place.file,
        line=place.line,
        window=window,
        parameters=wanted,
        ts=ts,
        retained=retained,
    )
    _check_thin(place, handler)
    return handler


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
