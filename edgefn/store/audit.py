"""Whether the rows of the outbox are those that were counted: of each stream, given out = stored + gone.

SQLite keeps rows and counts together through every crash, as long as the disk keeps what it has confirmed. Where one did
not, rows are missing or numbers that were given out are forgotten. After an unclean end the newest rows are looked at
before anything is stored, and all others in steps while items flow, so that a start takes no longer with a long backlog.

All functions run in SQLite's thread.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgefn.store.ledger import Ledger
from edgefn.store.outbox import book
from edgefn.store.rows import SIZE

STEP = 4096  # rows that one step looks at: 10 ms, and so long a commit waits for it at most
AT_ONCE = 4 * STEP  # so many rows are counted at the start


@dataclass(frozen=True, slots=True)
class Audit:
    lost: int  # items that are neither there nor accounted for
    trusted: bool  # False: a row has a sequence number that was never given out


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one stream that wait for the same uplinks, of those that one query has read."""

    stream: int
    pending: int
    rows: int
    bytes: int
    newest: int  # the largest sequence number
    last: int  # the largest id


def recount(db: sqlite3.Connection, ledger: Ledger) -> Audit:
    """Counts everything again, in a transaction, and puts the ledger right. What is missing is counted as lost.

    Reads all rows, so it also finds a damaged table (sqlite3.DatabaseError).
    """
    present = Counter[int]()
    trusted = True
    ledger.changed = True
    ledger.bytes = 0
    for uplink in ledger.uplinks:
        uplink.rows = uplink.bytes = 0
    for stream in ledger.by_id.values():
        stream.bytes = 0
    ledger.touched.update(ledger.by_id.values())
    for piece in _all(db):
        present[piece.stream] += piece.rows
        book(ledger, piece.pending, piece.rows, piece.bytes)
        ledger.bytes += piece.bytes
        known = ledger.by_id.get(piece.stream)
        if known is not None:
            trusted &= piece.newest < known.next_seq
            known.bytes += piece.bytes
    lost = 0
    for stream in ledger.by_id.values():
        missing = stream.stored - present[stream.id]
        stream.gone += missing
        if missing > 0:
            ledger.dropped[stream.id, "", "lost"] += missing
            lost += missing
    return Audit(lost, trusted)


def knows_newest(db: sqlite3.Connection, ledger: Ledger) -> bool:
    """Whether the numbers of the newest rows are among those given out: what a disk forgets, it forgets from the end."""
    return all(
        piece.stream not in ledger.by_id or piece.newest < ledger.by_id[piece.stream].next_seq
        for priority in range(3)
        for piece in _read(db, f"SELECT * FROM item_{priority} ORDER BY id DESC LIMIT {STEP}")
    )


@dataclass(slots=True)
class Census:
    """A count of the rows that were there when it began, which goes on while rows come and go.

    A row that leaves before its turn is told by `gone`. Where the counts differ in the end, `recount` says what is so.
    """

    expected: Counter[int] = field(default_factory=Counter)  # by stream
    _seen: Counter[int] = field(default_factory=Counter)
    _top: int = 0
    _at: tuple[int, int] = (0, 0)  # priority, and the id up to which its rows are counted
    _numbers_fit: bool = True

    def begin(self, ledger: Ledger) -> None:
        """Begins, or begins again: what a transaction that was rolled back has told is not so."""
        self.expected = Counter({stream.id: stream.stored for stream in ledger.by_id.values() if stream.stored})
        self._seen.clear()
        self._top = ledger.next_item << 2
        self._at = (0, 0)
        self._numbers_fit = True

    def gone(self, id_: int, stream: int) -> None:
        """The row leaves the table."""
        if id_ < self._top and (id_ & 3, id_) > self._at:
            self._seen[stream] += 1

    def step(self, db: sqlite3.Connection, ledger: Ledger) -> bool:
        """Looks at some more rows; True when there are none left."""
        priority, after = self._at
        last = 0
        for piece in _after(db, priority, after, self._top):
            self._seen[piece.stream] += piece.rows
            known = ledger.by_id.get(piece.stream)
            self._numbers_fit &= known is None or piece.newest < known.next_seq
            last = max(last, piece.last)
        self._at = (priority, last) if last else (priority + 1, 0)
        return self._at[0] > 2

    @property
    def adds_up(self) -> bool:
        known = Counter({stream: n for stream, n in self._seen.items() if stream in self.expected})
        return self._numbers_fit and known == self.expected


def _all(db: sqlite3.Connection) -> Iterator[_Piece]:
    """In pieces: one query that groups all rows takes memory for each of them."""
    for priority in range(3):
        after = 0
        while pieces := _after(db, priority, after, 1 << 62):
            after = max(piece.last for piece in pieces)
            yield from pieces


def _after(db: sqlite3.Connection, priority: int, after: int, before: int) -> list[_Piece]:
    return _read(db, f"SELECT * FROM item_{priority} WHERE id > {after} AND id < {before} ORDER BY id LIMIT {STEP}")


def _read(db: sqlite3.Connection, rows: str) -> list[_Piece]:
    return [
        _Piece(*row)
        for row in db.execute(
            f"SELECT CAST(stream AS INTEGER), CAST(coalesce(pending, 0) AS INTEGER), count(*), coalesce(sum({SIZE}), 0), "
            f"max(CAST(seq AS INTEGER)), max(id) FROM ({rows}) GROUP BY 1, 2"
        )
    ]
