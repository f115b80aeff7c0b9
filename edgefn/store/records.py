"""What goes into the store and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from edgefn.policies import USUAL, StreamPolicy

LOW, NORMAL, HIGH = 0, 1, 2
ITEM, INVOCATION = "item", "invocation"  # kinds of dead letters
CALL = "call "  # the owner of an invocation that waits is "call " and its id


@dataclass(frozen=True, slots=True)
class NewItem:
    """Something that must reach the cloud. Times are nanoseconds, `ts` since the epoch.

    Items of one stream arrive in the order of their commits, so a stream has one priority at a time: a new one takes
    effect once the stream has nothing left in the store. `uplinks` names those that must have the item; None: all.
    """

    stream: str  # `<kind>/<handler>` or longer, without wildcards
    payload: bytes
    ts: int
    priority: int = NORMAL
    ttl: int | None = None  # from the commit on
    uplinks: frozenset[str] | None = None
    own_clock: bool = True  # `ts` is of the gateway's clock, not of a device's: it moves when that clock is put right
    summary: bytes | None = None  # what merging this row with its neighbours takes
    policy: StreamPolicy = USUAL


@dataclass(frozen=True, slots=True)
class Item:
    """A stored item. `id` is a handle that is good while this store is open; `key` names the item for ever."""

    id: int
    stream: str
    seq: int  # 1, 2, 3 … in its stream and epoch
    ts: int
    priority: int
    payload: bytes
    key: str  # <gateway>/<epoch>/<stream>/<seq>
    made: int = 0  # monotonic time of its commit, in the boot that made it
    unsynced: bool = False  # the gateway's clock was not known to be right then, and has not been put right since
    expires: int | None = None  # when it is of no use any more, ns since the epoch

    @property
    def gateway(self) -> str:
        return self.key.split("/", 1)[0]

    @property
    def epoch(self) -> str:
        return self.key.split("/", 2)[1]


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """State of one owner (a handler): a snapshot replaces what came before, a delta follows it, a drop ends it."""

    owner: str
    kind: Literal["snapshot", "delta", "drop"]
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Letter:
    """An invocation that a handler will never do: it becomes a dead letter. `payload` is JSON with its `id`."""

    handler: str
    at: int  # ns
    ts: int  # of the event, ns
    attempts: int
    reason: str
    detail: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """What becomes durable together or not at all."""

    items: Sequence[NewItem] = ()
    checkpoint: Sequence[CheckpointPart] = ()
    letters: Sequence[Letter] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """How many items of a stream were given up, and why. `uplink` is empty where no uplink will get them."""

    epoch: str
    stream: str
    uplink: str
    reason: str
    n: int


class Refused(NamedTuple):
    """Why the far side will never take an item: a short name, and its own words where it had any."""

    reason: str
    detail: str = ""


class Spent(NamedTuple):
    """What an uplink has sent on a day (UTC, counted from the epoch), in bytes."""

    day: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What an uplink refused for good, or a handler could not do, kept until somebody requeues or purges it."""

    id: int
    kind: str  # ITEM or INVOCATION
    key: str  # empty for an invocation
    stream: str  # empty for an invocation
    uplink: str  # who refused it: the uplink, or the handler
    at: int  # when it was refused, ns
    reason: str
    detail: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class StreamStats:
    """What the store holds of one stream, and what was given up of it so far, by reason."""

    name: str
    epoch: str
    rows: int
    bytes: int
    priority: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """What waits for one uplink: rows, bytes of payload, and the age of the oldest in seconds (None: nothing waits)."""

    rows: int
    bytes: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class OpenReport:
    """What was found when the store was opened."""

    fresh: bool = False  # a new file with a new epoch
    clean: bool = True  # it was closed properly the last time
    set_aside: Path | None = None  # where the damaged file of before is now
    salvaged: int = 0  # items that were taken over from it
    damaged: int = 0  # items of it that cannot be read; counted as dropped
    lost: int = 0  # items that were stored once and are neither there nor accounted for
    torn: bool = False  # the end of the write-ahead log is unreadable; a new epoch has begun
