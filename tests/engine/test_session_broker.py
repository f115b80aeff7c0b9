"""The engine's session against a real mosquitto, in both protocols."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.engine import packets
from edgefn.engine import session as sessions
from edgefn.engine.session import Session
from edgefn.engine.subscriptions import disjoint
from edgefn.metrics import Metrics
from tests.broker import make_broker
from tests.engine.test_frames import publish

pytestmark = pytest.mark.integration


class Client:
    """A session that processes what comes, by the real clock."""

    def __init__(
        self,
        port: int,
        name: str,
        *filters: str,
        protocol: int = 5,
        password: str | None = None,
        address: BrokerAddress | None = None,
    ) -> None:
        self.told: list[tuple[str, str]] = []
        self.metrics = Metrics()
        self.got: list[bytes] = []
        self.again: list[bytes] = []
        address = address or BrokerAddress("127.0.0.1", port, "me" if password else None, password)
        self.session = Session(
            address, name, self.metrics, on_change=lambda *what: self.told.append(what), protocol=protocol
        )
        self.session.subscribe(frozenset(filters))

    def until(self, done: Callable[[], bool]) -> None:
        """Drives the session as the engine's loop does, for ten seconds at the most."""
        deadline = time.monotonic() + 10
        while not done():
            assert time.monotonic() < deadline, (self.told, self.got)
            now = time.monotonic_ns()
            self.session.keep(now)
            sock = self.session.sock
            if sock is None:
                select.select([], [], [], 0.02)  # until the next attempt is due
                continue
            select.select([sock], [], [], 0.1)
            for arrived in self.session.read(now):
                for _, _, at, length, flags, packet_id, digest in arrived.rows.tolist():
                    payload = arrived.bytes[at : at + length].tobytes()
                    if flags & 8 and self.session.deliveries.came_again(packet_id, digest):
                        self.again.append(payload)
                        continue
                    if flags & 6:
                        self.session.deliveries.processed([packet_id], [digest], 1, new=not flags & 8)
                    self.got.append(payload)

    def subscribed(self) -> bool:
        return self.session.connected and self.session.subscriptions.confirmed == self.session.subscriptions.wanted

    def break_off(self) -> None:
        assert self.session.sock is not None
        self.session.sock.shutdown(socket.SHUT_RDWR)


def send(port: int, topic: str, *payloads: bytes) -> None:
    """Publishes at QoS 1 and returns when the broker has all."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(
            packets.connect(
                f"sender-{time.monotonic_ns()}",
                v5=False,
                keepalive=60,
                username=None,
                password=None,
                expiry=0,
                receive=9,
            )
        )
        sock.sendall(b"".join(publish(topic.encode(), one, 2, n) for n, one in enumerate(payloads, 1)))
        answers = b""
        while len(answers) < 4 + 4 * len(payloads):
            answers += sock.recv(4096)


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_is_not_acknowledged_comes_again_and_is_known(mosquitto: PrivateBroker, protocol: int) -> None:
    name = f"again-{protocol}"
    client = Client(mosquitto.port, name, f"{name}/+", protocol=protocol)
    client.until(client.subscribed)
    send(mosquitto.port, f"{name}/a", b"1", b"2", b"3")
    client.until(lambda: len(client.got) == 3)
    client.break_off()
    client.until(lambda: client.again == [b"1", b"2", b"3"])
    client.session.acknowledge(1)
    client.until(lambda: len(client.session.deliveries) == 0)
    client.break_off()
    send(mosquitto.port, f"{name}/a", b"4")
    client.until(lambda: len(client.got) == 4)
    assert client.got == [b"1", b"2", b"3", b"4"]
    assert len(client.again) == 3
    client.session.close()


@pytest.mark.parametrize("protocol", [4, 5])
def test_topics_come_and_go(mosquitto: PrivateBroker, protocol: int) -> None:
    name = f"topics-{protocol}"
    client = Client(mosquitto.port, name, f"{name}/a", protocol=protocol)
    client.until(client.subscribed)
    client.session.subscribe(frozenset({f"{name}/b"}))
    client.until(lambda: client.session.checkpoint()["filters"] == [f"{name}/b"])
    send(mosquitto.port, f"{name}/a", b"1")
    send(mosquitto.port, f"{name}/b", b"2")
    client.until(lambda: client.got != [])
    assert client.got == [b"2"]
    client.session.close()


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_message_that_two_patterns_match_comes_once(mosquitto: PrivateBroker, protocol: int) -> None:
    name = f"overlap-{protocol}"
    client = Client(mosquitto.port, name, *disjoint([f"{name}/a/+", f"{name}/+/b"]), protocol=protocol)
    client.until(client.subscribed)
    send(mosquitto.port, f"{name}/a/b", b"1")
    send(mosquitto.port, f"{name}/a/c", b"2")
    client.until(lambda: b"2" in client.got)
    assert client.got == [b"1", b"2"]
    client.session.close()


def test_it_comes_back_when_the_broker_does(mortal_mosquitto: PrivateBroker) -> None:
    client = Client(mortal_mosquitto.port, "back", "back/#")
    client.until(client.subscribed)
    mortal_mosquitto.restart()
    client.until(
        lambda: client.told[-2:] != [] and [state for state, _ in client.told] == ["connected", "offline", "connected"]
    )
    client.until(client.subscribed)  # the session went with the broker
    send(mortal_mosquitto.port, "back/a", b"1")
    client.until(lambda: client.got == [b"1"])
    client.session.close()


def test_of_two_sessions_that_share_a_subscription_each_message_comes_to_one(mosquitto: PrivateBroker) -> None:
    one, other = (Client(mosquitto.port, f"share-{n}", "$share/pair/share/+") for n in range(2))
    one.until(one.subscribed)
    other.until(other.subscribed)
    payloads = [b"%d" % n for n in range(40)]
    send(mosquitto.port, "share/a", *payloads)
    one.until(lambda: len(one.got) >= 20)
    other.until(lambda: len(one.got) + len(other.got) == 40)
    assert sorted(one.got + other.got, key=int) == payloads
    for client in (one, other):
        client.session.acknowledge(1)
        client.until(lambda client=client: len(client.session.deliveries) == 0)
        client.session.close()


def test_two_gateways_of_one_id_are_told_so_and_do_not_race(
    mosquitto: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions.random, "uniform", lambda low, high: high)
    one = Client(mosquitto.port, "twin", "t")
    waits = []
    for _ in range(4):
        one.session.keep(max(time.monotonic_ns(), one.session.due()))
        one.until(one.subscribed)
        other = Client(mosquitto.port, "twin", "t")
        other.until(lambda other=other: other.session.connected)
        one.until(lambda: one.session.sock is None)
        waits.append(round((one.session.due() - time.monotonic_ns()) / 10**9, 1))
        other.session.close()
    # mosquitto 2.0.11 says nothing, so it takes a second time to guess; one that says why is believed at once.
    assert one.told[3][0] == "offline"
    assert "of the same id" in one.told[3][1]
    assert one.told[3][1].endswith("give each gateway a gateway.id of its own")
    assert waits == pytest.approx([0.25, 0.5, 1, 2], abs=0.2)


def test_a_broker_that_shuts_down_says_so(mortal_mosquitto: PrivateBroker) -> None:
    client = Client(mortal_mosquitto.port, "shutdown", "t")
    client.until(client.subscribed)
    mortal_mosquitto.stop()
    client.until(lambda: client.session.sock is None)
    assert client.told[-1][0] == "offline"
    client.session.close()


def test_a_sign_of_life_is_answered(mosquitto: PrivateBroker) -> None:
    client = Client(mosquitto.port, "ping", "t")
    client.until(client.subscribed)
    client.session.keep(client.session.due())  # as if the time had come
    client.until(lambda: client.session.deliveries._barriers == [])
    assert client.session.connected
    client.session.close()


class Dribble:
    """A socket that has one byte at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def recv_into(self, room: memoryview) -> int:
        return self._sock.recv_into(room[:1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_comes_byte_by_byte_is_what_was_sent(
    mosquitto: PrivateBroker, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial = sessions.dial
    monkeypatch.setattr(sessions, "dial", lambda address: Dribble(dial(address)))
    name = f"dribble-{protocol}"
    client = Client(mosquitto.port, name, f"{name}/+", protocol=protocol)
    client.until(client.subscribed)
    payloads = [b"%d" % n * n for n in range(40)]
    send(mosquitto.port, f"{name}/a", *payloads)
    client.until(lambda: len(client.got) == 40)
    assert client.got == payloads
    client.session.acknowledge(1)
    client.until(lambda: len(client.session.deliveries) == 0)
    client.session.close()


def test_an_oversized_message_is_passed_over(mosquitto: PrivateBroker) -> None:
    client = Client(mosquitto.port, "large", "large/#")
    client.until(client.subscribed)
    send(mosquitto.port, "large/a", bytes(3 << 20), b"after")
    client.until(lambda: client.got == [b"after"])
    client.session.acknowledge(1)
    client.until(lambda: len(client.session.deliveries) == 0)
    assert client.metrics.counters["events.failed.too_large"] == 1
    client.session.close()


def test_a_mosquitto_that_asks_for_more_signs_of_life_gets_them() -> None:
    with make_broker(config=["max_keepalive 20"]) as broker:
        client = Client(broker.port, "alive", "t")
        client.until(client.subscribed)
        assert client.session.due() - time.monotonic_ns() <= 15 * 10**9
        client.session.close()
