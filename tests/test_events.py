from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefn import events
from edgefn.errors import PayloadError

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text())


def refused(payload: bytes) -> str:
    with pytest.raises(PayloadError) as caught:
        events.unpack(payload) if payload[:1] >= b"\x80" else events.from_json(payload)
    return caught.value.reason


def test_scalars_are_json_and_arrays_make_a_batch_event():
    assert events.encode({"t": 21.5, "on": True}) == b'{"t":21.5,"on":true}'
    batch = events.encode({"ts": 5, "v": np.array([1, 2], np.float32)})
    found = events.unpack(batch)
    assert found["ts"] == 5
    assert found["v"].tolist() == [1, 2]
    assert found["v"].dtype == np.float32


def test_json_has_no_word_for_what_is_not_finite():
    assert events.to_json([1.0, float("nan"), float("-inf")]) == b"[1.0,null,null]"


@given(st.dictionaries(st.text(), SCALARS))
def test_what_is_packed_is_unpacked(fields: dict[str, object]):
    if len(fields) <= events.MAX_FIELDS:
        assert events.unpack(events.pack(fields)) == fields


@given(hnp.arrays(st.sampled_from([np.dtype(chr(c)) for c in sorted(events.ELEMENTS)]), st.integers(0, 50)))
def test_an_array_of_each_element_type_survives(array: np.ndarray):
    back = events.unpack_array(events.pack_array(array))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


def test_bools_travel_as_bytes_and_big_endian_is_turned_round():
    assert events.unpack_array(events.pack_array(np.array([True, False]))).tolist() == [1, 0]
    assert events.unpack_array(events.pack_array(np.array([1.5], ">f8"))).tolist() == [1.5]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"{", "bad_json"),
        (b"", "bad_json"),
        (b'{"a": NaN}', "bad_json"),
        (b'{"a": 1} x', "bad_json"),
        (b"[" * 100_000, "too_deep"),
        (b"\x81\xa1a", "bad_msgpack"),  # torn
        (b"\x81\x01\x02", "bad_msgpack"),  # a key that is no text
        (b"\xdf\xff\xff\xff\xff", "bad_msgpack"),  # claims four thousand million fields
        (b"\xdd\xff\xff\xff\xff", "bad_msgpack"),
        (b"\x81\xa1a" * 5000 + b"\x80", "too_deep"),
        (b"\x81\xa1a\xa1\xff", "not_utf8"),
        (msgpack.packb({"a": msgpack.ExtType(9, b"x")}), "bad_msgpack"),
        (msgpack.packb({"a": msgpack.ExtType(events.ARRAY, b"")}), "bad_array"),
        (msgpack.packb({"a": msgpack.ExtType(events.ARRAY, b"O12345678")}), "bad_array"),
        (msgpack.packb({"a": msgpack.ExtType(events.ARRAY, b"d1234")}), "bad_array"),
        (msgpack.packb({"a": msgpack.ExtType(events.ARRAY, b"b" + bytes(events.MAX_ARRAY + 1))}), "array_too_long"),
    ],
)
def test_what_a_device_may_send_by_mistake_has_a_reason_to_be_counted_under(wrong: bytes, reason: str):
    assert refused(wrong) == reason


@given(st.binary(max_size=200))
def test_no_payload_raises_anything_else(payload: bytes):
    for decode in (events.unpack, events.from_json):
        with suppress(PayloadError):
            decode(payload)


@pytest.mark.parametrize("fields", [{"a": np.array(["x"])}, {"a": np.zeros((2, 2))}, {"a": object()}])
def test_what_no_payload_can_hold_is_refused(fields: dict[str, object]):
    with pytest.raises(PayloadError, match="not_encodable"):
        events.encode(fields)


def test_edgefn_s_own_processes_may_tell_one_another_more():
    column = np.zeros(events.MAX_ARRAY + 1)
    assert events.unpack(events.pack({"c": column}), events.MAX_LINK)["c"].size == column.size
