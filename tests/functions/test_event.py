"""What a handler sees of an event: its fields, its key and its time, whatever the payload is."""

from __future__ import annotations

import pytest

from edgefn import events
from edgefn.functions.event import Event, Key


def test_fields_of_json_and_msgpack_are_read_alike() -> None:
    for payload in (b'{"open": true, "n": 2}', events.pack({"open": True, "n": 2})):
        event = Event("door", payload)
        assert (event["open"], event["n"], event.get("missing", 7)) == (True, 2, 7)
        assert "open" in event
        assert list(event) == ["open", "n"]


def test_a_missing_field_says_what_is_there() -> None:
    with pytest.raises(KeyError, match=r"'opne' is not in the event on door, which has open"):
        Event("door", b'{"open": true}')["opne"]
    with pytest.raises(KeyError, match="which has no fields"):
        Event("door", b"on")["open"]


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b"21.5", 21.5),
        (b'"text"', "text"),
        (b"plain text", "plain text"),
        (b"", ""),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"\x82\xa1", b"\x82\xa1"),  # begins like a map of msgpack
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_any_payload_has_data(payload: bytes, data: object) -> None:
    assert Event("t", payload).data == data


def test_the_key_is_a_text_with_its_captures() -> None:
    key = Event("t", key="attic/2", captures={"room": "attic", "n": "2"}).key
    assert key == "attic/2"
    assert (key.room, key.n) == ("attic", "2")
    with pytest.raises(AttributeError, match="the key has no 'rom'; its captures are room, n"):
        key.rom  # noqa: B018
    assert str(Key("plain")) == "plain"


def test_the_time_is_the_payload_s_where_that_is_certain() -> None:
    assert Event("t", b'{"ts": 1790000000}', arrival=5).ts == 1_790_000_000 * 10**9
    assert Event("t", b'{"ts": "yesterday"}', arrival=5).ts == 5
    assert Event("t", b"21.5", arrival=5).ts == 5
