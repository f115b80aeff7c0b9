"""Fields inside objects: where a kernel is certain it says what the general decoder says, and what devices send is certain."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefn.engine.decode import value_at
from edgefn.engine.ingest import _Feed
from edgefn.engine.sources import Source
from edgefn.events import pack
from edgefn.topics import Pattern
from tests.engine.test_payload_kernels import UNITS, broken, general, quick

NESTED = ["AM.T", "AM.H", "AM.in.ner.v", "a", "b.c", "b", "temperature:0.tC", "Büro.°C", ".latest set/point AM.T"]


@pytest.mark.parametrize(
    "fields",
    [
        {"Time": "2026-11-23T10:00:00", "AM": {"T": 21.4, "H": 50, "Dew": 10.5}, "TempUnit": "C"},
        {"AM": {}, "a": 1},
        {"AM": {"in": {"ner": {"v": 1, "w": {"x": [1]}}, "x": 5}, "T": -1.5}, "b": True},
        {"AM": {"in": {}, "T": True, "H": False}},
        {"AM": {"in": {"ner": {}}, "T": None}},
        {"AM": {"x": {"T": 5}, "y": ["T", {"T": 1}], "in": 3, "T": 7}, "in": {"ner": {"v": 1}}},
        {"AM": 5, "a": 1},
        {"AM": "T", "a": 1},
        {"AM": True, "temperature:0": False, "a": 1},
        {"AM": None, "a": 1},
        {"AM": [{"T": 5}], "a": 1},
        {"AM": {"in": "ner", "T": 5}},
        {"AM": {"in": [{"ner": {"v": 1}}], "T": 5}},
        {"AM.T": 5, "AM.H": None, "T": 6, "AM.in": {"ner": {"v": 1}}},  # names of the payload that are the whole path
        {"AM.T": 5, "AM": {}},
        {"temperature:0": {"id": 0, "tC": 21.5, "tF": 70.7}, "sys": {"uptime": 5, "ram": {"free": 1}}},
        {"AM": {"T": [1, 2], "H": 7, "x": [1, 2, 3]}, "a": [3, 4], "ts": 1799999999, "dt": 10},
        {"AM": {"in": {"ner": {"v": [1.5]}}, "ts": 5, "dt": "x"}},
        {"AM": {"T": 1}, "ts": 1799999999},
        {".latest set/point AM.T": 5, "AM": {"T": 1}},
        {"x" * 100: {"AM": {"T": 1}}, "AM": {"": 1, "T": 2}},
    ],
    ids=str,
)
def test_what_devices_send_in_objects_is_certain(fields: dict[str, Any]) -> None:
    for payload in (json.dumps(fields).encode(), json.dumps(fields, indent=1).encode(), msgpack.packb(fields)):
        # A list in a map is for the library: devices that write msgpack send typed arrays.
        if payload[:1] in b" {" or not any(isinstance(value_at(fields, path), list) for path in NESTED):
            assert quick(payload, fields=NESTED) == general(payload, fields=NESTED), payload


def test_names_that_are_not_ascii_are_certain_in_json() -> None:
    payload = '{"Büro": {"°C": 21.5, "°F": 70.7}}'.encode()
    assert quick(payload, fields=NESTED) == general(payload, fields=NESTED)


def test_typed_arrays_in_maps_are_certain() -> None:
    samples = np.arange(1000, dtype=np.float32)
    payload = pack(
        {"AM": {"T": samples, "H": 7, "other": samples[:9]}, "ts": 1799999999 * 10**9, "dt": 10, "a": samples}
    )
    assert quick(payload, fields=NESTED) == general(payload, fields=NESTED)
    assert quick(pack({"AM": {"T": samples, "H": samples[:9]}}), fields=NESTED) is None
    for value in (5, True, None, "text", b"bytes"):  # no object
        payload = pack({"AM": value, "a": samples, "dt": 7})
        assert quick(payload, fields=NESTED) == general(payload, fields=NESTED)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"AM":{"T":1},"AM":{"T":2}}', b'{"AM":{"T":1},"AM":5}', b'{"AM":5,"AM":{"T":1}}', b'{"AM":{"T":1,"T":2}}',
        b'{"AM.T":1,"AM":{"T":2}}', b'{"AM":{"T":2},"AM.T":null}', b'{"AM":{"in":{},"in":{}}}', b'{"b":{"c":1}}', b'{"a":{}}',
        b'{"AM":{"T":"1"}}', b'{"AM":{"T":{}}}', b'{"AM":{"T":1e400}}', b'{"AM":{"T":[]}}', b'{"AM":{"T":[1,null]}}',
        b'{"AM":{"T":[1,2],"H":[1]}}', b'{"AM":{"\\u0054":1}}', b'{"AM":{"T":1,}}', b'{"AM":{"T":1}', b'{"AM":{"T":1', b'{"AM":{',
        b'{"AM":{"T"', b'{"AM":{"T":', b'{"AM":{"T":1]}', b'{"AM":{"T":1}}}', b'{"AM":{,}}', b'{"AM":{"in":{}', b'{"AM":{"T" 1}}',
        b'{"AM":{"in":{"ner":{"v":1}}}', b'{"AM":{"T":1}{', b'{"AM":{} "a":1}', b'{"AM":{"x":tru}}', b'{"AM":{"x":"\xff"}}',
        b'{"AM":{"x":' + b"[" * 70 + b"]" * 70 + b"}}",
        b"\x82\xa2AM\x81\xa1T\x01\xa2AM\x05", b"\x81\xa2AM\x82\xa1T\x01\xa1T\x02", b"\x81\xa2AM\x82\xa1T\x01",
        b"\x81\xa2AM\x81\xa1T\xa11", b"\x81\xa2AM\x81\xa1T\x80", b"\x81\xa2AM\x81\xa1T\x91\x01", b"\x81\xa2AM\x81\x01\x01",
        b"\x81\xa2AM\xde\xff\xff", b"\x81\xa2AM\xdf\xff\xff\xff\xff", b"\x81\xa2AM\x81\xa1T\x01\x00", b"\x81\xa2AM\xde\x00",
        b"\x81\xa1x\x81\x01\x01", b"\x81\xa1x\x92\x01", b"\x81\xa1x\x91\xc1", b"\x81\xa1x\x91\xd4\x01f", b"\x81\xa1x\x91\xa1\xff",
        b"\x81\xa1x\x91\xcf", b"\x81\xa1x\xdd\x00\x04\x00\x01", b"\x81\xa1x\xde\x01\x01", b"\x81\xa1x\x91\xcb\x00",
        b"\x81\xa1x\xdc",
        b"\x81\xa1x" + b"\x91" * 40 + b"\x01", b"\x81\xa1x\x82\xa1a\x01\x05\x01", b"\x81\xa1x\x81\xc4\x01a\x01",
        msgpack.packb({"b": {"c": 1}}), msgpack.packb({"AM.T": 1, "AM": {"T": 2}}), msgpack.packb({"AM": {"T": math.nan}}),
    ],
)  # fmt: skip
def test_what_is_wrong_or_unusual_in_objects_is_left_to_the_general_decoder(payload: bytes) -> None:
    assert quick(payload, fields=NESTED) is None


@pytest.mark.parametrize(
    ("fields", "compiled"),
    [
        (["a.b", "c"], True),
        (["ts"], False),
        (["ts.x"], False),
        (["dt.x.y"], False),
        (["x.ts"], True),
        ([f"a{i}" for i in range(62)], True),
        ([f"a{i}.b" for i in range(31)], True),
        ([f"a{i}.b" for i in range(32)], False),  # more columns and objects than there are bits
        ([f"a.b.c.d.e.f.g.h{i}" for i in range(55)], True),
        ([f"{'x' * i}.b" for i in range(1, 20)], True),
    ],
)
def test_which_fields_the_kernel_takes(fields: list[str], compiled: bool) -> None:
    feed = _Feed(Source(Pattern("t"), fields))
    assert feed.compiled is compiled
    members: dict[str, Any] = {}
    for value, path in enumerate(fields):
        *way, last = path.split(".")
        inner = members
        for level in way:
            inner = inner.setdefault(level, {})
        inner[last] = value
    for payload in (json.dumps(members).encode(), msgpack.packb(members)):
        if compiled:
            assert quick(payload, fields=fields) == general(payload, fields=fields)


class Members(tuple[tuple[str, Any], ...]):
    """The members of an object, of which some may stand there twice."""


LEVELS = ["a", "b", "c", "a.b", "é", "ts"]
PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "é"]), min_size=1, max_size=4).map(".".join), min_size=1, max_size=8
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-300, 10**12), st.floats(), st.lists(st.integers(0, 9), max_size=3)
)
TREES = st.recursive(
    st.one_of(LEAVES, st.text(max_size=2)),
    lambda inner: st.lists(st.tuples(st.sampled_from(LEVELS), inner), max_size=5).map(Members),
    max_leaves=12,
)


def as_json(value: Any, space: str = "") -> str:
    if not isinstance(value, Members):
        return json.dumps(value, ensure_ascii=False)
    members = (f"{json.dumps(name, ensure_ascii=False)}:{space}{as_json(one, space)}" for name, one in value)
    return "{" + space + f"{space},".join(members) + space + "}"


def as_map(value: Any) -> bytes:
    if isinstance(value, Members):
        return bytes([0x80 + len(value)]) + b"".join(pack(name) + as_map(one) for name, one in value)
    return pack(value)


@given(PATHS, st.lists(st.tuples(st.sampled_from(LEVELS), TREES), max_size=6).map(Members), UNITS, st.data())
@example(["a.b"], Members([("a", Members([("b", 1)])), ("a", Members([]))]), "auto", None)
@example(["a.b"], Members([("a", Members([("b", 1)])), ("a.b", None)]), "auto", None)
@example(["a", "a.b"], Members([("a", Members([("b", 1)]))]), "auto", None)
@settings(max_examples=1500)
def test_objects_in_objects_are_what_the_library_says_or_uncertain(
    paths: list[str], members: Any, unit: str, data: Any
) -> None:
    fields = list(dict.fromkeys(paths))
    for written in (
        as_json(members).encode(errors="surrogatepass"),
        as_json(members, " \n").encode(errors="surrogatepass"),
        as_map(members),
    ):
        payload = written if data is None else broken(written, data)
        assert quick(payload, unit, fields) in (None, general(payload, unit, fields))
