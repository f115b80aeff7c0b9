"""Where the compiled decoder is certain it says, to the last bit, what the general one says; what devices send is certain."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefn.engine import frames
from edgefn.engine import json_kernels as kernels
from edgefn.engine.columns import Table
from edgefn.engine.decode import MAX_SKEW, Decoder, fields_of
from edgefn.engine.ingest import _Feed
from edgefn.engine.sources import Source
from edgefn.errors import PayloadError
from edgefn.metrics import Metrics
from edgefn.topics import Pattern

NOW = 1_800_000_000 * 10**9
FIELDS = ["a", "value", "long_name"]
Row = tuple[int, int, tuple[bytes, ...]]  # ts, present, the bits of the values that are there


def row_of(table: Table) -> Row:
    present = int(table.present[0])
    values = (struct.pack("d", table.columns[c, 0]) for c in range(len(table.fields)) if present >> c & 1)
    return int(table.ts[0]), present, tuple(values)


def quick(payload: bytes, unit: str = "auto", fields: list[str] = FIELDS) -> Row | None:
    """What the kernel makes of a payload that stands in the middle of others; None where it is not certain."""
    feed = _Feed(Source(Pattern("t"), fields, ts=unit))
    around = b'9,"}]'
    data = np.frombuffer(around + payload + around, np.uint8).copy()
    rows = np.zeros((1, frames.WORDS), np.int64)
    rows[0, frames.PAYLOAD], rows[0, frames.PAYLOAD_LENGTH] = len(around), len(payload)
    table, status = feed.source.table, np.zeros(2, np.int64)
    kernels.decode(
        data, rows, np.zeros(1, np.int64), 0, np.zeros(1, np.int64), feed.names, feed.name_at, feed.unit, NOW,
        NOW + MAX_SKEW, table.ts, table.key, table.present, table.columns, np.zeros(1, np.uint8), 0, status,
    )  # fmt: skip
    assert status.tolist() in ([0, 0], [1, 1])
    return row_of(table) if status[0] else None


def general(payload: bytes, unit: str = "auto", fields: list[str] = FIELDS) -> Row | str:
    """What the general decoder makes of it: a row, or the reason why there is none, or why it is not one plain row."""
    table, metrics = Table(fields), Metrics()
    try:
        n = Decoder(metrics).add(fields_of(payload), table, 0, NOW, unit)
    except PayloadError as error:
        return error.reason
    if n != 1 or metrics.counters:
        return f"{n} rows, {metrics.counters}"
    return row_of(table)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a": 1, "b": 2.5, "value": -3}',
        b' { "a" : 21.75 ,\r\n\t"ts":1799999999000000000 } ',
        b'{"ts": 1799999999, "a": 1}',
        b'{"ts": 1799999999.25, "a": 1}',
        b'{"ts": 1799999999123.5, "a": 1}',
        b'{"a": true, "value": false, "long_name": null, "ts": null}',
        b'{"a": 22.740000000000002, "value": 0.1, "long_name": 1e-7}',
        b'{"a": -0, "value": -0.0, "long_name": 1E+3}',
        b'{"a": 9007199254740993, "value": 1234567890123456789}',
        b'{"a": 1, "name": "K\xc3\xbcche \xe2\x82\xac \xf0\x9f\x8c\xa1", "tags": ["x", {"y": [1, [], {}]}, null]}',
        b"21.5",
        b" -3 ",
        b"{}",
        b"{ }",
    ],
)
def test_what_devices_send_is_certain(payload: bytes) -> None:
    assert quick(payload) == general(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b" ", b"{", b"}", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}', b'{a:1}', b'{"a":1}}',
        b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":1e}', b'{"a":-}', b'{"a":NaN}', b'{"a":Infinity}',
        b'{"a":1e400}', b'{"b":1e400}', b'{"a":tru}', b'{"a":truE}', b'{"a":nul}', b"5x", b"5 5", b"-", b"[1]", b'"x"', b"true",
        b'{"a":1,"a":2}', b'{"a":"1"}', b'{"a":{}}', b'{"a":[1,2]}', b'{"ts":"2027-01-15T08:00:00Z","a":1}', b'{"ts":true}',
        b'{"ts":5,"a":1}', b'{"ts":-1799999999}', b'{"ts":1900000000}', b'{"b":"\\n"}', b'{"b":"\xff"}', b'{"b":"\xc0\x80"}',
        b'{"b":"\xed\xa0\x80"}', b'{"b":"\xf4\x90\x80\x80"}', b'{"b":"\xe2\x82"}', b'{"b":"\x01"}', b'{"b":"x}', b'{"b":[1,]}',
        b'{"b":[}', b'{"b":{"c"}}', b'{"b":[1 2]}', b'{"b":[[1}]}', b'{"a":12345678901234567890}', b"\x81\xa1a\x01",
        b'{"a":5e-324}', b'{"\\u0061":1}', b'{"b":' + b"[" * 70 + b"]" * 70 + b"}",
        json.dumps({f"f{i}": i for i in range(300)}).encode(),
    ],
)  # fmt: skip
def test_what_is_wrong_or_unusual_is_left_to_the_general_decoder(payload: bytes) -> None:
    assert quick(payload) is None


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)


@given(NUMBERS)
@example("2.2250738585072011e-308")
@example("1.7976931348623158e308")
@example("9007199254740993.0")
@example("1e23")
@example("8.5e22")
@settings(max_examples=500)
def test_a_number_is_the_nearest_double(text: str) -> None:
    assert quick(text.encode()) in (None, general(text.encode()))


@given(
    st.floats(-1e300, 1e300, allow_subnormal=False),
    st.sampled_from(["{!r}", "{:.6f}", "{:.3e}"]),
)
@example(900719925474100.0, "{!r}")
@example(21.5, "{:.17f}")
@settings(max_examples=300)
def test_what_programs_print_is_certain(value: float, form: str) -> None:
    text = form.format(value).encode()
    if len(text) < 22 and (value == 0 or abs(value) > 1e-300):
        assert quick(text) == general(text)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from([*FIELDS, "ts", "other", "ü", "a\n"]), VALUES, max_size=6)
UNITS = st.sampled_from(["auto", "s", "ms", "us", "ns", "arrival"])


@given(OBJECTS, st.one_of(st.none(), st.integers(0, 2**63), st.floats(0, 2e18)), UNITS, st.booleans(), st.data())
@settings(max_examples=500)
def test_an_object_is_what_the_library_says_or_uncertain(
    members: dict[str, Any], ts: Any, unit: str, ascii_only: bool, data: Any
) -> None:
    if ts is not None:
        members["ts"] = ts
    text = json.dumps(members, ensure_ascii=ascii_only, indent=data.draw(st.sampled_from([None, 1])))
    payload = text.encode(errors="surrogatepass")
    if data.draw(st.booleans()) and payload:  # broken at one place
        at = data.draw(st.integers(0, len(payload) - 1))
        payload = payload[:at] + data.draw(st.sampled_from([b"", b'"', b"\xff", b"}", b",", b"0"])) + payload[at + 1 :]
    assert quick(payload, unit) in (None, general(payload, unit))


@given(st.binary(max_size=40))
@settings(max_examples=500)
def test_any_bytes_are_what_the_library_says_or_uncertain(payload: bytes) -> None:
    assert quick(payload) in (None, general(payload))
