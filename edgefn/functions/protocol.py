"""What the gateway, the template and the workers tell one another: length-prefixed msgpack structs over Unix sockets.

Gateway to template, each datagram with two descriptors (the worker's socket, and the pipe for what it prints): Fork.
Template to gateway: Forked, Gone.
Gateway to worker: Call, Leave. Worker to gateway: Ready or Broken, then Published and Outcome.

Workers import neither numba nor numpy, so this is msgspec's own msgpack and not `edgefn.events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from edgefn.timestamps import NS_MAX

MAX_FRAME = 8 << 20  # bytes of one message; a payload has 1 MB at most, and an invocation may forward a few

Result = Literal["done", "failed", "timeout", "memory", "unfit"]


class Fork(msgspec.Struct, tag="fork", frozen=True):
    """Start a worker for a handler file. `memory`: bytes it may have on top of what it begins with."""

    number: int
    gateway: str
    file: str  # what messages call it
    source: str  # where its text is
    is_async: bool
    memory: int
    secrets: str


class Forked(msgspec.Struct, tag="forked", frozen=True):
    number: int
    pid: int


class Gone(msgspec.Struct, tag="gone", frozen=True):
    number: int
    status: int  # as os.waitstatus_to_exitcode says it: minus the number of a signal


class Call(msgspec.Struct, tag="call", frozen=True):
    """Run a function once. Times: `ts` in ns since the epoch, `deadline` of the monotonic clock."""

    id: str
    function: str  # what the file calls it
    name: str
    takes: int
    topic: str
    key: str
    captures: dict[str, str]
    payload: bytes
    ts: int
    attempt: int
    retained: bool
    deadline: int
    state: dict[str, bytes] | None  # None: as this worker has seen it last


class Leave(msgspec.Struct, tag="leave", frozen=True):
    """End when nothing runs any more."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    seconds: float  # what importing the file took


class Broken(msgspec.Struct, tag="broken", frozen=True):
    """The file cannot be imported here."""

    error: str
    traceback: str


class Published(msgspec.Struct, tag="published", frozen=True):
    """For local MQTT, at once."""

    id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Forward(msgspec.Struct, frozen=True, array_like=True):
    """A row for the cloud. `values`: JSON; `key` and `ts` None: those of the event."""

    values: bytes
    key: str | None
    ts: Annotated[int, msgspec.Meta(ge=0, le=NS_MAX)] | None  # the store refuses a larger one, and the commit with it


class Invoke(msgspec.Struct, frozen=True, array_like=True):
    """Another handler to be invoked, by name; `payload`: JSON."""

    name: str
    payload: bytes


class Outcome(msgspec.Struct, tag="outcome", frozen=True):
    """How a call ended, and its effects, which count only where it was done. Times in ns, memory in bytes."""

    id: str
    result: Result
    error: str = ""
    traceback: str = ""
    value: bytes | None = None  # what the function returned, as JSON
    ts: int | None = None  # the event's own time, where it has one
    forwards: list[Forward] = []
    invokes: list[Invoke] = []
    state: dict[str, bytes | None] = {}  # what changed; None: deleted
    wall: int = 0
    cpu: int = 0
    memory: int = 0  # that the worker has got since it began
    peak: int = 0


ToTemplate = Fork
FromTemplate = Forked | Gone
ToWorker = Call | Leave
FromWorker = Ready | Broken | Published | Outcome

encode = msgspec.msgpack.Encoder().encode
from_template = msgspec.msgpack.Decoder(FromTemplate).decode
to_template = msgspec.msgpack.Decoder(ToTemplate).decode
to_worker = msgspec.msgpack.Decoder(ToWorker).decode
_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


class FrameError(ValueError):
    """What came over a connection is none of the messages above."""


def from_worker(body: bytes) -> FromWorker:
    """Raises FrameError: a handler can write anything to the connection of its worker."""
    try:
        message: FromWorker = _from_worker(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error
    return message


def frame(message: msgspec.Struct) -> bytes:
    """Raises FrameError for one that is too large."""
    body = encode(message)
    if len(body) > MAX_FRAME:
        raise FrameError(f"{len(body)} bytes; {MAX_FRAME} are allowed")
    return len(body).to_bytes(4, "little") + body


class Frames:
    """Puts the bodies of messages together from whatever pieces they come in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises FrameError for a length that no message has."""
        self._buffer += data
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "little")
            if length > MAX_FRAME:
                raise FrameError(f"a message of {length} bytes")
            if len(self._buffer) < 4 + length:
                return
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            yield body
