"""What a message is, and when to try again: the plain values that pass between `Bus` and those who use it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edgefn.errors import EdgefnError


class PublishRefusedError(EdgefnError, ValueError):
    """The broker answered a QoS 1 message with a reason code (MQTT 5, 3.4.2.1) that says no; the connection is fine."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


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


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter, in seconds: a fleet that lost one broker does not return as one."""

    base: float = 0.5
    cap: float = 30.0

    def delay(self, attempt: int) -> float:
        """Between 0 and min(cap, base * 2**attempt); the first attempt is number 0."""
        return random.uniform(0, min(self.cap, self.base * 2.0 ** min(attempt, 60)))
