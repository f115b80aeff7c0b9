"""A row of the outbox: the checksum over its columns, and the item that an uplink gets of it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgefn.store.ledger import Ledger
from edgefn.store.records import Item
from edgefn.timestamps import to_iso

SIZE = "length(payload) + coalesce(length(summary), 0)"  # what a row counts for in quotas
COLUMNS = "id, stream, seq, ts, expires, era, own, made, crc, payload, summary"

_place = struct.Struct("<qqqq").pack
_origin = struct.Struct("<qqq").pack
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def checksum(
    stream: int,
    seq: int,
    ts: int,
    expires: int | None,
    payload: bytes,
    *,
    era: int = 0,
    own: int = 0,
    made: int = 0,
    summary: bytes | None = None,
) -> int:
    """CRC-32 of everything but `pending`, which each acknowledgement changes. Raises struct.error past 64 bits.

    Columns that came with version 2 are left out while they are as in a row of version 1: those rows keep their checksum.
    """
    crc = zlib.crc32(payload, zlib.crc32(_place(stream, seq, ts, expires or 0)))
    if era or own or made or summary is not None:
        crc = zlib.crc32(summary or b"", zlib.crc32(_origin(era, own, made), crc))
    return crc


@dataclass(frozen=True, slots=True)
class Found:
    """A row that was read: the item, and what is not told to uplinks. Its times are shifted where its clock was put right."""

    item: Item
    expires: int | None
    mergeable: bool  # with its neighbours, when there is no room


def found(row: Sequence[Any], ledger: Ledger, gateway: str) -> Found | None:
    """What a row of COLUMNS says; None for a damaged one."""
    id_, stream_id, seq, ts, expires, era_id, own, made, _, payload, summary = row
    stream = ledger.by_id.get(stream_id)
    if stream is None or not intact(row):
        return None
    era = ledger.eras.get(era_id)
    if era is not None and era.shift:
        expires = None if expires is None else expires + era.shift
        if own:
            ts += era.shift
            payload = stamped(payload, ts)
    key = f"{gateway}/{stream.epoch}/{stream.name}/{seq}"
    unsynced = era is not None and not era.synced
    item = Item(id_, stream.name, seq, ts, id_ & 3, payload, key, made, unsynced, expires)
    return Found(item, expires, summary is not None)


def intact(row: Sequence[Any]) -> bool:
    """Whether a row of COLUMNS is as it was written."""
    _, stream, seq, ts, expires, era, own, made, crc, payload, summary = row
    try:
        return bool(crc == checksum(stream, seq, ts, expires, payload, era=era, own=own, made=made, summary=summary))
    except (struct.error, TypeError):  # a flipped bit can change the type of a value, too
        return False


def stamped(payload: bytes, ts: int) -> bytes:
    """The payload with another time (ns), where it is a JSON object with a text under "ts"; any other as it is."""
    try:
        members = _members(payload)
    except msgspec.DecodeError:
        return payload
    if "ts" not in members or not bytes(members["ts"]).startswith(b'"'):
        return payload
    members["ts"] = msgspec.Raw(_encode(to_iso(ts)))
    return _encode(members)
