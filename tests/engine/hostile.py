"""What a broken or hostile device, or broker, may send, under the names that docs/mqtt.md calls it by."""

from __future__ import annotations

import math

import msgpack
import numpy as np

from edgefn import events
from edgefn.engine.session import MAX_FRAME
from tests.engine.test_frames import publish

NOW_S = 1_800_000_000

# Payloads on a topic that a handler listens to which wants `a` and `b`, and the rows that it gets of them.
PAYLOADS: dict[str, tuple[bytes, int]] = {
    "an empty payload": (b"", 0),
    "spaces only": (b"   ", 0),
    "text that is no JSON": (b"on", 0),
    "JSON that breaks off": (b'{"a": 1', 0),
    "JSON with something behind it": (b'{"a": 1} {"a": 2}', 0),
    "JSON with a byte order mark": (b'\xef\xbb\xbf{"a": 1}', 0),
    "`NaN` or `Infinity` in JSON": (b'{"a": NaN, "b": -Infinity}', 0),
    "`1e400` in JSON": (b'{"a": 1e400}', 0),
    "an integer of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", 0),
    "an integer of 400 digits": (b'{"a": ' + b"9" * 400 + b"}", 1),
    "`-0`": (b'{"a": -0}', 1),
    "more than 17 digits": (b'{"a": 0.12345678901234567890123}', 1),
    "two fields of one name": (b'{"a": 1, "a": 2}', 1),
    "bytes that are no UTF-8": (b'{"a": 1, "name": "\xff\xfe"}', 0),
    "a surrogate as UTF-8": (b'{"a": 1, "name": "\xed\xa0\x80"}', 0),
    "half a surrogate pair, escaped": (b'{"a": 1, "name": "\\ud800"}', 0),
    "a text, a list or `null`": (b'"text"', 0),
    "100,000 levels of JSON": (b'{"a": ' + b"[" * 100_000, 0),
    "70 levels in a field that nobody wants": (b'{"a": 1, "c": ' + b"[" * 70 + b"]" * 70 + b"}", 1),
    "300 fields": (b"{" + b",".join(b'"f%d": 1' % i for i in range(300)) + b"}", 0),
    "a payload of more than 1 MB": (b'{"a": 1}' + b" " * events.MAX_PAYLOAD, 0),
    "a list of 300,000 numbers": (b'{"a": [' + b"1," * 299_999 + b"1]}", 0),
    "a list with something that is no number": (b'{"a": [1, "2"]}', 0),
    "arrays of unequal length": (b'{"a": [1, 2], "b": [1]}', 0),
    "an empty list": (b'{"a": []}', 0),
    "msgpack that breaks off": (b"\x82\xa1a\x01\xa1b", 0),
    "msgpack with something behind it": (b"\x81\xa1a\x01\x00", 0),
    "a msgpack map with 300 fields": (msgpack.packb({f"f{i}": i for i in range(300)}), 0),
    "a msgpack map that declares 4 GB": (b"\xdf\xff\xff\xff\xff", 0),
    "a msgpack text that declares 4 GB": (b"\x81\xa1a\xdb\xff\xff\xff\xffx", 0),
    "a msgpack list that declares 4 GB": (b"\x81\xa1a\xdd\xff\xff\xff\xff\x01", 0),
    "a msgpack extension that declares 4 GB": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01f", 0),
    "10,000 levels of msgpack": (b"\x81\xa1a" + b"\x91" * 10_000 + b"\x01", 0),
    "a msgpack key that is no text": (b"\x81\x01\x01", 0),
    "a msgpack text that is no UTF-8": (b"\x82\xa1a\x01\xa1c\xa1\xff", 0),
    "an array that ends inside an element": (b"\x81\xa1a\xc7\x06\x01f\x00\x00\x00\x00\x00", 0),
    "an array of an unknown element type": (b"\x81\xa1a\xc7\x05\x01O\x00\x00\x00\x00", 0),
    "an array of 300,000 elements": (events.pack({"a": np.zeros(300_000, np.int8)}), 0),
    "a msgpack extension that nobody knows": (b"\x81\xa1a\xd4\x07\x00", 0),
    "NaN as a field in msgpack": (msgpack.packb({"a": math.nan, "b": 1}), 1),
    "NaN in an array": (events.pack({"a": np.array([1, math.nan, 3])}), 3),
    "a text where a handler wants a number": (b'{"a": "21.5"}', 1),
    "an object without any field that is wanted": (b'{"A": 1}', 1),
    "`ts` in the far future": (b'{"a": 1, "ts": "2262-01-01T00:00:00Z"}', 1),
    "`ts` before 2001": (b'{"a": 1, "ts": 42}', 1),
    "`ts` that is no time": (b'{"a": 1, "ts": "yesterday"}', 1),
    "an array of times, one of them in the far future": (
        events.pack({"a": np.zeros(2), "ts": np.array([NOW_S * 10**9, 2**63 - 1])}),
        2,
    ),
    "`dt` that is no length of time": (b'{"a": [1, 2], "dt": -5}', 2),
    "a batch event whose last sample is in the future": (b'{"a": [1, 2], "ts": %d, "dt": 1e12}' % NOW_S, 2),
}

TOPICS: dict[str, bytes] = {
    "a topic with NUL": b"m/a\0b/x",
    "a topic with a wildcard": b"m/+/x",
    "a topic that is no UTF-8": b"m/\xff/x",
    "a topic with U+D800": b"m/\xed\xa0\x80/x",
    "an empty topic": b"",
    "a topic of 2,000 bytes": b"m/" + b"a" * 1998,
    "a topic of 100 levels": b"m" + b"/" * 99,
}


def _v5(properties: bytes) -> bytes:
    return publish(b"m/a/x", b'{"a": 1}', 0, 0, properties)


def _packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first, len(body)]) + body


# Frames after which nothing on the connection can be trusted.
FRAMES: dict[str, bytes] = {
    "a remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a topic that ends behind its frame": b"\x30\x05\x00\x09m/a",
    "a PUBLISH of one byte": b"\x30\x01\x00",
    "QoS 3": publish(b"m/a/x", b'{"a": 1}', 6, 1, b""),
    "QoS 3 in a message that is too large": publish(b"m/a/x", bytes(MAX_FRAME), 6, 1, b""),
    "packet id 0": publish(b"m/a/x", b'{"a": 1}', 2, 0, b""),
    "QoS 1 without a packet id": b"\x32\x07\x00\x05m/a/x",
    "properties that end behind the frame": b"\x30\x09\x00\x05m/a/x\x05\x01",
    "a length of properties of five bytes": b"\x30\x0c\x00\x05m/a/x\xff\xff\xff\xff\x01",
    "a property that ends behind the properties": _v5(b"\x26\x00\x01a\x00\x09b"),
    "an unknown property": _v5(b"\x7f\x00"),
    "a topic alias": _v5(b"\x23\x00\x01"),
    "packet type 0": _packet(0x00),
    "AUTH, which nobody asked for": _packet(0xF0),
    "a packet that only clients send": _packet(0x10, b"\x00\x04MQTT\x05\x00\x00\x3c\x00\x00\x00"),
    "a PINGRESP with flags": _packet(0xD1),
    "a second CONNACK": _packet(0x20, b"\x00\x00\x00"),
    "an answer to what was not asked": _packet(0x90, b"\x7f\xff\x00\x01"),
    "an answer with too few codes": _packet(0x90, b"\x00\x01\x00"),
    "a control packet larger than 1 MB and 64 kB": b"\xd0\xff\xff\xff\x7f",
}
