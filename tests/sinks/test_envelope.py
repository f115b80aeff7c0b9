"""JSON and msgpack say the same of an item."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.errors import PayloadError
from edgefn.sinks.envelope import envelope, join
from tests.sinks.helpers import stored

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=25)
@given(st.lists(VALUES, max_size=8))
def test_msgpack_and_json_hold_the_same(values: list[Any]) -> None:
    items = [stored(n, payload=json.dumps(value).encode()) for n, value in enumerate(values)]
    as_json = json.loads(join([envelope(item) for item in items], "json"))
    assert msgpack.unpackb(join([envelope(item, "msgpack") for item in items], "msgpack")) == as_json
    assert [item["data"] for item in as_json["items"]] == values


def test_only_an_item_of_a_clock_that_was_not_set_says_so() -> None:
    assert "unsynced" not in json.loads(envelope(stored(1)))
    assert json.loads(envelope(dataclasses.replace(stored(1), unsynced=True)))["unsynced"] is True
    assert msgpack.unpackb(envelope(dataclasses.replace(stored(1), unsynced=True), "msgpack"))["unsynced"] is True


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"", "bad_json"), (b"NaN", "bad_json"), (b'{"a":}', "bad_json"), (b'"\xff"', "not_utf8"), (b"[1] 2", "bad_json")],
)
def test_what_is_no_json_is_named_by_its_key(encoding: Any, payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=rf"{reason}: gw-1/.*/7: ") as error:
        envelope(stored(7, payload=payload), encoding)
    assert error.value.reason == reason


def test_a_number_that_msgpack_cannot_hold_is_refused_and_json_carries_it() -> None:
    large = stored(1, payload=b"18446744073709551616")
    assert json.loads(envelope(large))["data"] == 2**64
    with pytest.raises(PayloadError, match="not_encodable: gw-1"):
        envelope(large, "msgpack")
