"""An item as the cloud sees it: an object with its key, where it comes from, and the data; as JSON or as msgpack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from edgefn.errors import PayloadError
from edgefn.events import from_json

if TYPE_CHECKING:
    from edgefn.store import Item

Encoding = Literal["json", "msgpack"]

MEDIA_TYPES: dict[Encoding, str] = {"json": "application/json", "msgpack": "application/msgpack"}


class _Envelope(msgspec.Struct, omit_defaults=True):
    id: str
    gateway: str
    epoch: str
    stream: str
    seq: int
    ts: int
    data: msgspec.Raw
    unsynced: bool = False


_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_check = msgspec.json.Decoder(msgspec.Raw).decode


def envelope(item: Item, encoding: Encoding = "json") -> bytes:
    """id, gateway, epoch, stream, seq, ts (ns) and data; `unsynced` where the clock was not known to be right.

    JSON is one line, with the payload as it was stored; msgpack is a map of the same members. Raises PayloadError
    (bad_json, not_utf8, too_deep) for a payload that is no JSON, and (not_encodable) for a number that msgpack cannot hold.
    """
    try:
        if encoding == "msgpack":
            return _pack(_enclose(item, msgspec.Raw(_pack(from_json(item.payload)))))
        payload = item.payload
        if not payload.isascii():
            payload.decode()
        if b"\n" in payload:
            payload = msgspec.json.format(payload, indent=-1)
        return _encode(_enclose(item, _check(payload)))
    except PayloadError as error:
        raise PayloadError(error.reason, f"{item.key}: {error}") from error
    except OverflowError as error:  # a whole number of more than 64 bits
        raise PayloadError("not_encodable", f"{item.key}: {error}") from error
    except UnicodeDecodeError as error:
        raise PayloadError("not_utf8", f"{item.key}: {error}") from error
    except msgspec.DecodeError as error:
        raise PayloadError("bad_json", f"{item.key}: {error}") from error


def join(envelopes: Sequence[bytes], encoding: Encoding) -> bytes:
    """`{"items": […]}` of envelopes that are encoded already."""
    if encoding == "json":
        return b'{"items":[' + b",".join(envelopes) + b"]}"
    # A map of one member, and an array 32 (msgpack's specification, "map format family" and "array format family").
    return b"\x81\xa5items\xdd" + len(envelopes).to_bytes(4, "big") + b"".join(envelopes)


def _enclose(item: Item, data: msgspec.Raw) -> _Envelope:
    return _Envelope(item.key, item.gateway, item.epoch, item.stream, item.seq, item.ts, data, item.unsynced)
