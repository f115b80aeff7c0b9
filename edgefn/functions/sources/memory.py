"""What a function must not be given twice, and how that is kept in the store: files by their identity, moments of cron.

Each occurrence brings an entry, which is stored with its invocation; and those need not be stored in the order in which they
came. So entries go into a volume of their own ("trigger <function> <number>"). A volume that is large is closed; once it is
certain that all of it was stored, it is taken into the collection ("trigger <function>") and dropped, in one commit. A part of
either has one form: [identities of files in one piece, {line: moment}].
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from edgefn.clock import NS, Clock
from edgefn.errors import PayloadError
from edgefn.events import pack, unpack
from edgefn.functions.sources.contract import Save, owner
from edgefn.store.records import CheckpointPart

log = logging.getLogger(__name__)

IDENTITY = 16  # bytes of a file's
PLACE = 4  # of these, how many are of its folder
MAX_FILES = 10_000
FEW = 256  # entries for which closing a volume does not pay
CERTAIN = 600 * NS  # after so long an invocation was stored, or nothing was


class Memory:
    """Of one function."""

    def __init__(self, function: str, clock: Clock, saved: Mapping[int, Collection[bytes]] | None = None) -> None:
        """`saved`: the parts of each volume; 0 is the collection."""
        self.files: dict[bytes, None] = {}  # the oldest first
        self.moments: dict[str, int] = {}
        self._function = function
        self._clock = clock
        for number, parts in sorted((saved or {}).items()):
            for part in parts:
                self._read(part, number)
        self._closed = sorted((saved or {}).keys() - {0})
        self._closed_at = clock.monotonic()
        self._certain = dict(self.moments)  # without what the open volume brought
        self._number = max(self._closed, default=0) + 1
        self._entries = 0  # of the open volume
        self._open: set[bytes] = set()

    def _read(self, part: bytes, number: int) -> None:
        try:
            files, moments = unpack(part)
            self.moments.update(moments)
        except (PayloadError, ValueError, TypeError) as error:
            log.error(
                "%s: what is stored of its triggers (%d) cannot be read, and may come again: %s",
                self._function,
                number,
                error,
            )
        else:
            self.files.update(dict.fromkeys(files[at : at + IDENTITY] for at in range(0, len(files), IDENTITY)))

    @property
    def is_full(self) -> bool:
        return len(self.files) >= MAX_FILES

    def had(self, identity: bytes) -> CheckpointPart:
        """The function has been given this file."""
        self.files[identity] = None
        self._open.add(identity)
        return self._entry(identity, {})

    def reached(self, line: str, moment: int) -> CheckpointPart:
        """A line of cron has come to this moment."""
        self.moments[line] = moment
        return self._entry(b"", {line: moment})

    def keep(self, place: bytes, there: Collection[bytes]) -> None:
        """Lets go of the files of one folder that are not there any more."""
        self._let_go([one for one in self.files if one[:PLACE] == place and one not in there])

    def keep_places(self, places: Collection[bytes]) -> None:
        """Lets go of the files of folders that the function does not watch any more."""
        self._let_go([one for one in self.files if one[:PLACE] not in places])

    def keep_lines(self, lines: Collection[str]) -> None:
        """Lets go of lines of cron that the function does not have any more."""
        self.moments = {line: moment for line, moment in self.moments.items() if line in lines}
        self._certain = {line: moment for line, moment in self._certain.items() if line in lines}

    def tidy(self) -> list[CheckpointPart]:
        """What takes closed volumes into the collection, for one commit; empty while that is not certain or not worth it."""
        now = self._clock.monotonic()
        parts = []
        if self._closed and now - self._closed_at >= CERTAIN:
            old = b"".join(one for one in self.files if one not in self._open)
            parts.append(CheckpointPart(owner(self._function), "snapshot", pack([old, self._certain])))
            parts += [CheckpointPart(self._owner(number), "drop") for number in self._closed]
            self._closed = []
        # As much as the collection has: a file is written twice or three times in all, however many there are.
        if not self._closed and self._entries >= max(FEW, len(self.files) - len(self._open)):
            self._closed, self._closed_at = [self._number], now
            self._number += 1
            self._certain = dict(self.moments)
            self._open, self._entries = set(), 0
        return parts

    def dropped(self) -> list[CheckpointPart]:
        numbers = [*self._closed, self._number]
        return [CheckpointPart(name, "drop") for name in (owner(self._function), *map(self._owner, numbers))]

    def _let_go(self, gone: Collection[bytes]) -> None:
        for one in gone:
            del self.files[one]
        self._open.difference_update(gone)

    def _entry(self, files: bytes, moments: dict[str, int]) -> CheckpointPart:
        self._entries += 1
        return CheckpointPart(self._owner(self._number), "delta", pack([files, moments]))

    def _owner(self, number: int) -> str:
        return f"{owner(self._function)} {number}"


class Memories:
    """Of all functions, also of those that are not active now: a paused one goes on where it was."""

    def __init__(self, clock: Clock, save: Save) -> None:
        self._clock = clock
        self._save = save
        self._of: dict[str, Memory] = {}

    def restore(self, saved: Mapping[str, Collection[bytes]]) -> None:
        volumes: dict[str, dict[int, Collection[bytes]]] = {}
        for name, parts in saved.items():
            if name.startswith(owner("")):
                function, _, number = name.removeprefix(owner("")).partition(" ")
                volumes.setdefault(function, {})[int(number or 0)] = parts
        self._of = {function: Memory(function, self._clock, those) for function, those in volumes.items()}

    def __getitem__(self, function: str) -> Memory:
        if function not in self._of:
            self._of[function] = Memory(function, self._clock)
        return self._of[function]

    def tidy(self) -> None:
        for memory in self._of.values():
            for part in memory.tidy():
                self._save(part)

    def forget(self, function: str) -> list[CheckpointPart]:
        memory = self[function]
        del self._of[function]
        return memory.dropped()
