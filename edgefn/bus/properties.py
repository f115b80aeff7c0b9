"""The properties of MQTT 5 on their way to paho and back."""

from __future__ import annotations

from dataclasses import dataclass

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties


@dataclass(frozen=True, slots=True)
class Properties:
    """The MQTT 5 properties that edgefn uses."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()
    message_expiry: int | None = None  # seconds after which nobody needs the message any more
    content_type: str | None = None

    def pack(self) -> bytes:
        """As they stand in a PUBLISH: their length, and an identifier before each (MQTT 5, 2.2.2). Raises ValueError."""
        packed = bytearray()
        if self.message_expiry is not None:
            packed += b"\x02" + self.message_expiry.to_bytes(4, "big")
        if self.content_type is not None:
            packed += b"\x03" + _text(self.content_type)
        if self.response_topic is not None:
            packed += b"\x08" + _text(self.response_topic)
        if self.correlation_data is not None:
            packed += b"\x09" + _binary(self.correlation_data)
        for name, value in self.user:
            packed += b"\x26" + _text(name) + _text(value)
        return variable_length(len(packed)) + packed


def variable_length(n: int) -> bytes:
    """A Variable Byte Integer (MQTT 5, 1.5.5): seven bits a byte, the lowest first, and a bit that says there is more."""
    encoded = bytearray()
    while True:
        n, low = divmod(n, 128)
        encoded.append(low | (0x80 if n else 0))
        if not n:
            return bytes(encoded)


def _text(value: str) -> bytes:
    return _binary(value.encode())


def _binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"a property of {len(value)} bytes; 65,535 are the limit of MQTT")
    return len(value).to_bytes(2, "big") + value


def keep_session(seconds: int) -> PahoProperties:
    properties = PahoProperties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = seconds  # MQTT 5, 3.1.2.11.2: without it the session ends with the TCP
    return properties


class _Packed(PahoProperties):
    """Properties for paho that are encoded already: its own looked up each name, 100 µs a message with four of them."""

    def __init__(self, packed: bytes) -> None:
        object.__setattr__(self, "_packed", packed)

    def pack(self) -> bytes:
        packed: bytes = object.__getattribute__(self, "_packed")
        return packed


def to_paho(properties: Properties | None) -> PahoProperties | None:
    return None if properties is None else _Packed(properties.pack())


def packet_size(topic: str, data: bytes, properties: Properties | None) -> int:
    """Bytes of a PUBLISH at QoS 1 with MQTT 5 (3.3); one less with 3.1.1, which knows no properties."""
    size = 2 + len(topic.encode()) + 2 + len((properties or Properties()).pack()) + len(data)
    return 1 + len(variable_length(size)) + size


def from_paho(properties: PahoProperties) -> Properties | None:
    response_topic = getattr(properties, "ResponseTopic", None)
    correlation_data = getattr(properties, "CorrelationData", None)
    user = tuple(tuple(pair) for pair in getattr(properties, "UserProperty", ()))
    message_expiry = getattr(properties, "MessageExpiryInterval", None)
    content_type = getattr(properties, "ContentType", None)
    found = Properties(response_topic, correlation_data, user, message_expiry, content_type)
    return None if found == Properties() else found
