"""Every payload becomes rows or a PayloadError with a reason; nothing else comes out, whatever a device sends."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn import events
from edgefn.engine.columns import Table
from edgefn.engine.decode import MAX_SKEW, Decoder, fields_of
from edgefn.errors import PayloadError
from edgefn.fields import Field
from edgefn.metrics import Metrics

NOW = 1_800_000_000 * 10**9
FIELDS = ["a", "b"]
Decoded = tuple[list[dict[str, float]], list[int]]


def decode(payload: bytes | dict[str, Any], metrics: Metrics | None = None, fields: list[str] = FIELDS) -> Decoded:
    """Rows by field, missing ones left out, and their times."""
    table = Table(fields, 2)
    decoded = fields_of(payload if isinstance(payload, bytes) else events.encode(payload))
    n = Decoder(metrics or Metrics()).add(decoded, table, 3, NOW)
    frame = table.take()
    assert frame.n == n
    assert (frame.key[:n] == 3).all()
    rows = [
        {name: float(frame.columns[c, i]) for c, name in enumerate(fields) if frame.present[i] >> c & 1}
        for i in range(n)
    ]
    return rows, frame.ts[:n].tolist()


@pytest.mark.parametrize(
    ("payload", "rows"),
    [
        (b'{"a": 1, "b": 2.5, "c": 3}', [{"a": 1.0, "b": 2.5}]),
        (b' {"a":true,"b":false}', [{"a": 1.0, "b": 0.0}]),
        (b'{"a": "21.5", "b": null}', [{}]),
        (b'{"a": {"b": 1}, "b": 1}', [{"b": 1.0}]),
        (b'{"a": 1, "a": 2}', [{"a": 2.0}]),
        (b"{}", [{}]),
        (msgpack.packb({"a": 1, "b": math.nan}), [{"a": 1.0}]),
        (msgpack.packb({"a": math.inf, "b": 2**64 - 1}), [{"b": 2.0**64}]),
        (msgpack.packb({b"a": 1}), [{}]),
        (msgpack.packb({"a": msgpack.Timestamp(1, 2)}), [{}]),
        (msgpack.packb({f"f{i}": i for i in range(20)} | {"a": 1}), [{"a": 1.0}]),
        (b'{"a": 1, "tags": ["x", "y"]}', [{"a": 1.0}]),
        (b'{"a": [1, 2], "b": 7}', [{"a": 1.0, "b": 7.0}, {"a": 2.0, "b": 7.0}]),
        (b'{"a": [1, true], "b": [3, 4], "c": [1, 2, 3]}', [{"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 4.0}]),
        (b'{"a": []}', []),
    ],
)
def test_payloads_and_their_rows(payload: bytes, rows: list[dict[str, float]]) -> None:
    assert decode(payload)[0] == rows


@pytest.mark.parametrize(
    ("payload", "rows"),
    [
        ({"n": {"a": 1, "o": {"b": 2.5}}}, [{"n.a": 1.0, "n.o.b": 2.5}]),
        ({"n": {"a": True, "o": {"b": None}}}, [{"n.a": 1.0}]),
        ({"n": {"a": "text", "o": {"b": {}}}}, [{}]),
        ({"n": 5, "a": 1, "o": {"b": 2}}, [{}]),  # a number where an object is expected: nothing is there
        ({"n": None}, [{}]),
        ({"n": [{"a": 1}]}, [{}]),
        ({"n": {"o": [1]}}, [{}]),
        ({"n.a": 1, "n": {"o.b": 2}}, [{"n.a": 1.0}]),  # a name that is the whole path
        ({"n.a": 1, "n": {"a": 2}}, [{"n.a": 1.0}]),
        ({"n.a": None, "n": {"a": 2}}, [{}]),
        ({"n.o": {"b": 2}}, [{}]),
        ({"n": {"": {"a": 1}, "a": 3}, "": {"n": {"a": 2}}}, [{"n.a": 3.0}]),
        ({"n": {"a": [1, 2], "o": {"b": [3, 4]}}}, [{"n.a": 1.0, "n.o.b": 3.0}, {"n.a": 2.0, "n.o.b": 4.0}]),
        ({"n": {"a": [1, 2], "o": {"b": 7}}}, [{"n.a": 1.0, "n.o.b": 7.0}, {"n.a": 2.0, "n.o.b": 7.0}]),
        ({"n": {"a": 1, "ts": 5, "dt": "x"}}, [{"n.a": 1.0}]),  # only the payload's own are times
    ],
)
@pytest.mark.parametrize(
    "write", [lambda payload: json.dumps(payload).encode(), msgpack.packb], ids=["json", "msgpack"]
)
def test_dots_lead_into_objects(payload: dict[str, Any], rows: list[dict[str, float]], write: Any) -> None:
    decoded, times = decode(write(payload), fields=["n.a", "n.o.b"])
    assert decoded == rows
    assert times == [NOW] * len(rows)


@pytest.mark.parametrize(
    ("payload", "rows"),
    [
        (b'{"n": {"a": 1}, "n": {"o": {"b": 2}}}', [{"n.o.b": 2.0}]),
        (b'{"n": {"a": 1, "a": 2}}', [{"n.a": 2.0}]),
        (b'{"n": {"a": 1}, "n": 5}', [{}]),
        (b'{"n": 5, "n": {"a": 1}}', [{"n.a": 1.0}]),
        (b'{"n": {"o": {"b": 1}, "o": null, "a": 3}}', [{"n.a": 3.0}]),
        (b'{"n": {"\\u0061": 1}}', [{"n.a": 1.0}]),
    ],
)
def test_of_what_stands_twice_the_last_counts_on_each_level(payload: bytes, rows: list[dict[str, float]]) -> None:
    assert decode(payload, fields=["n.a", "n.o.b"])[0] == rows


def test_arrays_in_objects_are_of_one_length_with_those_beside_them() -> None:
    payload = {"n": {"a": np.arange(3.0), "b": np.arange(2.0)}, "ts": NOW - 100, "dt": 10}
    assert decode(events.pack(payload), fields=["n.a"])[1] == [NOW - 100, NOW - 90, NOW - 80]
    with pytest.raises(PayloadError, match="uneven_arrays"):
        decode(events.pack(payload), fields=["n.a", "n.b"])
    with pytest.raises(PayloadError, match=r"n\.b holds something"):
        decode(b'{"n": {"b": [null]}}', fields=["n.a", "n.b"])


def test_what_is_unusable_in_an_object_is_counted() -> None:
    metrics = Metrics()
    assert decode(b'{"n": {"a": "text", "b": {}}, "m": 5}', metrics, ["n.a", "n.b", "m.a"])[0] == [{}]
    assert metrics.counters["fields.unusable.not_a_number"] == 2


def test_no_payload_can_pretend_to_be_the_value_of_another_topic() -> None:
    column = Field("wanted", latest="set/point").column
    assert decode({column: 5, "a": 1}, fields=["a", column])[0] == [{"a": 1.0}]


@pytest.mark.parametrize("payload", [b"21.5", b" 21.5\n", b"-0", b"true", b"1e300"])
def test_a_bare_number_is_called_value(payload: bytes) -> None:
    assert decode(payload, fields=["value"])[0] == [{"value": float(json.loads(payload))}]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b"   ", "bad_json"),
        (b"NaN", "bad_json"),
        (b'{"a": Infinity}', "bad_json"),
        (b'{"a": 1', "bad_json"),
        (b'{"a": 01}', "bad_json"),
        (b"on", "bad_json"),
        (b"null", "not_an_object"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"a": [1, "x"]}', "bad_array"),
        (b'{"a": [[1], [2]]}', "bad_array"),
        (b'{"a": [1, null]}', "bad_array"),
        (b'{"a": [1, 2], "b": [1]}', "uneven_arrays"),
        (b"\x82\xa1a", "bad_msgpack"),
        (msgpack.packb({1: 2}), "bad_msgpack"),
        (msgpack.packb({"a": 1}) + b"\x00", "bad_msgpack"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"d1234567")}), "bad_array"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"")}), "bad_array"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"O12345678")}), "bad_array"),
        (msgpack.packb({"a": msgpack.ExtType(7, b"")}), "bad_msgpack"),
        (b"1" + b"0" * (10 << 20), "too_large"),
        (json.dumps({f"f{i}": i for i in range(300)}).encode(), "too_many_fields"),
    ],
)
def test_a_wrong_payload_has_a_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(payload)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a": "\xff\xfe"}',
        b'{"\xc3": 1}',
        b"[" * 100_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"\x81\xa1a" * 10_000 + b"\x01",
        b"\x81\xa1a" + b"\x91" * 10_000 + b"\x01",
        b"\x81\xa1a" + b"\xdd\x00\x04\x00\x00" * 1_000,  # each array says that it has 262,144 elements
        b"\x81\xa1a" + b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
        b"\x81" + b"\xdb\xff\xff\xff\xff",
        b'{"a": [' + b"1," * 270_000 + b"1]}",
        b"-" + b"9" * 5_000 + b"e99999",
    ],
)
def test_bombs_are_defused(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(payload)


def test_an_integer_without_end_is_no_number() -> None:
    metrics = Metrics()
    try:
        rows, _ = decode(b'{"a": 1' + b"0" * 400 + b"}", metrics)
    except PayloadError:
        return
    assert rows == [{}]
    assert metrics.total("fields.unusable") == 1


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=30),
        st.binary(max_size=20), st.sampled_from([NOW, NOW // 10**9, "2026-11-23T10:00:00Z", 10**15, 1e15, 1e300]),
        st.lists(st.floats(), max_size=4),
        st.builds(
            lambda kind, data: msgpack.ExtType(1, kind + data),
            st.sampled_from([b"d", b"f", b"q", b"Q", b"b", b"x"]),
            st.binary(max_size=24),
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(st.sampled_from(["a", "b", "c", "ts", "dt", "value", "a.b"]), values, max_size=6)


@pytest.mark.filterwarnings("error")
@settings(max_examples=400, deadline=None)
@given(objects)
def test_any_object_gives_rows_with_believable_times_or_a_payload_error(fields: dict[str, Any]) -> None:
    try:
        rows, times = decode(msgpack.packb(fields), fields=["a", "b", "a.b", "c.a", "c.a.b"])
    except PayloadError:
        return
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(0 < ts <= NOW + MAX_SKEW for ts in times)


@settings(max_examples=1500, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda tail: b"\x82\xa1a" + tail)))
def test_random_bytes_raise_payload_errors_only(payload: bytes) -> None:
    with suppress(PayloadError):
        decode(payload)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='{}[]":,0123456789.eE+-truefalsn \\uab', max_size=60))
def test_texts_like_json_raise_payload_errors_only(text: str) -> None:
    with suppress(PayloadError):
        decode(text.encode())


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (NOW // 10**9, NOW),
        (NOW / 1e9 - 0.5, NOW - 5 * 10**8),
        (NOW // 10**6, NOW),
        (NOW // 10**3, NOW),
        (NOW, NOW),
        (NOW - 1, NOW - 1),
        ("2026-11-23T10:00:00Z", 1_795_428_000 * 10**9),
        ("2026-11-23T11:00:00.25+01:00", 1_795_428_000 * 10**9 + 25 * 10**7),
        ("2026-11-23 10:00:00", 1_795_428_000 * 10**9),
    ],
)
def test_times_in_every_unit(ts: object, expected: int) -> None:
    assert decode(json.dumps({"ts": ts, "a": 1}).encode())[1] == [expected]


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        (0, "unclear"),  # 1970: a device without a clock
        (42.5, "unclear"),
        (-NOW, "unclear"),
        (True, "unclear"),
        ("yesterday", "unclear"),
        ("1970-01-01T00:00:00Z", "unclear"),
        ("+292277-01-01T00:00:00Z", "unclear"),
        (2**63 - 1, "unclear"),
        (2**64, "unclear"),
        ({}, "unclear"),
        ([1], "unclear"),
        (NOW + MAX_SKEW + 1, "future"),
        ("2262-01-01T00:00:00Z", "future"),
    ],
)
def test_an_unbelievable_time_gives_way_to_that_of_arrival(ts: object, reason: str) -> None:
    metrics = Metrics()
    assert decode(json.dumps({"ts": ts, "a": 1}).encode(), metrics)[1] == [NOW]
    assert metrics.counters[f"ts.unusable.{reason}"] == 1


def test_the_samples_of_a_batch_stand_dt_apart() -> None:
    a = np.arange(4, dtype=np.float32)
    assert decode({"a": a, "ts": NOW - 100, "dt": 10})[1] == [NOW - 100, NOW - 90, NOW - 80, NOW - 70]
    assert decode({"a": a, "dt": 10})[1] == [NOW - 40, NOW - 30, NOW - 20, NOW - 10]
    assert decode({"a": a, "ts": NOW + np.arange(4)})[1] == [NOW, NOW + 1, NOW + 2, NOW + 3]


@pytest.mark.parametrize("dtype", ["b", "B", "h", "H", "i", "I", "q", "Q", "f", "d"])
def test_every_element_type_becomes_a_column(dtype: str) -> None:
    assert decode({"a": np.array([1, 2], dtype)})[0] == [{"a": 1.0}, {"a": 2.0}]


def test_what_is_not_finite_is_missing_in_its_row_only() -> None:
    assert decode({"a": np.array([1, np.nan, np.inf]), "b": 2})[0] == [{"a": 1.0, "b": 2.0}, {"b": 2.0}, {"b": 2.0}]


@pytest.mark.parametrize("dt", [1e15, 10**15, 10**18, -1, "1s", True])
def test_a_dt_out_of_all_bounds_is_not_believed(dt: object) -> None:
    metrics = Metrics()
    payload = json.dumps({"a": [1.0] * 50_000, "dt": dt}).encode()
    assert decode(payload, metrics)[1] == [NOW] * 50_000
    assert metrics.counters["ts.unusable.dt"] == 1


def test_the_last_sample_of_a_batch_does_not_lead_into_the_future() -> None:
    metrics = Metrics()
    assert decode({"a": np.zeros(3), "ts": NOW, "dt": 10**12}, metrics)[1][-1] < NOW
    assert metrics.counters["ts.unusable.future"] == 1


@pytest.mark.parametrize("times", [[1.0, 2.0], [NOW, 0], [NOW, NOW + 10**15], [math.nan, NOW]])
def test_an_array_of_times_that_is_none(times: list[float]) -> None:
    metrics = Metrics()
    assert decode({"a": np.zeros(2), "ts": np.array(times)}, metrics)[1] == [NOW, NOW]
    assert metrics.counters["ts.unusable.unclear"] == 1


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_a_sample_that_is_missing_and_no_warning():
    table = Table(["x"])
    samples = np.array([0x7FA00000, 0x3F800000], np.uint32).view(np.float32)
    Decoder(Metrics()).add({"x": samples}, table, 0, 0)
    assert table.present[: table.n].tolist() == [0, 1]
