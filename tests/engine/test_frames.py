"""The scanner says of every stream what a plain parser says, wherever the stream is cut, and never reads outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.engine import frames, packets

LIMIT = 1 << 20
GUARD = 64  # bytes behind the end that a scanner must not look at


@dataclass(frozen=True)
class Seen:
    topic: bytes
    payload: bytes
    flags: int
    packet_id: int


class BadFrameError(Exception):
    """What is wrong, as the scanner calls it."""

    def __init__(self, why: int = frames.BAD_LENGTH) -> None:
        self.why = why


def length_of(data: bytes) -> tuple[int, int] | None:
    """Value and size of a variable byte integer, None where it is not whole."""
    value = 0
    for size in range(1, 5):
        if len(data) < size:
            return None
        value |= (data[size - 1] & 127) << 7 * (size - 1)
        if data[size - 1] < 128:
            return value, size
    raise BadFrameError


def fnv(data: bytes) -> int:
    digest = 14695981039346656037
    for byte in data:
        digest = (digest ^ byte) * 1099511628211 % 2**64
    return digest - 2**64 if digest >= 2**63 else digest


def reference(data: bytes, v5: bool, limit: int = LIMIT) -> tuple[int, list[Seen], int]:
    """Bytes used, messages and why it stopped, read off the standard one slice at a time."""
    at, seen = 0, []
    try:
        while at < len(data):
            head = length_of(data[at + 1 :])
            if head is None:
                return at, seen, frames.MORE
            length, size = head
            if length > limit:
                return at, seen, frames.TOO_LARGE
            body = data[at + 1 + size : at + 1 + size + length]
            if data[at] >> 4 != 3:
                return at, seen, frames.CONTROL if len(body) == length else frames.MORE
            if len(body) < length:
                return at, seen, frames.MORE
            seen.append(message(data[at] & 15, body, v5))
            at += 1 + size + length
    except BadFrameError as error:
        return at, seen, error.why
    return at, seen, frames.MORE


def message(flags: int, body: bytes, v5: bool) -> Seen:
    qos = flags >> 1 & 3
    if qos == 3:
        raise BadFrameError(frames.BAD_QOS)
    end = 2 + int.from_bytes(body[:2], "big")
    topic, rest = body[2:end], body[end:]
    if len(body) < max(2, end):
        raise BadFrameError(frames.BAD_TOPIC_LENGTH)
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(rest[:2], "big")
        if len(rest) < 2 or not packet_id:
            raise BadFrameError(frames.BAD_PACKET_ID)
        rest = rest[2:]
    if v5:
        try:
            length, size = length_of(rest) or (len(rest) + 1, 0)
        except BadFrameError:
            raise BadFrameError(frames.BAD_PROPERTIES) from None
        if len(rest) < size + length:
            raise BadFrameError(frames.BAD_PROPERTIES)
        check_properties(rest[size : size + length])
        rest = rest[size + length :]
    return Seen(topic, rest, flags, packet_id)


def check_properties(data: bytes) -> None:
    """Those that a PUBLISH may have: MQTT 5, table 2-4."""
    while data:
        kind, data = data[0], data[1:]
        if kind == 0x23:
            raise BadFrameError(frames.TOPIC_ALIAS)
        if kind not in (0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x26):
            raise BadFrameError(frames.BAD_PROPERTIES)
        if kind == 0x0B:
            try:
                sizes = [(length_of(data) or (0, len(data) + 1))[1]]
            except BadFrameError:
                raise BadFrameError(frames.BAD_PROPERTIES) from None
        else:
            sizes = {0x01: [1], 0x02: [4], 0x26: [None, None]}.get(kind, [None])
        for size in sizes:
            if size is None:  # a text or binary data says its length
                size = 2 + int.from_bytes(data[:2], "big") if len(data) >= 2 else 2
            if len(data) < size:
                raise BadFrameError(frames.BAD_PROPERTIES)
            data = data[size:]


def scan(
    data: bytes, v5: bool, limit: int = LIMIT, rows: int = frames.BATCH, guard: int = GUARD
) -> tuple[int, list[Seen], int]:
    """The compiled scanner over a buffer that goes on behind the data with what would be a message."""
    start = 7
    buffer = np.frombuffer(bytearray(b"\xff" * start + data + (b"0\x02\x00\x00" * guard)[:guard]), np.uint8)
    out, status = np.zeros((rows, frames.WORDS), np.int64), np.full(3, -1, np.int64)
    frames.scan(buffer, start, start + len(data), v5, limit, out, status)
    used, found, why = status.tolist()
    seen = []
    for topic, topic_length, payload, payload_length, flags, packet_id, digest in out[:found].tolist():
        assert start <= topic <= topic + topic_length <= payload <= payload + payload_length <= start + used
        one = Seen(
            buffer[topic : topic + topic_length].tobytes(),
            buffer[payload : payload + payload_length].tobytes(),
            flags,
            packet_id,
        )
        if flags & 6 and len(one.payload) < 1000:
            assert digest == fnv(one.topic + b"\xff" + one.payload)
        seen.append(one)
    return used, seen, why


def variable(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def publish(topic: bytes, payload: bytes, flags: int, packet_id: int = 1, properties: bytes | None = None) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic
    if flags & 6:
        body += packet_id.to_bytes(2, "big")
    if properties is not None:
        body += variable(len(properties)) + properties
    return bytes([0x30 | flags]) + variable(len(body) + len(payload)) + body + payload


FLAGS = [dup | qos << 1 | retain for dup in (0, 8) for qos in (0, 1, 2) for retain in (0, 1)]


TEXTS = st.binary(max_size=20).map(lambda data: len(data).to_bytes(2, "big") + data)
PROPERTY = st.one_of(
    st.binary(min_size=1, max_size=1).map(lambda data: b"\x01" + data),
    st.binary(min_size=4, max_size=4).map(lambda data: b"\x02" + data),
    st.builds(lambda kind, text: bytes([kind]) + text, st.sampled_from([0x03, 0x08, 0x09]), TEXTS),
    st.integers(0, 2**28 - 1).map(lambda n: b"\x0b" + variable(n)),
    st.builds(lambda one, two: b"\x26" + one + two, TEXTS, TEXTS),
)
PROPERTIES = st.one_of(*[st.lists(PROPERTY, max_size=5).map(b"".join)] * 7, st.binary(max_size=150))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bool]:
    v5 = draw(st.booleans())
    publishes = st.builds(
        publish,
        st.binary(max_size=20),
        st.one_of(st.binary(max_size=30), st.integers(0, 300).map(lambda n: b"x" * n)),
        st.sampled_from(FLAGS),
        st.one_of(*[st.integers(1, 65535)] * 7, st.just(0)),
        PROPERTIES if v5 else st.none(),
    )
    controls = st.sampled_from([b"\xd0\x00", b"\x40\x02\x00\x01", b"\x90\x03\x00\x01\x00"])
    return b"".join(draw(st.lists(st.one_of(publishes, publishes, publishes, controls), max_size=6))), v5


@settings(max_examples=150, deadline=None)
@given(streams())
def test_cut_at_every_byte_it_says_what_the_reference_says(stream: tuple[bytes, bool]) -> None:
    data, v5 = stream
    for end in range(max(0, len(data) - 200), len(data) + 1):
        assert scan(data[:end], v5) == reference(data[:end], v5)


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(1, 100), min_size=1))
def test_any_chunking_gives_the_same_messages(stream: tuple[bytes, bool], sizes: list[int]) -> None:
    data, v5 = stream

    def all_of(chunks: list[bytes]) -> list[Seen]:
        buffer, messages = b"", []
        for chunk in chunks:
            buffer += chunk
            while True:
                used, seen, why = scan(buffer, v5, rows=2)
                messages += seen
                buffer = buffer[used:]
                if why == frames.CONTROL:
                    length, size = length_of(buffer[1:]) or (0, 0)
                    buffer = buffer[1 + size + length :]
                elif why != frames.FULL:
                    break
        return messages

    chunks, at = [], 0
    for i in range(len(data)):
        chunks.append(data[at : at + sizes[i % len(sizes)]])
        at += sizes[i % len(sizes)]
    assert all_of(chunks) == all_of([data])


@settings(max_examples=1500, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda tail: b"2" + tail)), st.booleans())
def test_garbage_is_judged_as_the_reference_judges_it(data: bytes, v5: bool) -> None:
    assert scan(data, v5, limit=100_000) == reference(data, v5, limit=100_000)


@settings(max_examples=300, deadline=None)
@given(streams(), st.data())
def test_a_flipped_byte_is_judged_as_the_reference_judges_it(stream: tuple[bytes, bool], data: st.DataObject) -> None:
    stream_, v5 = stream
    if stream_:
        at = data.draw(st.integers(0, len(stream_) - 1))
        broken = stream_[:at] + bytes([data.draw(st.integers(0, 255))]) + stream_[at + 1 :]
        assert scan(broken, v5) == reference(broken, v5)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 200_000])
@pytest.mark.parametrize("v5", [False, True])
def test_every_size_of_length(size: int, v5: bool) -> None:
    data = publish(b"a/b", bytes(size), 2, 7, b"\x01\x00" * 100 if v5 else None)
    assert scan(data, v5) == (len(data), [Seen(b"a/b", bytes(size), 2, 7)], frames.MORE)
    assert scan(data[:-1], v5) == (0, [], frames.MORE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x30\xff\xff\xff\xff\x01", frames.BAD_LENGTH),
        (b"\x30\x01\x00", frames.BAD_TOPIC_LENGTH),  # no room for it
        (b"\x30\x04\x00\x09ab", frames.BAD_TOPIC_LENGTH),
        (b"\x32\x04\x00\x02ab", frames.BAD_PACKET_ID),
        (b"\x32\x06\x00\x02ab\x00\x00", frames.BAD_PACKET_ID),
        (b"\x36\x06\x00\x02ab\x00\x01", frames.BAD_QOS),
        (b"\x30\xff\xff\xff\x7f", frames.TOO_LARGE),
        (b"\xd0\x00", frames.CONTROL),
        (b"", frames.MORE),
    ],
)
def test_each_way_of_being_wrong(data: bytes, why: int) -> None:
    assert scan(data, False) == (0, [], why)


@pytest.mark.parametrize("properties", [b"", b"\x05ab", b"\xff\xff\xff\xff", b"\x80"])
def test_properties_that_end_behind_the_frame(properties: bytes) -> None:
    body = b"\x00\x01t" + properties
    assert scan(b"\x30" + bytes([len(body)]) + body + b"0" * 20, True)[2] == frames.BAD_PROPERTIES


@settings(max_examples=500, deadline=None)
@given(st.one_of(PROPERTIES, st.lists(PROPERTY).map(lambda parts: b"".join(parts)[:-1]), st.binary(max_size=12)))
def test_properties_are_judged_as_the_reference_judges_them(properties: bytes) -> None:
    data = publish(b"t", b"payload", 0, 0, properties)
    assert scan(data, True) == reference(data, True)


def test_topic_and_payload_do_not_run_together() -> None:
    digests = set()
    for topic, payload in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b"")):
        buffer = np.frombuffer(bytearray(publish(topic, payload, 2)), np.uint8)
        out, status = np.zeros((1, frames.WORDS), np.int64), np.zeros(3, np.int64)
        frames.scan(buffer, 0, buffer.size, False, LIMIT, out, status)
        digests.add(int(out[0, frames.HASH]))
    assert len(digests) == 3


def test_a_length_is_written_as_it_is_read() -> None:
    for n in (0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455):
        assert length_of(packets._length(n)) == (n, len(packets._length(n)))


@settings(deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_no_answer_of_a_broker_breaks_the_parsers(body: bytes, v5: bool) -> None:
    packets.parse_suback(body, v5=v5)
    if len(body) >= 2:
        packets.parse_connack(body, v5=v5)
    else:
        with pytest.raises(ValueError, match="two bytes"):
            packets.parse_connack(body, v5=v5)


def test_a_connack_says_what_the_broker_asks_for_behind_any_text() -> None:
    reason = b"\x1f\x00\x90" + b"r" * 0x90
    properties = reason + b"\x26\x00\x01a\x00\x01b" + b"\x21\x00\x14" + b"\x13\x00\x1e"
    body = b"\x01\x00" + variable(len(properties)) + properties
    assert packets.parse_connack(body, v5=True) == packets.Connack(True, 0, 20, 30)


@pytest.mark.parametrize(("code", "refused"), [(1, "protocol version not supported"), (4, "bad user name or password")])
def test_a_refusal_of_an_old_broker_is_understood_in_either_protocol(code: int, refused: str) -> None:
    for v5 in (False, True):
        assert packets.parse_connack(bytes([0, code]), v5=v5).refused == refused
