"""Neighbouring summaries of one key become one row of a coarser window, so that detail goes and history stays.

A stream is gone through from its oldest row to its newest, merging what lies in one cell of a grid of windows: cells of two
windows the first time. The next time they are as large as it takes to find neighbours again, so that in the end the whole
stream is equally coarse. Each search ends when enough is freed and goes on from there. A merged row keeps the id, number
and end of its newest part; the others leave and are counted (`thinned`).

Rows that the far side may have stay as they are. All functions run in SQLite's thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from edgefn.errors import PayloadError
from edgefn.mergeable import Mergeable
from edgefn.store import outbox
from edgefn.store.ledger import Ledger, Stream
from edgefn.store.rows import COLUMNS, checksum, intact

CHUNK = 256
LOADED = 8  # a row that is read whole costs as much as looking at so many: 60 µs on a desktop
MAX_OPEN = 1 << 14  # keys whose last row is remembered: 200 bytes each


@dataclass(slots=True)
class Pass:
    """One way through a stream."""

    level: int = 1  # cells are 2^level windows
    at: int = 0  # id of the last row that was looked at
    next: int | None = None  # the level at which two rows that lie side by side share a cell
    open: dict[tuple[object, ...], tuple[int, int]] = field(
        default_factory=dict
    )  # id and first window of the row before


def thin(db: sqlite3.Connection, ledger: Ledger, stream: Stream, need: int, limit: int) -> tuple[int, bool]:
    """Frees `need` bytes, looking at `limit` rows at the most. Returns what was freed, and whether going on is worth it.

    A row of the stream counts for LOADED.
    """
    way = ledger.passes.setdefault(stream.id, Pass())
    freed = looked_at = 0
    while freed < need:
        if looked_at >= limit:
            return freed, True
        rows = db.execute(
            "SELECT id, stream = :stream, pending, CASE WHEN stream = :stream THEN summary END "
            f"FROM item_{stream.priority} WHERE id > :at ORDER BY id LIMIT {CHUNK}",
            {"stream": stream.id, "at": way.at},
        ).fetchall()
        if not rows:
            if way.next is None:
                return freed, False
            ledger.passes[stream.id] = way = Pass(level=way.next)
            looked_at += 1
        for id_, own, pending, summary in rows:
            if freed >= need or looked_at >= limit:
                break
            looked_at += 1
            way.at = id_
            if own and summary is not None and not ledger.hands.hold(id_):
                looked_at += LOADED - 1
                freed += _meet(db, ledger, stream, way, id_, pending)
    return freed, True


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    columns: tuple[Any, ...]
    mergeable: Mergeable
    group: tuple[object, ...]

    @property
    def size(self) -> int:
        return len(self.columns[-2]) + len(self.columns[-1])

    def precedes(self, later: _Row) -> bool:
        """Not so where the clock was set back between the two."""
        return self.group == later.group and self.mergeable.end <= later.mergeable.start

    @property
    def windows(self) -> tuple[int, int]:
        """The numbers of its first and its last window."""
        one = self.mergeable
        return one.start // one.size, (one.end - 1) // one.size


def _meet(db: sqlite3.Connection, ledger: Ledger, stream: Stream, way: Pass, id_: int, pending: int) -> int:
    """Merges a row with the one of its key before it where the two share a cell. Returns what that freed."""
    later = _load(db, stream, id_, pending)
    if later is None:
        return 0
    before = way.open.get(later.group)
    first, last = later.windows
    freed = 0
    if before is not None:
        earlier_id, earlier_first = before
        level = (earlier_first ^ last).bit_length()
        if level > way.level:
            way.next = level if way.next is None else min(way.next, level)
        elif not ledger.hands.hold(earlier_id):
            earlier = _load(db, stream, earlier_id, pending)
            if earlier is not None and earlier.precedes(later):
                freed = _merge(db, ledger, stream, earlier, later, pending)
                first = earlier.windows[0]
    elif len(way.open) >= MAX_OPEN:
        way.open.clear()
    way.open[later.group] = id_, first
    return freed


def _load(db: sqlite3.Connection, stream: Stream, id_: int, pending: int) -> _Row | None:
    """The row, if it is still there, wanted by the same uplinks, and in order."""
    columns = db.execute(
        f"SELECT {COLUMNS} FROM item_{stream.priority} WHERE id = ? AND pending = ?", (id_, pending)
    ).fetchone()
    if columns is None or not intact(columns):
        return None
    _, _, _, ts, _, era, own, _, _, payload, summary = columns
    try:
        mergeable = Mergeable.of(payload, summary, ts)
    except PayloadError:
        return None  # of a version that packed otherwise: it stays as it is
    return _Row(id_, columns, mergeable, (pending, era, own, *mergeable.shape))


def _merge(db: sqlite3.Connection, ledger: Ledger, stream: Stream, earlier: _Row, later: _Row, pending: int) -> int:
    merged = earlier.mergeable | later.mergeable
    payload, summary = merged.body(), merged.packed()
    _, stream_id, seq, ts, expires, era, own, made, _, _, _ = later.columns
    crc = checksum(stream_id, seq, ts, expires, payload, era=era, own=own, made=made, summary=summary)
    db.execute(f"DELETE FROM item_{stream.priority} WHERE id = ?", (earlier.id,))
    if ledger.census is not None:
        ledger.census.gone(earlier.id, stream.id)
    db.execute(
        f"UPDATE item_{stream.priority} SET crc = ?, payload = ?, summary = ? WHERE id = ?",
        (crc, payload, summary, later.id),
    )
    freed = earlier.size + later.size - len(payload) - len(summary)
    outbox.book(ledger, pending, -1, -freed)
    stream.gone += 1
    stream.bytes -= freed
    ledger.bytes -= freed
    ledger.touched.add(stream)
    ledger.changed = True
    ledger.dropped[stream.id, "", "thinned"] += 1
    return freed
