"""An item as the cloud sees it: one JSON object with its key, where it comes from, and the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgefn.errors import PayloadError

if TYPE_CHECKING:
    from edgefn.store import Item


class _Envelope(msgspec.Struct):
    id: str
    gateway: str
    epoch: str
    stream: str
    seq: int
    ts: int
    data: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_check = msgspec.json.Decoder(msgspec.Raw).decode


def envelope(item: Item) -> bytes:
    """One line of JSON: id, gateway, epoch, stream, seq, ts (ns) and data, which is the payload as it was stored.

    Raises PayloadError (bad_json, not_utf8) for a payload that is none.
    """
    payload = item.payload
    try:
        if not payload.isascii():
            payload.decode()
        if b"\n" in payload:
            payload = msgspec.json.format(payload, indent=-1)
        data = _check(payload)
    except UnicodeDecodeError as error:
        raise PayloadError("not_utf8", f"{item.key}: {error}") from error
    except msgspec.DecodeError as error:
        raise PayloadError("bad_json", f"{item.key}: {error}") from error
    return _encode(_Envelope(item.key, item.gateway, item.epoch, item.stream, item.seq, item.ts, data))
