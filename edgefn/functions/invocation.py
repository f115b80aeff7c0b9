"""One invocation of a Python handler, and how it is written down: as a row of the store, and as a dead letter."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgefn.errors import PayloadError
from edgefn.events import from_json, to_json
from edgefn.store import CALL, CheckpointPart

FUNCTION, TRIGGER = "function ", "trigger "  # of a handler's state, and of what its triggers have to remember
OWNERS = (CALL, FUNCTION, TRIGGER)


class _Stored(msgspec.Struct, array_like=True):
    function: str
    topic: str
    key: str
    captures: dict[str, str]
    payload: bytes
    ts: int
    attempt: int
    retained: bool


@dataclass(slots=True, eq=False)
class Cover:
    """Whose commit an event waits for. What an invocation starts shares that of the invocation."""

    engine: int = 0  # the engine whose next commit covers it; 0: none has to
    committed: bool = False

    @property
    def is_due(self) -> bool:
        """Whether effects may be stored: not before the commit that covers the event, or it could come a second time."""
        return not self.engine or self.committed


@dataclass(slots=True, eq=False)
class End:
    """Whether a commit holds the end of an invocation, or is about to. Apart from it, so that nobody keeps those before it."""

    taken: bool = False


@dataclass(slots=True, eq=False)
class Invocation:
    """An event on its way through one handler. `id` stays the same however often it is tried or delivered."""

    id: str
    function: str
    topic: str
    payload: bytes
    key: str = ""
    captures: dict[str, str] = field(default_factory=dict)
    ts: int = 0  # ns since the epoch: when it came, and once it is done, its own time where it has one
    own_clock: bool = True  # `ts` is gateway time
    durable: bool = False
    retained: bool = False
    attempt: int = 1
    bystander: int = 0  # times that its worker was killed for another's sake
    arrived: int = 0  # monotonic ns
    parts: tuple[CheckpointPart, ...] = ()  # what is stored with it
    cover: Cover = field(default_factory=Cover)
    stored: bool = False  # there is a row of it
    published: Counter[bytes] = field(default_factory=Counter)  # by all attempts so far
    end: End = field(default_factory=End)
    begun_by: End | None = None  # of the invocation that has started this one

    @property
    def is_storable(self) -> bool:
        """Whether a commit may hold anything of it.

        What another one has started waits for that one's end: if it was done and stored first, a crash would run the other
        again, and nobody would know that what it starts was there before.
        """
        return not self.durable or (self.cover.is_due and (self.begun_by is None or self.begun_by.taken))

    def child(self, id: str, function: str, topic: str, payload: bytes) -> Invocation:
        """One that this one starts: durable where this one is, and of the same event."""
        return Invocation(
            id, function, topic, payload, self.key, self.captures, self.ts,
            durable=self.durable, cover=self.cover, begun_by=self.end,
        )  # fmt: skip

    @property
    def owner(self) -> str:
        return CALL + self.id

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.topic) + 500

    def row(self) -> bytes:
        return msgspec.msgpack.encode(
            _Stored(
                self.function, self.topic, self.key, self.captures, self.payload, self.ts, self.attempt, self.retained
            )
        )

    def letter(self) -> bytes:
        """For people: JSON, with the payload as text where it is one."""
        try:
            payload: Any = self.payload.decode()
        except UnicodeDecodeError:
            payload = {"base64": base64.b64encode(self.payload).decode()}
        return to_json(
            {
                "id": self.id,
                "function": self.function,
                "topic": self.topic,
                "key": self.key,
                "captures": self.captures,
                "ts": self.ts,
                "retained": self.retained,
                "attempts": self.attempt,
                "payload": payload,
            }
        )


def from_row(id: str, data: bytes) -> Invocation:
    """Raises PayloadError for what neither `Invocation.row` nor `Invocation.letter` wrote."""
    try:
        row = _of_letter(data) if data[:1] == b"{" else msgspec.msgpack.decode(data, type=_Stored)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise PayloadError("bad_invocation", f"{type(error).__name__}: {error}") from error
    return Invocation(
        id, row.function, row.topic, row.payload, row.key, row.captures, row.ts,
        durable=True, retained=row.retained, attempt=row.attempt, stored=True,
    )  # fmt: skip


def _of_letter(data: bytes) -> _Stored:
    """A dead letter that was put back: its attempts begin anew."""
    letter = from_json(data)
    payload = letter["payload"]
    content = base64.b64decode(payload["base64"]) if isinstance(payload, dict) else payload.encode()
    return msgspec.convert(
        [
            letter["function"],
            letter["topic"],
            letter["key"],
            letter["captures"],
            content,
            letter["ts"],
            1,
            letter["retained"],
        ],
        _Stored,
    )


def new_id() -> str:
    return os.urandom(12).hex()


def id_of(function: str, *parts: bytes | str | int) -> str:
    """The same for the same event, whenever and however often it comes."""
    digest = hashlib.blake2b(function.encode(), digest_size=12)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(4, "little") + data)
    return digest.hexdigest()
