"""The engine's session against amqtt, NATS and RabbitMQ, each where it is installed: all three speak 3.1.1 only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgefn import events
from tests.engine import other_brokers
from tests.engine.test_session_broker import Client, send

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module", params=["nats", "rabbitmq", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    start = getattr(other_brokers, request.param)
    with start(tmp_path_factory.mktemp(request.param)) as port:
        yield request.param, port


def test_events_come_whole_whatever_their_size(broker: tuple[str, int]) -> None:
    _, port = broker
    client = Client(port, "sizes", "sizes/+")  # it begins with MQTT 5
    client.until(lambda: bool(client.session.subscriptions.confirmed))
    payloads = [b"{}", events.pack({"a": np.arange(1000, dtype=np.float32)}), b"x" * 300_000, b"last"]
    send(port, "sizes/a", *payloads)
    client.until(lambda: len(client.got) == len(payloads))
    assert client.got == payloads
    client.session.acknowledge(1)
    client.until(lambda: len(client.session.deliveries) == 0)
    client.session.close()


def test_what_is_not_acknowledged_comes_again_and_is_known(broker: tuple[str, int]) -> None:
    name, port = broker
    if name == "amqtt":
        pytest.skip("amqtt forgets the session of an anonymous client")
    client = Client(port, "again", "again/+")
    client.until(lambda: bool(client.session.subscriptions.confirmed))
    send(port, "again/a", b"1", b"2", b"3")
    client.until(lambda: len(client.got) == 3)
    client.break_off()
    client.until(lambda: sorted(client.again) == [b"1", b"2", b"3"])
    client.session.acknowledge(1)
    client.until(lambda: len(client.session.deliveries) == 0)
    client.break_off()
    send(port, "again/a", b"4")
    client.until(lambda: len(client.got) == 4)
    assert client.got == [b"1", b"2", b"3", b"4"]
    client.session.close()


def test_topics_come_and_go(broker: tuple[str, int]) -> None:
    _, port = broker
    client = Client(port, "topics", "topics/a")
    client.until(lambda: client.session.subscriptions.confirmed == {"topics/a"})
    client.session.subscribe(frozenset({"topics/b"}))
    client.until(
        lambda: client.session.subscriptions.confirmed == {"topics/b"} and not client.session.subscriptions.obsolete
    )
    send(port, "topics/a", b"1")
    send(port, "topics/b", b"2")
    client.until(lambda: client.got != [])
    assert client.got == [b"2"]
    client.session.close()
