"""From payloads to rows of columns: JSON objects, bare numbers, msgpack maps and batch events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn import events
from edgefn.engine.columns import Table
from edgefn.errors import PayloadError
from edgefn.metrics import Metrics
from edgefn.timestamps import to_ns

EARLIEST = 10**18  # ns: 2001, as in edgefn.timestamps
MAX_LENGTH = 366 * 86400 * 10**9  # ns between the first and the last sample of a batch event
MAX_SKEW = 5 * 60 * 1_000_000_000  # a timestamp further in the future is not believed


def fields_of(payload: bytes) -> dict[str, Any]:
    """The named values of a payload; a bare number is called `value`. Raises PayloadError with the reason."""
    if len(payload) > events.MAX_PAYLOAD:
        raise PayloadError("too_large", f"{len(payload)} bytes; {events.MAX_PAYLOAD} are the limit")
    if not payload:
        raise PayloadError("empty")
    first = payload[0]
    # A msgpack map begins with a byte that no JSON text begins with.
    is_map = 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)
    if first in (0xDE, 0xDF):  # it says how many fields it has, before any of them is read
        _check_size(int.from_bytes(payload[1 : 3 if first == 0xDE else 5], "big"))
    try:
        value = events.unpack(payload) if is_map else events.from_json(payload)
    except MemoryError as error:  # nested arrays that declare far more elements than they bring
        raise PayloadError("too_deep", "it asks for more memory than the engine has") from error
    if isinstance(value, dict):
        _check_size(len(value))
        return value
    if isinstance(value, (int, float)):
        return {"value": value}
    raise PayloadError("not_an_object", f"a {type(value).__name__}; send an object or a bare number")


def _check_size(n: int) -> None:
    if n > events.MAX_FIELDS:
        raise PayloadError("too_many_fields", f"{n} fields; {events.MAX_FIELDS} are the limit")


def value_at(fields: dict[str, Any], path: str) -> Any:
    """What a payload has at a path, None where it has nothing there.

    A name of the payload that is the whole path counts before all. Otherwise each level is a name in the object that the level
    before is; where that is no object (a number, a list), nothing is there.
    """
    if path in fields or "." not in path:
        return fields.get(path)
    value: Any = fields
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def number(value: Any) -> float | None:
    """A finite number as it is, None for anything else."""
    if not isinstance(value, (int, float)):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def why_unusable(value: Any) -> str:
    """The reason under which a value is counted that is no finite number."""
    return "not_finite" if isinstance(value, (int, float)) else "not_a_number"


class Decoder:
    """Writes decoded events into tables. A field that is missing or of the wrong type is absent from its row."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.took_arrival = False  # the event added last has its time of arrival, by the gateway's clock
        self.unusable: PayloadError | None = None  # what of the event added last was left out

    def add(self, fields: dict[str, Any], table: Table, key: int, arrival: int, unit: str = "auto") -> int:
        """Adds one event (one row, or one a sample where it holds arrays); returns the number of rows.

        `unit`: how the event's `ts` is written; "arrival" does without it.
        """
        self.took_arrival, self.unusable = False, None
        values = [None if name in table.latest else value_at(fields, name) for name in table.fields]
        if any(map(_is_array, values)):
            return self._add_batch(fields, values, table, key, arrival, unit)
        table.reserve(1)
        row, present = table.n, 0
        for number, (name, value) in enumerate(zip(table.fields, values, strict=True)):
            if value is None:
                continue
            number_ = self._number(name, value)
            if number_ is not None:
                table.columns[number, row] = number_
                present |= 1 << number
        table.ts[row] = self._time(fields.get("ts"), arrival, unit)
        table.key[row] = key
        table.present[row] = present
        table.n = row + 1
        return 1

    def _number(self, name: str, value: Any) -> float | None:
        converted = number(value)
        if converted is None:
            self._leave_out(name, why_unusable(value), f"a {type(value).__name__}")
        return converted

    def _leave_out(self, name: str, reason: str, what: str) -> None:
        self._metrics.count("fields.unusable", reason=reason)
        self.unusable = PayloadError(f"fields.unusable.{reason}", f"{name[:40]!r} is {what}")

    def _disbelieve(self, reason: str, what: str) -> None:
        self._metrics.count("ts.unusable", reason=reason)
        self.unusable = PayloadError(f"ts.unusable.{reason}", what)

    def _time(self, value: Any, arrival: int, unit: str) -> int:
        """The event's own time where it is believable, else that of its arrival."""
        if value is not None and unit != "arrival":
            ts = to_ns(value, unit)
            if ts is not None and ts <= arrival + MAX_SKEW:
                return ts
            if ts is None:
                self._disbelieve("unclear", "no time after 2001 can be told from `ts`")
            else:
                self._disbelieve("future", "`ts` is more than five minutes ahead of the gateway")
        self.took_arrival = True
        return arrival

    def _add_batch(
        self, fields: dict[str, Any], values: list[Any], table: Table, key: int, arrival: int, unit: str
    ) -> int:
        """Arrays of one length become columns, whatever object they stand in; a scalar beside them holds for every sample.

        `ts` is the time of the first sample and `dt` the nanoseconds between two, or `ts` is an array of nanoseconds.
        """
        named = zip((*table.fields, "ts"), (*values, fields.get("ts")), strict=True)
        arrays = {name: _array(name, value) for name, value in named if _is_array(value)}
        lengths = {array.size for array in arrays.values()}
        if len(lengths) > 1:
            raise PayloadError(
                "uneven_arrays", f"arrays of {', '.join(map(str, sorted(lengths)))} elements in one event"
            )
        n: int = lengths.pop()
        if n == 0:
            return 0
        table.reserve(n)
        rows = slice(table.n, table.n + n)
        table.present[rows] = 0
        for number, name in enumerate(table.fields):
            if name in arrays:
                column = table.columns[number, rows]
                with np.errstate(invalid="ignore"):  # a signalling NaN is one like any other
                    column[:] = arrays[name]
                finite = np.isfinite(column)
                table.present[rows] |= finite.astype(np.int64) << number
                if missing := n - int(np.count_nonzero(finite)):  # how a device says that it has no sample: no example
                    self._metrics.count("fields.unusable", missing, reason="not_finite")
            elif (scalar := values[number]) is not None and (value := self._number(name, scalar)) is not None:
                table.columns[number, rows] = value
                table.present[rows] |= 1 << number
        table.ts[rows] = self._times(fields, arrays, n, arrival, unit)
        table.key[rows] = key
        table.n += n
        return n

    def _times(
        self, fields: dict[str, Any], arrays: dict[str, Any], n: int, arrival: int, unit: str
    ) -> npt.NDArray[np.int64] | int:
        times: npt.NDArray[np.int64]
        if "ts" in arrays and unit != "arrival":
            low, high = arrays["ts"].min(), arrays["ts"].max()
            if not EARLIEST <= low <= high <= arrival + MAX_SKEW:  # nor where one is NaN
                self._disbelieve("unclear", "`ts` holds times before 2001, ahead of the gateway, or none")
                self.took_arrival = True
                return arrival
            times = arrays["ts"].astype(np.int64)
            return times
        dt = fields.get("dt", 0)
        if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not 0 <= n * dt <= MAX_LENGTH:
            self._disbelieve("dt", "`dt` is no number of nanoseconds between two samples")
            dt = 0
        step = round(dt)
        self.took_arrival = "ts" not in fields
        start = arrival - n * step if self.took_arrival else self._time(fields["ts"], arrival, unit)
        if start + n * step > arrival + MAX_SKEW:
            self._disbelieve("future", "the last sample is more than five minutes ahead of the gateway")
            self.took_arrival, start = True, arrival - n * step
        times = start + np.arange(n, dtype=np.int64) * step
        return times


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, list))


def _array(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value
    if len(value) > events.MAX_ARRAY:
        raise PayloadError("array_too_long", f"{name} has {len(value)} elements; {events.MAX_ARRAY} are the limit")
    if not all(isinstance(element, (int, float)) for element in value):
        raise PayloadError("bad_array", f"{name} holds something that is not a number")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise PayloadError("bad_array", f"{name}: {error}") from error
