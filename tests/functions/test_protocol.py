"""Messages come out as they went in, in whatever pieces; what is none of them is refused and never guessed at."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.functions import protocol
from edgefn.functions.protocol import Forward, FrameError, Frames, Invoke, Outcome, Published

MESSAGES = [
    Published("1", "t", b"\x00", 1, True),
    Outcome("2", "done", value=b"1", forwards=[Forward(b"{}", None, 3)], invokes=[Invoke("x", b"")], state={"a": None}),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=5), st.lists(st.integers(0, 400)))
def test_messages_survive_any_cut(messages: list[protocol.FromWorker], cuts: list[int]) -> None:
    data = b"".join(protocol.frame(message) for message in messages)
    edges = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    frames = Frames()
    found = [protocol.from_worker(body) for start, end in pairwise(edges) for body in frames.feed(data[start:end])]
    assert found == messages


@given(st.binary(max_size=200))
def test_garbage_is_refused(body: bytes) -> None:
    (found,) = Frames().feed(len(body).to_bytes(4, "little") + body)
    with pytest.raises(FrameError):
        protocol.from_worker(found)


def test_what_is_too_large_is_refused_on_both_sides() -> None:
    with pytest.raises(FrameError, match="8388608 are allowed"):
        protocol.frame(Published("1", "t", bytes(protocol.MAX_FRAME), 0, False))
    with pytest.raises(FrameError):
        list(Frames().feed(b"\xff\xff\xff\xff"))
