"""The MQTT control packets of the engine's own session, 3.1.1 and 5: few, small, and written here from the standard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CONNACK, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 4, 9, 11, 13, 14
PINGREQ = b"\xc0\x00"
GOODBYE = b"\xe0\x00"

# MQTT 5, 2.4
V5_REASONS = {
    0x00: "no reason given",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "an error of the broker's own",
    0x84: "protocol version not supported",
    0x85: "client id not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep-alive timeout",
    0x8E: "session taken over by a client of the same id",
    0x8F: "topic filter not valid",
    0x90: "topic name not valid",
    0x93: "receive maximum exceeded",
    0x94: "topic alias not valid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format not valid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription ids not supported",
    0xA2: "wildcard subscriptions not supported",
}
TAKEN_OVER = 0x8E
PASSING = (0x00, 0x8B, 0x8D, 0xA0)  # reasons to come back at once: nothing is wrong with either side


def reason(code: int) -> str:
    return V5_REASONS.get(code, f"reason {code:#x}")


_RECEIVE_MAXIMUM, _SERVER_KEEPALIVE = 0x21, 0x13
_V311_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}


def _length(n: int) -> bytes:
    out = bytearray()
    while True:
        n, low = n >> 7, n & 127
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2, "big") + data


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


def connect(
    client_id: str, *, v5: bool, keepalive: int, username: str | None, password: str | None, expiry: int, receive: int
) -> bytes:
    """Asks for a session that outlives the connection; for `expiry` seconds where the protocol is 5."""
    flags = (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    properties = b""
    if v5:
        body = b"\x11" + expiry.to_bytes(4, "big") + b"\x21" + receive.to_bytes(2, "big")
        properties = _length(len(body)) + body
    payload = _text(client_id)
    payload += b"".join(_text(text) for text in (username, password) if text is not None)
    head = _text("MQTT") + bytes([5 if v5 else 4, flags]) + keepalive.to_bytes(2, "big")
    return _packet(0x10, head + properties + payload)


def subscribe(packet_id: int, filters: Iterable[str], *, v5: bool) -> bytes:
    """QoS 1. With MQTT 5, retained messages come only where the subscription is new (retain handling 1)."""
    options = 0x11 if v5 else 0x01
    body = b"".join(_text(text) + bytes([options]) for text in filters)
    return _packet(0x82, packet_id.to_bytes(2, "big") + (b"\x00" if v5 else b"") + body)


def unsubscribe(packet_id: int, filters: Iterable[str], *, v5: bool) -> bytes:
    body = b"".join(_text(text) for text in filters)
    return _packet(0xA2, packet_id.to_bytes(2, "big") + (b"\x00" if v5 else b"") + body)


def pubacks(packet_ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bytes:
    """Acknowledgements in bulk: four bytes each, the same in both versions where nothing went wrong."""
    out = np.empty((len(packet_ids), 4), np.uint8)
    out[:, 0], out[:, 1] = 0x40, 2
    out[:, 2], out[:, 3] = packet_ids >> 8, packet_ids & 255
    return out.tobytes()


@dataclass(frozen=True, slots=True)
class Connack:
    session_present: bool
    reason: int  # as in MQTT 5; 0 is a welcome
    receive_maximum: int = 65535
    keepalive: int | None = None

    @property
    def refused(self) -> str:
        return reason(self.reason) if self.reason else ""


def parse_connack(body: bytes, *, v5: bool) -> Connack:
    """Raises ValueError for a body that is none."""
    if len(body) < 2:
        raise ValueError("a CONNACK of less than two bytes")
    reason = body[1]
    if not v5 or len(body) == 2:  # a broker that knows no MQTT 5 answers as 3.1.1 says
        return Connack(bool(body[0] & 1), _V311_CODES.get(reason, reason))
    found = _properties(body[2:])
    return Connack(bool(body[0] & 1), reason, found.get(_RECEIVE_MAXIMUM, 65535), found.get(_SERVER_KEEPALIVE))


def parse_suback(body: bytes, *, v5: bool) -> bytes:
    """One code a filter, 0x80 and above where it is refused. The packet id is the first two bytes."""
    at = 2
    if v5:
        length, size = _read_length(body[2:])
        at += size + length
    return body[at:]


def _read_length(data: bytes) -> tuple[int, int]:
    """A variable byte integer and how many bytes it takes."""
    value = 0
    for size, byte in enumerate(data[:4], 1):
        value |= (byte & 127) << 7 * (size - 1)
        if byte < 128:
            return value, size
    return value, min(len(data), 4)


# MQTT 5, 2.2.2.2: numbers have a fixed size; texts and binary data say theirs in two bytes.
_SIZES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_TEXTS = {0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, 0x1F: 1, 0x26: 2}  # a user property is two texts


def _properties(data: bytes) -> dict[int, int]:
    """The numbers among a packet's properties, up to the first that the standard does not know."""
    length, at = _read_length(data)
    end, found = min(at + length, len(data)), {}
    while at < end:
        kind = data[at]
        at += 1
        if size := _SIZES.get(kind):
            found[kind] = int.from_bytes(data[at : at + size], "big")
            at += size
        elif kind in _TEXTS:
            for _ in range(_TEXTS[kind]):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
        else:
            break
    return found
