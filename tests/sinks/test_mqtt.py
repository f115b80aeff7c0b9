"""What an MQTT 5 broker's reason codes mean for the item that they answer."""

from __future__ import annotations

import pytest

from edgefn.bus import PublishRefusedError
from edgefn.errors import NotConnectedError
from edgefn.sinks import Refusal, load_sink
from edgefn.sinks.mqtt import MqttSink
from tests.sinks.helpers import stored


def sink_that_hears(code: int) -> MqttSink:
    sink = load_sink("mqtt", {"host": "127.0.0.1", "protocol": "5"}, gateway="gw-1")
    assert isinstance(sink, MqttSink)

    async def publish(*_: object, **__: object) -> None:
        raise PublishRefusedError("refused", code)

    sink._bus.publish = publish  # type: ignore[method-assign]
    return sink


@pytest.mark.parametrize("code", [0x80, 0x83, 0x97])
async def test_not_now_is_tried_again(code: int) -> None:
    with pytest.raises(NotConnectedError, match=r"127\.0\.0\.1:1883 will not take more now"):
        await sink_that_hears(code)._send(stored(1))


@pytest.mark.parametrize("code", [0x87, 0x90, 0x99])
async def test_never_is_a_refusal_with_its_reason(code: int) -> None:
    assert await sink_that_hears(code)._send(stored(1)) == Refusal(stored(1).id, f"mqtt_{code}")
