"""Messages between two processes arrive whole, in order, whatever pieces they travel in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.errors import LinkClosedError
from edgefn.link import Decoder, Link, encode

messages = st.lists(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=9), st.binary(max_size=9)
        ),
        max_size=4,
    ),
    max_size=5,
)


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Link(ours), theirs


@given(messages, st.integers(1, 50))
def test_any_pieces_make_the_same_messages(sent: list[dict[str, Any]], size: int) -> None:
    data, decoder, got = b"".join(map(encode, sent)), Decoder(), []
    for at in range(0, len(data), size):
        got += decoder.feed(data[at : at + size])
    assert got == sent


def test_arrays_and_large_messages_go_through(pair: tuple[Link, socket.socket]) -> None:
    values = np.arange(400_000, dtype=np.float64)  # more than a payload of a device may hold
    decoder, got = Decoder(), list[Any]()
    data = encode({"values": values, "labels": ["a"] * 300_000})
    for at in range(0, len(data), 1 << 20):
        got += decoder.feed(data[at : at + (1 << 20)])
    assert np.array_equal(got[0]["values"], values)
    assert len(got[0]["labels"]) == 300_000


def test_both_ends(pair: tuple[Link, socket.socket]) -> None:
    link, theirs = pair
    link.send({"type": "ready"})
    assert list(Decoder().feed(theirs.recv(1000))) == [{"type": "ready"}]
    theirs.sendall(encode({"type": "stop"}) + encode({"type": "stop"})[:3])
    assert list(link.receive()) == [{"type": "stop"}]
    theirs.sendall(encode({"type": "stop"})[3:])
    assert list(link.receive()) == [{"type": "stop"}]


def test_a_gateway_that_has_gone_is_named(pair: tuple[Link, socket.socket]) -> None:
    link, theirs = pair
    theirs.close()
    with pytest.raises(LinkClosedError, match="gateway has gone"):
        list(link.receive())
    with pytest.raises(LinkClosedError, match="gateway has gone"):
        link.send({"type": "ready"})
