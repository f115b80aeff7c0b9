"""What an MQTT broker is sent with each item, and what its answers mean for the item."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edgefn.broker import PrivateBroker
from edgefn.bus import BrokerAddress, Bus, Message, PublishRefusedError
from edgefn.bus.properties import packet_size
from edgefn.clock import NS
from edgefn.errors import AccessError, NotConnectedError
from edgefn.metrics import Metrics
from edgefn.sinks import Refusal, convert_options
from edgefn.sinks.mqtt import MqttOptions, MqttSink
from edgefn.store import Item
from tests.broker import make_broker, write_passwords
from tests.sinks.helpers import stored
from tests.store.helpers import TurnedClock


def a_sink(broker: PrivateBroker | None = None, **options: Any) -> MqttSink:
    where = {"host": broker.host, "port": broker.port} if broker else {"host": "127.0.0.1"}
    made = convert_options("mqtt", {"timeout_s": 5.0, **where, **options}, MqttOptions)
    return MqttSink(made, gateway="gw-1", metrics=Metrics(), clock=TurnedClock())


class Refusing:
    """A bus whose broker answers every message with a reason code of MQTT 5."""

    def __init__(self, code: int) -> None:
        self.code = code

    async def publish(self, *_: object, **__: object) -> None:
        raise PublishRefusedError("refused", self.code)


@pytest.mark.parametrize("code", [0x80, 0x83, 0x97])
async def test_not_now_is_tried_again(code: int) -> None:
    with pytest.raises(NotConnectedError, match=r"127\.0\.0\.1:1883 will not take more now"):
        await a_sink()._send(Refusing(code), stored(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [0x87, 0x90, 0x99])
async def test_never_is_a_refusal_with_its_reason(code: int) -> None:
    refusal = await a_sink()._send(Refusing(code), stored(1))  # type: ignore[arg-type]
    assert refusal == Refusal(stored(1).id, f"mqtt_{code}", "refused")


# Over a real broker


@pytest.fixture
async def broker() -> AsyncIterator[PrivateBroker]:
    with make_broker() as broker:
        yield broker


async def arrived(broker: PrivateBroker, sink: MqttSink, *items: Item, topic: str = "edgefn/#") -> list[Message]:
    """What a subscriber with MQTT 5 gets of these items."""
    async with Bus(BrokerAddress(broker.host, broker.port), protocol="5") as far:
        await far.wait_connected(5)
        async with far.subscribe(topic, qos=1) as messages:
            await sink.connect()
            assert await sink.send(items) == []
            async with asyncio.timeout(5):
                found = [await anext(messages) for _ in items]
    await sink.close()
    return found


@pytest.mark.integration
async def test_mqtt_5_says_of_each_item_where_it_is_from_and_how_long_it_is_of_use(broker: PrivateBroker) -> None:
    now = TurnedClock().now()
    items = [
        dataclasses.replace(stored(n), expires=expires) for n, expires in ((1, None), (2, now + 90 * NS), (3, now))
    ]
    messages = await arrived(broker, a_sink(broker, protocol="5"), *items)
    properties = [message.properties for message in messages]
    assert properties[0] is not None
    assert dict(properties[0].user) == {
        "id": "gw-1/0a1b2c3d/summary/minute/1",
        "gateway": "gw-1",
        "stream": "summary/minute",
        "seq": "1",
    }
    assert properties[0].content_type == "application/json"
    assert [one.message_expiry for one in properties if one] == [None, 90, 1]


@pytest.mark.integration
@pytest.mark.parametrize("options", [{"protocol": "5", "properties": False}, {"protocol": "3.1.1"}])
async def test_no_properties_where_none_are_wanted_or_none_exist(
    broker: PrivateBroker, options: dict[str, Any]
) -> None:
    [message] = await arrived(broker, a_sink(broker, **options), stored(1))
    assert message.properties is None


@pytest.mark.integration
async def test_msgpack_has_the_same_members(broker: PrivateBroker) -> None:
    [message] = await arrived(broker, a_sink(broker, protocol="5", encoding="msgpack"), stored(7))
    assert msgpack.unpackb(message.payload)["data"] == {"n": 7}
    assert message.properties is not None
    assert message.properties.content_type == "application/msgpack"


@pytest.mark.integration
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_bytes_are_those_on_the_line(broker: PrivateBroker, protocol: str) -> None:
    sink = a_sink(broker, protocol=protocol)
    [message] = await arrived(broker, sink, dataclasses.replace(stored(1), expires=TurnedClock().now() + 90 * NS))
    on_the_line = packet_size(message.topic, message.payload, message.properties) - (protocol == "3.1.1")
    assert abs(sink.bytes_sent - on_the_line) <= 1


@pytest.mark.integration
async def test_an_item_beyond_what_the_broker_takes_is_refused_and_the_others_arrive() -> None:
    with make_broker(config=["max_packet_size 1000"]) as broker:
        sink = a_sink(broker, protocol="5")
        await sink.connect()
        large = stored(2, payload=b'"%s"' % (b"x" * 1000))
        [refusal] = await sink.send([stored(1), large, stored(3)])
        assert (refusal.item_id, refusal.reason) == (large.id, "mqtt_149")
        assert "takes packets of 1000 bytes at the most" in refusal.detail
        await sink.close()


@pytest.mark.integration
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_wrong_credentials_name_user_and_broker_and_new_ones_are_taken_up(tmp_path: Path, protocol: str) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    with make_broker(passwords=write_passwords(tmp_path / "users", {"gateway-7": "right"})) as broker:
        sink = a_sink(broker, protocol=protocol, username="gateway-7", password_file=str(password))
        with pytest.raises(AccessError, match=rf"127\.0\.0\.1:{broker.port}: the broker refuses user 'gateway-7'"):
            await sink.connect()
        password.write_text("right\n")
        await sink.connect()
        assert await sink.send([stored(1)]) == []
        await sink.close()


async def has_session(broker: PrivateBroker, client_id: bytes) -> bool:
    """Asks as that client, with MQTT 3.1.1: the lowest bit of the CONNACK's flags says so (3.2.2.2)."""
    reader, writer = await asyncio.open_connection(broker.host, broker.port)
    rest = b"\x00\x04MQTT\x04\x00\x00\x3c" + len(client_id).to_bytes(2, "big") + client_id
    writer.write(bytes([0x10, len(rest)]) + rest)
    connack = await reader.readexactly(4)
    writer.close()
    assert connack[3] == 0
    return bool(connack[2] & 1)


@pytest.mark.integration
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("session_s", [0, 3600])
async def test_a_session_is_kept_where_it_is_asked_for(broker: PrivateBroker, protocol: str, session_s: int) -> None:
    sink = a_sink(broker, protocol=protocol, session_s=session_s)
    await sink.connect()
    assert await sink.send([stored(1)]) == []
    await sink.close()
    assert await has_session(broker, b"edgefn-gw-1-uplink") == (session_s > 0)


async def test_a_slow_line_is_no_lost_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each PUBACK is a sign of life: only the pause between two of them has a limit."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    answers = [loop.create_future() for _ in range(4)]

    class Slow:
        async def publish(self, *_: object, **__: object) -> None:
            await waiting.pop(0)

    async def turn(seconds: float) -> None:
        nonlocal now
        now += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    sink, waiting = a_sink(timeout_s=30.0), list(answers)
    sink._bus = Slow()  # type: ignore[assignment]
    sending = asyncio.create_task(sink.send([stored(n) for n in range(4)]))
    await turn(0)
    for answer in answers[:3]:
        await turn(29)
        answer.set_result(None)
        await turn(0)
    assert not sending.done()
    await turn(31)
    with pytest.raises(NotConnectedError, match=r"no PUBACK within 30 s"):
        await sending
