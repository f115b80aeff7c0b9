"""A summary row and what merging takes besides: the engine packs it, the store keeps it, and neighbours become one there.

A row says its values and forgets its samples. So that rows of neighbouring windows can be merged exactly all the same, the
engine hands on a `Summary` of each field, cut down to what the row's statistics need: 20 to 40 bytes, and with percentiles
two to four more for each bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgefn import events
from edgefn.errors import PayloadError
from edgefn.summaries import Summary

# What of a Summary is kept, one bit each.
MEAN, SQUARES, SUM, RANGE, FIRST, LAST, BUCKETS = (1 << bit for bit in range(7))
_NEEDS = {
    "n": 0,
    "mean": MEAN,
    "std": MEAN | SQUARES,
    "sum": SUM,
    "min": RANGE,
    "max": RANGE,
    "first": FIRST,
    "last": LAST,
}
_PERCENTILE = RANGE | BUCKETS  # the lowest and the highest sample are exact

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Body(msgspec.Struct):
    key: str
    samples: int
    values: dict[str, float | None]


_body = msgspec.json.Decoder(_Body).decode


def parts(stats: Iterable[str]) -> int:
    """What has to be kept for these statistics."""
    kept = 0
    for stat in stats:
        kept |= _NEEDS.get(stat, _PERCENTILE)
    return kept


def pack(size: int, kept: int, fields: Sequence[Summary], *, span: int | None = None, rows: int = 1) -> bytes:
    """Of a window of `size` ns, or of `rows` of them that cover `span` ns."""
    return events.pack([size, size if span is None else span, rows, kept, *(_to_list(one, kept) for one in fields)])


def _to_list(one: Summary, kept: int) -> list[Any]:
    plain: list[Any] = [one.n]
    if not one.n:
        return plain
    plain += [one.mean] * bool(kept & MEAN) + [one.m2] * bool(kept & SQUARES) + [one.sum] * bool(kept & SUM)
    plain += [one.min, one.max] * bool(kept & RANGE)
    plain += [*one.first] * bool(kept & FIRST) + [*one.last] * bool(kept & LAST)
    if kept & BUCKETS:
        before = 0
        for number in sorted(one.buckets):
            plain += [number - before, one.buckets[number]]
            before = number
    return plain


def _from_list(plain: list[Any], kept: int) -> Summary:
    if not plain[0]:
        return Summary()
    rest = iter(plain[1:])
    return Summary(
        n=plain[0],
        mean=next(rest) if kept & MEAN else 0.0,
        m2=next(rest) if kept & SQUARES else 0.0,
        sum=next(rest) if kept & SUM else 0.0,
        min=next(rest) if kept & RANGE else 0.0,
        max=next(rest) if kept & RANGE else 0.0,
        first=(next(rest), next(rest)) if kept & FIRST else (0, 0.0),
        last=(next(rest), next(rest)) if kept & LAST else (0, 0.0),
        buckets=_buckets(list(rest)) if kept & BUCKETS else {},
    )


def _buckets(steps: list[int]) -> dict[int, int]:
    made, number = {}, 0
    for step, count in zip(steps[::2], steps[1::2], strict=True):
        number += step
        made[number] = count
    return made


@dataclass(frozen=True, slots=True)
class Mergeable:
    """One row of `key` over [end - span, end), all in ns; `rows` windows of `size` went into it."""

    key: str
    size: int
    end: int
    span: int
    rows: int
    kept: int
    fields: tuple[Summary, ...]
    samples: int
    names: tuple[str, ...]  # of its values: those of the first field, then those of the second …
    payload: bytes

    @classmethod
    def of(cls, payload: bytes, packed: bytes, end: int) -> Mergeable:
        """Of what the store has of a row. Raises PayloadError("bad_summary") where the two do not fit."""
        try:
            body = _body(payload)
            size, span, rows, kept, *plain = events.unpack(packed)
            fields = tuple(_from_list(one, kept) for one in plain)
            if not fields or len(body.values) % len(fields) or min(size, span, rows) <= 0:
                raise ValueError("its values do not belong to its fields")
        except (msgspec.DecodeError, PayloadError, LookupError, TypeError, ValueError, StopIteration) as error:
            raise PayloadError("bad_summary", f"{type(error).__name__}: {error}") from error
        return cls(body.key, size, end, span, rows, kept, fields, body.samples, tuple(body.values), payload)

    @property
    def start(self) -> int:
        return self.end - self.span

    @property
    def shape(self) -> tuple[object, ...]:
        """Rows can be merged where this is equal."""
        return self.key, self.size, self.kept, self.names

    def __or__(self, later: Mergeable) -> Mergeable:
        """Both as one row, which has the end of the later. Windows between them that are not there leave no trace but `n`."""
        return Mergeable(
            key=self.key,
            size=self.size,
            end=later.end,
            span=later.end - self.start,
            rows=self.rows + later.rows,
            kept=self.kept,
            fields=tuple(one | other for one, other in zip(self.fields, later.fields, strict=True)),
            samples=self.samples + later.samples,
            names=self.names,
            payload=later.payload,
        )

    def packed(self) -> bytes:
        return pack(self.size, self.kept, self.fields, span=self.span, rows=self.rows)

    def body(self) -> bytes:
        """The payload with the values of all that was merged, `window_s` of what they cover and `merged` windows."""
        members = _decode(self.payload)
        members["samples"] = msgspec.Raw(_encode(self.samples))
        members["window_s"] = msgspec.Raw(_encode(self.span / 1e9))
        members["merged"] = msgspec.Raw(_encode(self.rows))
        members["values"] = msgspec.Raw(_encode(self.values()))
        return _encode(members)

    def values(self) -> dict[str, float | int | None]:
        each = len(self.names) // len(self.fields)
        told: dict[str, float | int | None] = {}
        for i, name in enumerate(self.names):
            stat = name.rpartition("_")[2]
            if stat == "n":
                told[name] = self.samples
            else:
                value = self.fields[i // each].stat(stat)
                told[name] = value if math.isfinite(value) else None
        return told
