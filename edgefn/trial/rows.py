"""What handlers put out in a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefn.functions.event import Event


@dataclass(frozen=True, slots=True)
class Row:
    """One row that a handler put out."""

    handler: str
    key: str
    ts: int  # ns since the epoch: the window's end, or the event's time
    values: Any  # of a compiled handler a dict of numbers; of a Python handler what it returned


@dataclass(frozen=True, slots=True)
class Published:
    """A message that a Python handler published."""

    handler: str
    ts: int
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False

    @property
    def data(self) -> Any:
        """The payload as its receiver reads it: JSON decoded, else text, else bytes."""
        return Event(self.topic, self.payload).data


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A row that a Python handler sent to the cloud."""

    handler: str
    key: str
    ts: int
    values: Any

    @property
    def stream(self) -> str:
        return f"summary/{self.handler}"


@dataclass(frozen=True, slots=True)
class Failed:
    """An invocation that had no effect, and why."""

    handler: str
    key: str
    ts: int
    result: str  # "failed", "timeout", "memory" or "unfit"
    error: str
    traceback: str


Told = Row | Published | Forwarded | Failed
