"""What a message is, and when to try again: the plain values that pass between `Bus` and those who use it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edgefn.bus.properties import Properties
from edgefn.errors import EdgefnError


class PublishRefusedError(EdgefnError, ValueError):
    """The broker answered a QoS 1 message with a reason code (MQTT 5, 3.4.2.1) that says no; the connection is fine."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


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
