"""What handlers take of an event, and what they put out: named numbers, and how parameters say where theirs come from."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edgefn.errors import TopicError
from edgefn.options import Place
from edgefn.topics import check_topic

RESERVED = ("ts", "key", "state")
MAX_LEVELS = 8  # of the way to a field in objects that hold objects
MAX_PATH = 256  # characters of it
LATEST = ".latest "  # what columns of `latest` begin with: no path begins with a dot

Type = Literal["float", "int", "bool"]


@dataclass(frozen=True, slots=True)
class Field:
    """A named number: a field of the payload that a handler takes, or one of the values that it puts out."""

    name: str
    type: Type = "float"
    default: float | None = None  # of a parameter that is optional
    latest: str | None = None  # the topic whose newest value it is, where it is not of the event
    of: str = "value"  # the field of that topic's payload
    path: str = ""  # where it stands in the payload, where that is not its name

    @property
    def column(self) -> str:
        """What its column is called: the way to it in the payload."""
        return self.path or self.name if self.latest is None else f"{LATEST}{self.latest} {self.of}"


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest value of another topic. Made by `latest`."""

    topic: str
    field: str
    default: float | None


def latest(topic: str, field: str = "value", *, default: float | None = None) -> Any:
    """As the default of a parameter: the newest value of another topic, such as a set-point.

    def too_cold(temperature, wanted=latest("settings/wanted", default=20.0)): …

    Until the topic has brought one, `default` holds; without a default the event is skipped and counted. A retained message
    counts, and what was read survives restarts. `field` may be a path, as in `field("boiler.wanted")`.
    """
    return Latest(topic, field, None if default is None else float(default))


class Named(float):
    """Where a parameter's field stands in the payload. Made by `field`.

    It is a number, its default, for whoever calls the function as plain Python without it; NaN where it has none.
    """

    def __new__(cls, path: Any, default: Any) -> Named:
        made = super().__new__(cls, default if isinstance(default, (int, float)) else math.nan)
        made.path, made.default = path, default
        return made

    path: Any  # as they were written: what is wrong with them is told with the name of the parameter
    default: Any

    def __repr__(self) -> str:
        return f"field({self.path!r}{'' if self.default is None else f', default={self.default!r}'})"


def field(path: str, *, default: float | None = None) -> Any:
    """As the default of a parameter: where its field stands in the payload, with a dot between two levels.

    def plausible(temperature=field("AM2301.Temperature"), humidity=field("AM2301.Humidity", default=50.0)): …

    An event that does not have it is skipped and counted, unless there is a `default`. `field("temperature:0")` is for names
    that no parameter can have. This is not the `field` of dataclasses.
    """
    return Named(path, default)


def wrong_path(path: Any) -> str:
    """What is wrong with the way to a field; empty where nothing is."""
    if not isinstance(path, str):
        return "it is no text"
    if not path:
        return "it is empty"
    if len(path) > MAX_PATH:
        return f"it has {len(path)} characters, and {MAX_PATH} are possible"
    if not path.isprintable():
        return "it has a character that cannot be printed"
    levels = path.split(".")
    if not all(levels):
        return "it has a dot without a name before and behind it"
    return f"it has {len(levels)} levels, and {MAX_LEVELS} are possible" if len(levels) > MAX_LEVELS else ""


def check_path(place: Place, what: str, path: Any) -> str:
    """The path as it is, or an error about `what` is to be found there."""
    if wrong := wrong_path(path):
        shown = repr(path) if len(repr(path)) <= 60 else f"{repr(path)[:57]}…"
        raise place.error(
            f"{what}{shown}: {wrong}",
            'write the names as the payload has them, a dot between two levels: "AM2301.Temperature"',
        )
    return str(path)


def type_of(place: Place, what: str, annotation: Any) -> Type:
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


def inputs_of(place: Place, function: Callable[..., Any], arrays: bool) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    """The fields that a function takes, and the names of all its parameters."""
    fields, names = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise place.error(
                f"parameter *{parameter.name}: the fields that a handler takes are named one by one",
                "write the payload's field names as parameters",
            )
        names.append(parameter.name)
        if parameter.name not in RESERVED:
            fields.append(_input(place, parameter, arrays))
        elif isinstance(parameter.default, (Named, Latest)):
            raise place.error(
                f"parameter {parameter.name} is not a field: {', '.join(RESERVED)} are what edgefn says of each event",
                "give the parameter another name",
            )
    if not fields and not set(names) & {"ts", "key"}:
        raise place.error("it takes no field", "parameter names are the payload's fields: def handler(temperature): …")
    return tuple(fields), tuple(names)


def _input(place: Place, parameter: inspect.Parameter, arrays: bool) -> Field:
    name, default, path = parameter.name, parameter.default, ""
    kind = type_of(place, f"parameter {name}", parameter.empty if arrays else parameter.annotation)
    if isinstance(default, Latest):
        if arrays:
            raise place.error(
                f"parameter {name} is a latest(), which has no array of samples",
                "read it in a @transform before this handler",
            )
        try:
            check_topic(default.topic)
        except TopicError as error:
            raise place.error(f"parameter {name}: latest(): {error}") from error
        of = check_path(place, f"parameter {name}: latest(): its field ", default.field)
        return Field(name, kind, default.default, default.topic, of)
    if isinstance(default, Named):
        path = check_path(place, f"parameter {name}: field(): its path ", default.path)
        default = parameter.empty if default.default is None else default.default
    if default is parameter.empty:
        return Field(name, kind, path=path)
    if default is field or isinstance(default, dataclasses.Field):
        of_whom = "has no path" if default is field else "is the one of dataclasses"
        raise place.error(
            f"parameter {name}: this field {of_whom}",
            'write `from edgefn import field`, and say where it stands in the payload: field("AM2301.Temperature")',
        )
    if arrays:
        raise place.error(
            f"parameter {name} has a default, which an array of samples cannot use",
            "give the default in a @transform before this handler",
        )
    if not isinstance(default, (int, float)):
        raise place.error(f"the default of {name} is not a number")
    return Field(name, kind, float(default), path=path)
