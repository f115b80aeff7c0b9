"""Where the compiled decoder is certain it says, to the last bit, what the general one says; what devices send is certain."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefn import events
from edgefn.engine import frames
from edgefn.engine import payload_kernels as kernels
from edgefn.engine.columns import Table
from edgefn.engine.decode import MAX_SKEW, Decoder, fields_of
from edgefn.engine.ingest import _Feed
from edgefn.engine.sources import Source
from edgefn.errors import PayloadError
from edgefn.events import pack
from edgefn.metrics import Metrics
from edgefn.topics import Pattern

NOW = 1_800_000_000 * 10**9
FIELDS = ["a", "value", "long_name"]
# Of each row: ts, present, the bits of the values that are there; whether they have their time of arrival; and how many
# values are not finite.
Rows = tuple[list[tuple[int, int, tuple[bytes, ...]]], bool, int]


def rows_of(table: Table, took_arrival: bool, not_finite: int) -> Rows:
    rows = []
    for i in range(table.n):
        present = int(table.present[i])
        values = (struct.pack("d", table.columns[c, i]) for c in range(len(table.fields)) if present >> c & 1)
        rows.append((int(table.ts[i]), present, tuple(values)))
    return rows, took_arrival, not_finite


def quick(
    payload: bytes, unit: str = "auto", fields: list[str] = FIELDS, offset: int = 0, behind: bytes = b'9,"}]'
) -> Rows | None:
    """What the kernel makes of a payload that stands in the middle of others; None where it is not certain."""
    feed = _Feed(Source(Pattern("t"), fields, ts=unit))
    around = b'9,"}]' + bytes(offset)
    data = np.frombuffer(around + payload + behind, np.uint8).copy()
    rows = np.zeros((1, frames.WORDS), np.int64)
    rows[0, frames.PAYLOAD], rows[0, frames.PAYLOAD_LENGTH] = len(around), len(payload)
    table, status, by_gateway = Table(fields, 4), np.zeros(4, np.int64), np.zeros(1, np.uint8)
    while True:
        kernels.decode(
            data, rows, np.zeros(1, np.int64), 0, np.full(1, 7), feed.names.text, feed.names.where, feed.unit, NOW,
            NOW + MAX_SKEW, table.ts, table.key, table.present, table.columns, by_gateway, 0, 1 << 20, status,
        )  # fmt: skip
        stopped, table.n, short, not_finite = status.tolist()
        if not short:
            break
        assert (stopped, table.n) == (0, 0)
        table.reserve(short)
    assert stopped == (table.n > 0)
    assert (table.key[: table.n] == 7).all()
    return rows_of(table, bool(by_gateway[0]), not_finite) if stopped else None


def general(payload: bytes, unit: str = "auto", fields: list[str] = FIELDS) -> Rows | str:
    """What the general decoder makes of it: rows, or the reason why there are none, or what it counted."""
    table, metrics = Table(fields), Metrics()
    decoder = Decoder(metrics)
    try:
        decoder.add(fields_of(payload), table, 0, NOW, unit)
    except PayloadError as error:
        return error.reason
    not_finite = metrics.counters.pop("fields.unusable.not_finite", 0)
    return str(metrics.counters) if metrics.counters else rows_of(table, decoder.took_arrival, not_finite)


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
        b'{"a": [1, 2.5, -3e2, true], "value": 7, "ts": 1799999999, "dt": 1000}',
        b'{"a":[1],"long_name":[2], "dt": 0.5, "x": [1, [2]]}',
        b'{"dt": 250, "a": [1, 2, 3], "value": null, "ts": null}',
        b'{"dt": "short", "a": 1}',
        b'{"dt": [1], "a": 1}',
        b'{"a":' + b"[" + b"1.5," * 999 + b"2]}",
        msgpack.packb({"a": 1, "value": -1.5, "long_name": True, "x": None, "y": "text", "z": b"\xff"}),
        msgpack.packb({"a": 200, "value": -200, "ts": 1799999999123456789}),
        msgpack.packb({"a": 70000, "value": -70000, "ts": 1799999999.5}),
        msgpack.packb({"a": 2**40, "value": -(2**40), "ts": None}),
        msgpack.packb({"a": -128, "value": -32768, "long_name": -(2**31)}),
        msgpack.packb({"a": 0.1, "value": 1e300}, use_single_float=False),
        msgpack.packb({"a": 0.1}, use_single_float=True),
        msgpack.packb({f"f{i}": i for i in range(200)} | {"a": 1}),
        msgpack.packb({"x" * 100: 1, "y": "z" * 300, "z": b"z" * 70000, "a": 1}),
        b"\x80",
        pack({"a": np.arange(1000, dtype=np.float32), "ts": 1799999999 * 10**9, "dt": 100_000}),
        pack({"a": np.array([1.5, math.nan, math.inf, -0.0]), "value": np.arange(4, dtype=np.int8), "long_name": 2.5}),
        pack({"a": np.array([math.nan], np.float32), "other": np.arange(9, dtype=np.uint16)}),
        b"true",
        b" false ",
        msgpack.packb(
            {"x": {"a": [1, {"y": None}], "b": b"z"}, "y": [], "a": 1, "z": [[-1, 1.5, 2**64 - 1, True]] * 20}
        ),
    ],
)
def test_what_devices_send_is_certain(payload: bytes) -> None:
    assert quick(payload) == general(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b" ", b"{", b"}", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}', b'{a:1}', b'{"a":1}}',
        b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":1e}', b'{"a":-}', b'{"a":NaN}', b'{"a":Infinity}',
        b'{"a":1e400}', b'{"b":1e400}', b'{"a":tru}', b'{"a":truE}', b'{"a":nul}', b"5x", b"5 5", b"-", b"[1]", b'"x"',
        b"null", b"tru", b"true 1", b"falsey",
        b'{"a":1,"a":2}', b'{"a":"1"}', b'{"a":{}}', b'{"ts":"2027-01-15T08:00:00Z","a":1}', b'{"ts":true}',
        b'{"ts":5,"a":1}', b'{"ts":-1799999999}', b'{"ts":1900000000}', b'{"b":"\\n"}', b'{"b":"\xff"}', b'{"b":"\xc0\x80"}',
        b'{"b":"\xed\xa0\x80"}', b'{"b":"\xf4\x90\x80\x80"}', b'{"b":"\xe2\x82"}', b'{"b":"\x01"}', b'{"b":"x}', b'{"b":[1,]}',
        b'{"b":[}', b'{"b":{"c"}}', b'{"b":[1 2]}', b'{"b":[[1}]}', b'{"a":12345678901234567890}',
        b'{"a":5e-324}', b'{"\\u0061":1}', b'{"b":' + b"[" * 70 + b"]" * 70 + b"}",
        json.dumps({f"f{i}": i for i in range(300)}).encode(),
        b'{"a":[]}', b'{"a":[1,]}', b'{"a":[1', b'{"a":[1,2],"value":[1]}', b'{"a":[1,null]}', b'{"a":["1"]}', b'{"a":[[1]]}',
        b'{"a":[1],"dt":-1}', b'{"a":[1],"dt":null}', b'{"a":[1],"dt":true}', b'{"a":[1],"dt":"1"}', b'{"a":[1],"dt":1e17}',
        b'{"a":[1,2],"dt":1e15,"dt":1}', b'{"a":[1],"ts":[1799999999]}', b'{"a":[1,2,3],"ts":1800000299.9,"dt":200000000}',
        b"\x81", b"\x81\xa1", b"\x81\xa1a", b"\x81\xa1a\xcd\x01", b"\x81\xa1a\x01\x00", b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\xa1a\xcb\x7f\xf0\0\0\0\0\0\0", b"\x81\xa1a\xcf" + b"\xff" * 8, b"\x81\xa1a\xd3\x80" + bytes(7),
        b"\x81\xa1a\xa11", b"\x81\xa1a\x91\x01", b"\x81\xa1a\x80", b"\x81\xa1b\xa1\xff", b"\x81\xa1\xff\x01", b"\x81\x01\x01",
        b"\x81\xc4\x01a\x01", b"\xdf\xff\xff\xff\xff", b"\xde\x01\x01", b"\x81\xa1b\xdb\xff\xff\xff\xffx",
        b"\x81\xa1b\xc6\xff\xff\xff\xffx",
        b"\x81\xa1b\xc9\xff\xff\xff\xff\x01f", b"\x81\xdb\xff\xff\xff\xffa\x01", b"\x81\xa1a\xd4\x01f",
        b"\x81\xa1a\xd6\x01fxxx", b"\x81\xa1b\xd6\x01fxxx",
        b"\x81\xa1a\xd6\x01zxxx", b"\x81\xa1b\xd6\xffxxxx", b"\x81\xa1a\xc7\x00\x01", b"\x81\xa1a\xc1", b"\x81\xa2ts\xc3",
        b"\x81\xa2ts\x05",
        b'{"a":1' + b" " * events.MAX_PAYLOAD + b"}",
        b" \x80", pack({"a": np.arange(3.0), "value": np.arange(4.0)}), pack({"a": np.arange(3.0), "dt": None}),
        pack({"a": np.arange(3.0), "ts": np.arange(3)}), pack({"a": np.zeros(0)}),
        pack({"a": np.zeros(events.MAX_ARRAY + 1, np.int8)}),
        pack({"a": np.arange(3.0), "value": math.nan}), b'{"a":[' + b"0," * events.MAX_ARRAY + b"0]}",
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
    payload = broken(text.encode(errors="surrogatepass"), data)
    assert quick(payload, unit) in (None, general(payload, unit))


def broken(payload: bytes, data: Any) -> bytes:
    """The payload as it is, or spoilt at one place."""
    if not (payload and data.draw(st.booleans())):
        return payload
    at = data.draw(st.integers(0, len(payload) - 1))
    return (
        payload[:at]
        + data.draw(st.sampled_from([b"", b'"', b"\xff", b"}", b",", b"0", b"\xa1", b"\0"]))
        + payload[at + 1 :]
    )


NUMBER = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), st.integers(-200, 200))
LISTS = st.lists(st.one_of(st.integers(-5, 5), st.floats(-1e9, 1e9), st.booleans()), min_size=1, max_size=9)
STEPS = st.one_of(st.integers(-1, 10**9), st.floats(0, 1e16), st.none(), st.text(max_size=1))


@given(
    st.dictionaries(st.sampled_from(FIELDS), LISTS, min_size=1),
    st.dictionaries(st.sampled_from([*FIELDS, "other"]), VALUES, max_size=2),
    st.one_of(st.none(), st.integers(0, 2**63), st.floats(0, 2e18), st.integers(1_799_999_900, 1_800_000_400)),
    STEPS,
    UNITS,
    st.booleans(),
    st.data(),
)
@settings(max_examples=500)
def test_arrays_in_json_are_what_the_library_says_or_uncertain(
    lists: dict[str, Any], others: dict[str, Any], ts: Any, dt: Any, unit: str, is_even: bool, data: Any
) -> None:
    if is_even:
        least = min(map(len, lists.values()))
        lists = {name: values[:least] for name, values in lists.items()}
    members = {"ts": ts, "dt": dt, **others, **lists}
    chosen = data.draw(st.permutations(list(members)))
    chosen = chosen[: data.draw(st.integers(1, len(chosen)))]
    payload = broken(json.dumps({name: members[name] for name in chosen}).encode(), data)
    assert quick(payload, unit) in (None, general(payload, unit))


ELEMENT_TYPES = [np.dtype(chr(letter)) for letter in events.ELEMENTS]


@st.composite
def arrays(draw: Any, n: int | None = None) -> Any:
    dtype = draw(st.sampled_from(ELEMENT_TYPES))
    n = draw(st.integers(0, 40)) if n is None else n
    bits = draw(st.binary(min_size=n * dtype.itemsize, max_size=n * dtype.itemsize))
    return np.frombuffer(bits, dtype)


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "other", "ts", "dt"]), st.one_of(NUMBER, VALUES, arrays()), max_size=5),
    st.one_of(st.none(), st.integers(0, 2**63), st.floats(0, 2e18), st.integers(1_799_999_900, 1_800_000_400)),
    UNITS,
    st.data(),
)
@settings(max_examples=800)
def test_a_map_is_what_the_library_says_or_uncertain(members: dict[str, Any], ts: Any, unit: str, data: Any) -> None:
    if ts is not None:
        members["ts"] = ts
    payload = broken(pack(members), data)
    assert quick(payload, unit) in (None, general(payload, unit))
    inside = broken(pack({"n": members, "a": 1.5, "ts": ts}), data)
    fields = ["n.a", "n.value", "n.long_name", "a"]
    assert quick(inside, unit, fields) in (None, general(inside, unit, fields))


@given(st.integers(1, 40), st.integers(0, 7), st.integers(0, 10**6), st.booleans(), st.data())
@settings(max_examples=300)
def test_batch_events_are_certain_at_every_address(n: int, offset: int, dt: int, stamped: bool, data: Any) -> None:
    """Elements need not stand at a multiple of their size."""
    members: dict[str, Any] = {"x" * offset: None, "a": data.draw(arrays(n)), "dt": dt, "value": 2.5}
    if stamped:
        members["ts"] = NOW - 10**9
    if data.draw(st.booleans()):
        members["long_name"] = data.draw(arrays(n))
    assert quick(pack(members), offset=offset) == general(pack(members))


@given(st.binary(max_size=40), st.integers(0x80, 0x8F))
@settings(max_examples=500)
def test_any_bytes_as_a_map_are_what_the_library_says_or_uncertain(payload: bytes, head: int) -> None:
    payload = bytes([head]) + payload
    assert quick(payload) in (None, general(payload))
    inside = b"\x81\xa1n" + payload
    assert quick(inside, fields=["n.a"]) in (None, general(inside, fields=["n.a"]))
    assert quick(inside, fields=["a"]) in (None, general(inside, fields=["a"]))


@given(st.binary(max_size=40))
@settings(max_examples=500)
def test_any_bytes_are_what_the_library_says_or_uncertain(payload: bytes) -> None:
    assert quick(payload) in (None, general(payload))
