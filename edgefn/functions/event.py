"""What a Python handler is given: the event that started it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

from edgefn.timestamps import to_ns


class Key(str):
    """What the event's topic says: a text, with the captures of the pattern as attributes (`event.key.room`)."""

    captures: Mapping[str, str]

    def __new__(cls, text: str, captures: Mapping[str, str] | None = None) -> Key:
        key = super().__new__(cls, text)
        key.captures = dict(captures or {})
        return key

    def __getattr__(self, name: str) -> str:
        try:
            return self.captures[name]
        except KeyError:
            known = ", ".join(self.captures) or "none: name one in the pattern, such as sensors/{room}/motion"
            raise AttributeError(f"the key has no {name!r}; its captures are {known}") from None


class Event:
    """One event. `event["field"]` and `event.get("field")` read the fields of a JSON object or msgpack map.

    topic: where it was published, or what happened ("every/5m", "file//data/a.csv", "output/spike"). key: a `Key`.
    payload: the bytes as they came. ts: ns since the epoch, the payload's `ts` where that is certain, else when it came.
    id: stays the same when it is tried again or delivered again. attempt: 1, 2, 3 …
    """

    def __init__(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        key: str = "",
        captures: Mapping[str, str] | None = None,
        arrival: int = 0,
        id: str = "",
        attempt: int = 1,
        retained: bool = False,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.key = Key(key, captures)
        self.id = id
        self.attempt = attempt
        self.retained = retained
        self._arrival = arrival

    @cached_property
    def data(self) -> Any:
        """The payload decoded: JSON, a msgpack map, or else text; bytes where it is none of these."""
        try:
            return msgspec.json.decode(self.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        if self.payload[:1] and (0x80 <= self.payload[0] <= 0x8F or self.payload[0] in (0xDE, 0xDF)):
            from edgefn.events import unpack  # here only: it brings numpy, for arrays of samples

            try:
                return unpack(self.payload)
            except ValueError:  # not msgpack either, though it begins like it
                return self.payload
        try:
            return self.payload.decode()
        except UnicodeDecodeError:
            return self.payload

    @cached_property
    def told_ts(self) -> int | None:
        """The payload's own time; None where it has none that is certain."""
        return to_ns(self.data.get("ts")) if isinstance(self.data, dict) else None

    @property
    def ts(self) -> int:
        return self._arrival if self.told_ts is None else self.told_ts

    def __getitem__(self, field: str) -> Any:
        fields = self._fields()
        if field not in fields:
            shown = ", ".join(list(fields)[:20]) if fields else "no fields"
            raise KeyError(f"{field!r} is not in the event on {self.topic}, which has {shown}")
        return fields[field]

    def get(self, field: str, default: Any = None) -> Any:
        return self._fields().get(field, default)

    def __contains__(self, field: object) -> bool:
        return field in self._fields()

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def _fields(self) -> Mapping[str, Any]:
        return self.data if isinstance(self.data, dict) else {}

    def __repr__(self) -> str:
        return f"<event {self.topic} {self.payload[:80]!r}>"
