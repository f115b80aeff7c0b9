"""What a source of occurrences is: it fires, and says when it wants to look again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgefn.manifest import FunctionManifest
from edgefn.store.records import CheckpointPart
from edgefn.triggers import Trigger

Kind = TypeVar("Kind", bound=Trigger)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something for which a function is invoked once."""

    topic: str  # the handler's event.topic: "every/5m", "cron/0 6 * * *", "file//data/a.csv", "system/disk-low"
    key: str  # event.key: the file's name for files, "" otherwise
    payload: bytes  # JSON: {"path": "/data/a.csv", "size": 123, "mtime": iso}, {"scheduled": iso}, {"free": bytes}
    ts: int  # ns of gateway time
    identity: bytes  # tells it from any other of this function, over restarts where it can come again
    parts: tuple[CheckpointPart, ...] = ()  # to be stored in the same commit as the invocation


Fire = Callable[[str, Occurrence], None]  # the function's name; in the event loop, must not block
HasRoom = Callable[[str], bool]  # whether that function's queue takes one more; asked before each file
Save = Callable[[CheckpointPart], None]  # a part without an invocation; those of one moment go into one commit


class Source(Protocol):
    """One kind of trigger. All calls come from the event loop."""

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        """These are active now. What they had before goes on as it was."""

    def step(self) -> int | None:
        """Fires what is due. Returns the monotonic time (ns) of the next look; None: there is nothing to wait for."""


def owner(function: str) -> str:
    """Under which the store keeps what the sources must remember of a function."""
    return f"trigger {function}"


def wanted(functions: Sequence[FunctionManifest], kind: type[Kind]) -> list[tuple[str, Kind]]:
    """The triggers of one kind, each with its function's name."""
    return [(one.name, trigger) for one in functions for trigger in one.triggers if isinstance(trigger, kind)]
