"""What a function must not be given twice, and how that is kept in the store: files by their identity, moments of cron.

All parts have one form, so a snapshot is only a part that begins anew: [identities of files in one piece, {line: moment}].
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping

from edgefn.errors import PayloadError
from edgefn.events import pack, unpack
from edgefn.functions.sources.contract import owner
from edgefn.store.records import CheckpointPart

log = logging.getLogger(__name__)

IDENTITY = 16  # bytes of a file's
PLACE = 4  # of these, how many are of its folder
MAX_FILES = 10_000
FEW = 256  # deltas for which a snapshot does not pay


class Memory:
    """Of one function."""

    def __init__(self, function: str, parts: Collection[bytes] = ()) -> None:
        self._owner = owner(function)
        self.files: dict[bytes, None] = {}  # the oldest first
        self.moments: dict[str, int] = {}
        self._deltas = len(parts) or FEW  # since the snapshot; without one, the next part is one
        for n, part in enumerate(parts, 1):
            try:
                files, moments = unpack(part)
                self.moments.update(moments)
            except (PayloadError, ValueError, TypeError) as error:
                log.error(
                    "%s: part %d of what is stored cannot be read, files may be handed over again: %s",
                    function,
                    n,
                    error,
                )
                continue
            self.files.update(dict.fromkeys(files[at : at + IDENTITY] for at in range(0, len(files), IDENTITY)))

    @property
    def is_full(self) -> bool:
        return len(self.files) >= MAX_FILES

    def had(self, identity: bytes) -> CheckpointPart:
        """The function has been given this file."""
        self.files[identity] = None
        return self._part(identity, {})

    def reached(self, line: str, moment: int) -> CheckpointPart:
        """A line of cron has come to this moment."""
        self.moments[line] = moment
        return self._part(b"", {line: moment})

    def keep_lines(self, lines: Collection[str]) -> None:
        """Lets go of lines of cron that the function does not have any more, with the next snapshot."""
        self.moments = {line: moment for line, moment in self.moments.items() if line in lines}

    def keep(self, place: bytes, there: Collection[bytes]) -> None:
        """Lets go of the files of one folder that are not there any more."""
        gone = [one for one in self.files if one[:PLACE] == place and one not in there]
        self._let_go(gone)

    def keep_places(self, places: Collection[bytes]) -> None:
        """Lets go of the files of folders that the function does not watch any more."""
        self._let_go([one for one in self.files if one[:PLACE] not in places])

    def _let_go(self, gone: Collection[bytes]) -> None:
        for one in gone:
            del self.files[one]
        if gone:
            self._deltas += MAX_FILES  # deltas cannot say it

    def _part(self, files: bytes, moments: dict[str, int]) -> CheckpointPart:
        # A snapshot when as much has come as there was: a file costs no more than two entries, however many there are.
        if self._deltas >= max(FEW, len(self.files)):
            self._deltas = 0
            return CheckpointPart(self._owner, "snapshot", pack([b"".join(self.files), self.moments]))
        self._deltas += 1
        return CheckpointPart(self._owner, "delta", pack([files, moments]))


class Memories:
    """Of all functions, also of those that are not active now: a paused one goes on where it was."""

    def __init__(self) -> None:
        self._of: dict[str, Memory] = {}

    def restore(self, saved: Mapping[str, Collection[bytes]]) -> None:
        prefix = owner("")
        for name, parts in saved.items():
            if name.startswith(prefix):
                function = name.removeprefix(prefix)
                self._of[function] = Memory(function, parts)

    def __getitem__(self, function: str) -> Memory:
        if function not in self._of:
            self._of[function] = Memory(function)
        return self._of[function]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def forget(self, function: str) -> CheckpointPart:
        self._of.pop(function, None)
        return CheckpointPart(owner(function), "drop")
