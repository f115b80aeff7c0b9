"""Which rows the far side may have: those were handed to an uplink and must stay as they are, or they would count twice.

In memory the rows that were read and not acknowledged are known one by one. For the next start there is one number on the
disk, up to which rows may have been handed out. It is moved AHEAD of what is, so that it costs a transaction in ten
thousand rows only; after a power cut the rows up to it are never merged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

AHEAD = 10_000  # rows
MAX_IN_HAND = 1 << 16  # of one uplink; past it, all up to the newest of them count as handed out


@dataclass(slots=True)
class Hands:
    frozen: int = 0  # rows up to this id may have been handed out by an earlier process
    marked: int = 0  # what the disk says
    _taken: dict[str, set[int]] = field(default_factory=dict)  # uplink → ids

    def open(self, db: sqlite3.Connection, position: int, *, trusted: bool) -> None:
        """Takes up what an earlier process left. `position`: above all rows; not `trusted`: the number may be too low."""
        row = db.execute("SELECT value FROM meta WHERE name = 'handed'").fetchone()
        before = int(row[0]) if row else 0
        self.frozen = min(before, position) if trusted else position
        if self.frozen != before:  # ids begin anew in an empty store, and an old number would hold new rows
            with (
                suppress(sqlite3.OperationalError) if trusted else nullcontext()
            ):  # a full disk: no row is merged too many
                self.write(db, self.frozen)
        self.marked = self.frozen

    def close(self, db: sqlite3.Connection) -> None:
        """What is known one by one now becomes the number."""
        self.write(db, max(self.frozen, *(max(ids, default=0) for ids in self._taken.values()), 0))

    def write(self, db: sqlite3.Connection, handed: int) -> None:
        db.execute("REPLACE INTO meta VALUES ('handed', ?)", (str(handed),))

    def take(self, uplink: str, ids: Iterable[int]) -> None:
        taken = self._taken.setdefault(uplink, set())
        taken.update(ids)
        if len(taken) > MAX_IN_HAND:
            self.frozen = max(self.frozen, max(taken))
            taken.clear()

    def release(self, uplink: str, ids: Iterable[int]) -> None:
        """They are acknowledged, and that is on the disk."""
        self._taken.get(uplink, set()).difference_update(ids)

    def hold(self, id_: int) -> bool:
        return id_ <= self.frozen or any(id_ in taken for taken in self._taken.values())
