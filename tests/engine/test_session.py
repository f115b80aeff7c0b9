"""The engine's session against a scripted broker: it reconnects, asks, acknowledges in order, and outlives what is sent."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from edgefn.address import BrokerAddress
from edgefn.engine import packets
from edgefn.engine.session import KEEPALIVE, MAX_FRAME, SECOND, Session
from edgefn.metrics import Metrics
from tests.engine.test_frames import length_of, publish

MINUTE = 60 * SECOND


class Script:
    """A broker that does what the test says, one packet after the other."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.peer: socket.socket | None = None
        self.buffer = b""

    def accept(self) -> bytes:
        """Takes the next connection and returns its CONNECT."""
        if self.peer is not None:
            self.peer.close()
        self.listener.settimeout(5)
        self.peer, _ = self.listener.accept()
        self.peer.settimeout(5)
        self.buffer = b""
        return self.packet()

    def send(self, data: bytes) -> None:
        assert self.peer is not None
        self.peer.sendall(data)

    def packet(self) -> bytes:
        """The next packet of the client."""
        assert self.peer is not None
        while True:
            head = length_of(self.buffer[1:]) if len(self.buffer) > 1 else None
            if head is not None and len(self.buffer) >= 1 + sum(head):
                packet, self.buffer = self.buffer[: 1 + sum(head)], self.buffer[1 + sum(head) :]
                return packet
            data = self.peer.recv(65536)
            assert data, "the client has closed"
            self.buffer += data

    def quiet(self) -> bool:
        """Whether the client has sent nothing more."""
        assert self.peer is not None
        return not self.buffer and not select.select([self.peer], [], [], 0.05)[0]

    def close(self) -> None:
        if self.peer is not None:
            self.peer.close()
        self.listener.close()


class Client:
    """A session with its clock, and what it was told and gave."""

    made: ClassVar[list[Client]] = []

    def __init__(self, port: int, *filters: str) -> None:
        self.made.append(self)
        self.now = 0
        self.told: list[tuple[str, str]] = []
        self.metrics = Metrics()
        self.got: list[tuple[str, bytes]] = []
        self.session = Session(
            BrokerAddress("127.0.0.1", port), "me", self.metrics, on_change=lambda *what: self.told.append(what)
        )
        self.session.subscribe(frozenset(filters))

    def connect(self) -> None:
        self.now = max(self.now, self.session.due())
        self.session.keep(self.now)

    def read(self) -> list[tuple[str, bytes]]:
        """Reads until something has come of it; returns the messages and processes them as an engine would."""
        sock = self.session.sock
        assert sock is not None
        assert select.select([sock], [], [], 5)[0]
        got = []
        for arrived in self.session.read(self.now):
            for topic, size, at, length, flags, packet_id, digest in arrived.rows.tolist():
                if flags & 6:
                    if flags & 8 and self.session.deliveries.came_again(packet_id, digest):
                        continue
                    self.session.deliveries.processed([packet_id], [digest], 1, new=not flags & 8)
                got.append(
                    (arrived.bytes[topic : topic + size].tobytes().decode(), arrived.bytes[at : at + length].tobytes())
                )
        self.got += got
        return got

    def read_all(self, until: Any) -> None:
        while not until():
            self.read()


@pytest.fixture
def broker() -> Iterator[Script]:
    script = Script()
    yield script
    while Client.made:
        Client.made.pop().session.close()
    script.close()


def connack(present: bool = False, reason: int = 0, properties: bytes = b"") -> bytes:
    body = bytes([present, reason, len(properties)]) + properties
    return b"\x20" + bytes([len(body)]) + body


def suback(packet: bytes, *codes: int) -> bytes:
    return bytes([0x90, 3 + len(codes)]) + packet[2:4] + b"\x00" + bytes(codes)


def welcome(broker: Script, *filters: str, present: bool = False) -> Client:
    """A client that is let in, with its subscriptions granted."""
    client = Client(broker.port, *filters)
    client.connect()
    assert broker.accept()[0] == 0x10
    broker.send(connack(present))
    client.read()
    if filters and not present:
        broker.send(suback(broker.packet(), *[1] * len(filters)))
        client.read()
    return client


def test_it_asks_for_a_session_that_stays(broker: Script) -> None:
    client = Client(broker.port)
    client.connect()
    packet = broker.accept()
    assert packet[2:9] == b"\x00\x04MQTT\x05"
    assert packet[9] == 0  # no clean start
    broker.send(connack())
    client.read()
    assert client.told == [("connected", "")]


def test_it_subscribes_to_what_is_new_and_leaves_what_is_not_wanted(broker: Script) -> None:
    client = welcome(broker, "a", "b")
    client.session.subscribe(frozenset({"b", "c"}))
    assert broker.packet() == packets.unsubscribe(2, ["a"], v5=True)
    asked = broker.packet()
    assert asked == packets.subscribe(3, ["c"], v5=True)
    broker.send(suback(asked, 1))
    client.read()
    client.session.subscribe(frozenset({"b", "c"}))
    assert broker.quiet()
    # Until the broker has said so, it may still send what is not wanted.
    assert client.session.checkpoint()["filters"] == ["a", "b", "c"]
    broker.send(b"\xb0\x04\x00\x02\x00\x00")
    client.read()
    assert client.session.checkpoint()["filters"] == ["b", "c"]


def test_a_subscription_that_was_not_confirmed_is_asked_for_again(broker: Script) -> None:
    client = Client(broker.port, "a")
    client.connect()
    broker.accept()
    broker.send(connack())
    client.read()
    broker.packet()  # and the connection breaks before the broker has acted on it
    assert broker.peer is not None
    broker.peer.close()
    client.read()
    client.connect()
    broker.accept()
    broker.send(connack(present=True))
    client.read()
    assert broker.packet()[0] == 0x82


def test_a_subscription_that_is_taken_back_and_wanted_again_is_the_first_one(broker: Script) -> None:
    client = Client(broker.port, "a")
    client.connect()
    broker.accept()
    broker.send(connack())
    client.read()
    first = broker.packet()
    client.session.subscribe(frozenset())
    client.session.subscribe(frozenset({"a"}))
    broker.send(suback(first, 1))
    client.read()
    assert broker.quiet()
    assert client.session.checkpoint()["filters"] == ["a"]


def test_a_subscription_that_is_taken_back_before_its_answer_is_ended_after_it(broker: Script) -> None:
    client = Client(broker.port, "a")
    client.connect()
    broker.accept()
    broker.send(connack())
    client.read()
    first = broker.packet()
    client.session.subscribe(frozenset())
    assert broker.quiet()
    broker.send(suback(first, 1))
    client.read()
    assert broker.packet() == packets.unsubscribe(2, ["a"], v5=True)


def test_a_refused_subscription_is_told_with_its_topic(broker: Script) -> None:
    client = Client(broker.port, "a", "b")
    client.connect()
    broker.accept()
    broker.send(connack())
    client.read()
    broker.send(suback(broker.packet(), 1, 0x87))
    client.read()
    state, why = client.told[-1]
    assert state == "refused"
    assert "to send b; see its access list" in why
    assert broker.quiet()  # the same question would get the same answer


def test_with_the_session_present_it_still_asks_for_everything(broker: Script) -> None:
    client = Client(broker.port, "a")
    client.session.restore({"ids": [], "hashes": [], "filters": ["a", "b"]})
    client.connect()
    broker.accept()
    broker.send(connack(present=True))
    client.read()
    # A broker that came back with an older state has a session, and may not know the newest filters.
    assert broker.packet() == packets.unsubscribe(1, ["b"], v5=True)
    assert broker.packet() == packets.subscribe(2, ["a"], v5=True)


def test_a_refusal_is_told_once_with_what_to_do(broker: Script) -> None:
    client = Client(broker.port)
    for _ in range(3):
        client.connect()
        broker.accept()
        broker.send(connack(reason=0x86))
        client.read()
        assert client.session.sock is None
    assert client.told == [
        ("refused", f"127.0.0.1:{broker.port} refuses us: bad user name or password; see [broker] in edgefn.toml")
    ]


@pytest.mark.parametrize("refusal", [connack(reason=0x84), b"\x20\x02\x00\x01"])
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(broker: Script, refusal: bytes) -> None:
    client = Client(broker.port, "a")
    client.connect()
    broker.accept()
    broker.send(refusal)
    client.read()
    assert client.session.due() <= client.now
    client.connect()
    assert broker.accept()[8] == 4
    broker.send(b"\x20\x02\x00\x00")
    client.read()
    assert client.told[-1] == ("connected", "")
    asked = broker.packet()
    assert asked == packets.subscribe(1, ["a"], v5=False)
    broker.send(b"\x90\x03" + asked[2:4] + b"\x01" + publish(b"a", b"1", 0))
    assert client.read() == [("a", b"1")]


def test_a_broker_that_turns_mqtt_5_away_without_a_word_is_spoken_to_in_3_1_1(broker: Script) -> None:
    client = Client(broker.port, "a")
    for _ in range(2):
        client.now = client.session.due()
        client.connect()
        assert broker.accept()[8] == 5
        assert broker.peer is not None
        broker.peer.close()
        client.read()
    assert client.session.due() <= client.now
    client.connect()
    assert broker.accept()[8] == 4
    assert broker.peer is not None
    broker.peer.close()  # nor that: it is about to stop
    client.read()
    client.now = client.session.due()
    client.connect()
    assert broker.accept()[8] == 4


def test_a_broker_that_is_silent_is_spoken_to_in_3_1_1(broker: Script) -> None:
    client = Client(broker.port, "a")
    client.connect()
    assert broker.accept()[8] == 5
    client.now = client.session.due()
    client.session.keep(client.now)
    assert client.session.due() <= client.now
    client.connect()
    assert broker.accept()[8] == 4


def test_messages_come_whole_however_they_are_cut(broker: Script) -> None:
    client = welcome(broker, "t")
    stream = b"".join(publish(b"t", str(i).encode(), 0, properties=b"") for i in range(20))
    for i in range(0, len(stream), 7):
        broker.send(stream[i : i + 7])
        client.read()
    assert client.got == [("t", str(i).encode()) for i in range(20)]


def test_acknowledgements_follow_the_commit_in_order_and_a_ping_proves_them(broker: Script) -> None:
    client = welcome(broker, "t")
    broker.send(b"".join(publish(b"t", b"x", 2, n, b"") for n in (5, 6, 7)))
    client.read()
    assert broker.quiet()
    client.session.acknowledge(1)
    assert [broker.packet() for _ in range(4)] == [
        b"\x40\x02\x00\x05",
        b"\x40\x02\x00\x06",
        b"\x40\x02\x00\x07",
        b"\xc0\x00",
    ]
    assert len(client.session.deliveries) == 3
    broker.send(b"\xd0\x00")
    client.read()
    assert len(client.session.deliveries) == 0


def test_what_comes_again_and_is_committed_is_acknowledged_at_once(broker: Script) -> None:
    client = welcome(broker, "t")
    broker.send(publish(b"t", b"x", 2, 5, b""))
    client.read()
    assert broker.peer is not None
    broker.peer.close()
    client.read()
    client.session.acknowledge(1)
    client.connect()
    broker.accept()
    broker.send(connack(present=True))
    client.read()
    assert broker.packet()[0] == 0x82
    broker.send(publish(b"t", b"x", 2 | 8, 5, b""))
    assert client.read() == []
    client.session.acknowledge(1)
    assert broker.packet() == b"\x40\x02\x00\x05"


@pytest.mark.parametrize("cut", [3, 5, 6, 7, 8, 9, 10, 100, 70_000])
def test_an_oversized_message_is_skipped_and_acknowledged_wherever_it_is_cut(broker: Script, cut: int) -> None:
    client = welcome(broker, "t")
    large = publish(b"t", bytes(MAX_FRAME), 2, 9, b"")
    broker.send(large[:cut])
    client.read()
    broker.peer.settimeout(None)  # type: ignore[union-attr]
    import threading

    rest = threading.Thread(target=broker.send, args=(large[cut:] + publish(b"t", b"after", 0, 0, b""),))
    rest.start()
    client.read_all(lambda: client.got)
    rest.join()
    assert client.got == [("t", b"after")]
    assert client.metrics.counters["events.failed.too_large"] == 1
    assert broker.packet() == b"\x40\x02\x00\x09"


def test_an_oversized_message_among_others_comes_again_and_hides_none(broker: Script) -> None:
    client = welcome(broker, "t")
    stream = [
        publish(b"t", b"1", 2, 1, b""),
        publish(b"t", bytes(MAX_FRAME), 2, 2, b""),
        publish(b"t", b"3", 2, 3, b""),
    ]
    import threading

    def send(flags: int) -> None:
        data = b"".join(bytes([one[0] | flags]) + one[1:] for one in stream)
        sender = threading.Thread(target=broker.send, args=(data,))
        sender.start()
        client.read_all(lambda: len(client.session.deliveries._ids) == 3)
        sender.join()

    send(0)
    assert broker.peer is not None
    broker.peer.close()
    client.read()
    client.connect()
    broker.accept()
    broker.send(connack(present=True))
    client.read()
    send(8)
    assert client.got == [("t", b"1"), ("t", b"3")]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x30\xff\xff\xff\xff\x01", "a frame that is not MQTT"),
        (b"\xe0\x02\x8e\x00", "session taken over"),
        (b"\xe0\x00", "no reason given"),
        (b"\x10\x00", "packet type 1"),
        (b"\xd0\xff\xff\xff\x7f", "a packet of 268435455 bytes"),
    ],
)
def test_a_broken_stream_ends_the_connection_and_not_the_session(broker: Script, data: bytes, why: str) -> None:
    client = welcome(broker, "t")
    broker.send(data)
    client.read()
    assert client.session.sock is None
    assert client.told[-1][0] == "offline"
    assert why in client.told[-1][1]
    client.connect()
    broker.accept()
    broker.send(connack(present=True) + publish(b"t", b"x", 0, 0, b""))
    assert client.read() == [("t", b"x")]


@pytest.mark.parametrize("data", [publish(b"t", b"x", 0, 0, b""), b"\x20\x01\x00", b""])
def test_what_is_no_welcome_is_not_taken_for_one(broker: Script, data: bytes) -> None:
    client = Client(broker.port, "t")
    client.connect()
    broker.accept()
    broker.send(data)
    assert broker.peer is not None
    broker.peer.close()
    assert client.read() == []
    while client.session.sock is not None:
        client.read()
    assert [state for state, _ in client.told] == ["offline"]


def test_a_broker_that_does_not_answer_is_given_up(broker: Script) -> None:
    client = Client(broker.port)
    client.connect()
    client.now = client.session.due()
    client.session.keep(client.now)
    assert client.session.sock is None
    assert "does not answer" in client.told[-1][1]


def test_attempts_are_further_and_further_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = Client(port)
    for _ in range(12):
        client.connect()
        assert 0 < client.session.due() - client.now <= 30 * SECOND
    assert len(client.told) == 1


def test_it_keeps_alive_and_notices_silence(broker: Script) -> None:
    client = welcome(broker)
    assert client.session.due() == client.now + KEEPALIVE * SECOND * 3 // 4
    client.now = client.session.due()
    client.session.keep(client.now)
    assert broker.packet() == b"\xc0\x00"
    for _ in range(4):
        client.now += MINUTE
        client.session.keep(client.now)
    assert any("gone silent" in why for _, why in client.told)


def test_the_brokers_keep_alive_goes_before_ours(broker: Script) -> None:
    client = Client(broker.port)
    client.connect()
    broker.accept()
    broker.send(connack(properties=b"\x13\x00\x0a"))
    client.read()
    assert client.session.due() == client.now + 10 * SECOND * 3 // 4


def test_a_ping_to_keep_alive_does_not_prove_later_acknowledgements(broker: Script) -> None:
    client = welcome(broker, "t")
    client.now = client.session.due()
    client.session.keep(client.now)
    broker.send(publish(b"t", b"x", 2, 5, b""))
    client.read()
    client.session.acknowledge(1)
    broker.send(b"\xd0\x00")
    client.read()
    assert len(client.session.deliveries) == 1
    broker.send(b"\xd0\x00")
    client.read()
    assert len(client.session.deliveries) == 0


def test_a_session_that_another_client_takes_over_is_told_with_what_to_do(broker: Script) -> None:
    client = welcome(broker, "t")
    broker.send(b"\xe0\x02\x8e\x00")
    client.read()
    assert client.told[-1] == (
        "offline",
        f"127.0.0.1:{broker.port} disconnected us: session taken over by a client of the same id; "
        "give each gateway a gateway.id of its own",
    )


def test_closing_says_goodbye_and_twice_is_harmless(broker: Script) -> None:
    client = welcome(broker)
    client.session.close()
    client.session.close()
    assert broker.packet() == packets.GOODBYE
