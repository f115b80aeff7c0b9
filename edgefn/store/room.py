"""What leaves the outbox when it is full: the stream that adds pays, in the way that its policy says.

`drop-lowest-priority` gives up the oldest rows of the lowest priority in the store, up to the priority of the stream that
adds: rows of a higher one are safe from it, and so the new row itself is the last to go. `drop-oldest` gives up the
stream's own oldest rows, `thin` merges them, `reject` does not take the new ones. Over a quota of its own, a stream can
only pay with rows of its own. What a policy has no answer for is rejected.

No index leads to the rows of one stream, since it would cost 28 % more bytes. They are looked for from where the last
search has ended, SEARCH_ROWS a transaction. Until they are found the bound may be exceeded by a sixteenth: a search must
neither delay a commit nor cost a row.

All functions run in SQLite's thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgefn.store import outbox, thinning
from edgefn.store.ledger import EVERY_UPLINK, Ledger
from edgefn.store.outbox import Adding
from edgefn.store.rows import SIZE

SEARCH_ROWS = 4096
TOLERANCE = 16  # a part of that size is the most that a bound is exceeded by
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Debt:
    """What has to go, in bytes: in the store, or in the stream itself where `own`."""

    bytes: int
    own: bool
    now: int


@dataclass(frozen=True, slots=True)
class Paid:
    bytes: int
    searching: bool = False  # there may be more: the search goes on with the next commit


def make_room(db: sqlite3.Connection, ledger: Ledger, added: Iterable[Adding], max_bytes: int, now: int) -> None:
    """Brings the streams that were added to under their quotas, and the store under `max_bytes`."""
    by_priority = sorted(added, key=lambda adding: adding.stream.priority)
    for adding in by_priority:
        if (quota := adding.policy.quota) is not None and adding.stream.bytes > quota:
            _pay(db, ledger, adding, Debt(adding.stream.bytes - quota, True, now), quota)
    for adding in by_priority * 2:  # twice what it adds at the most: what searches have left comes down again
        if (excess := ledger.bytes - max_bytes) > 0:
            _pay(db, ledger, adding, Debt(min(excess, adding.bytes), False, now), max_bytes)
    if (excess := ledger.bytes - max_bytes * (TOLERANCE + 1) // TOLERANCE) > 0:  # the bound was lowered
        _drop_lowest(db, ledger, 2, Debt(excess, False, now))


def _pay(db: sqlite3.Connection, ledger: Ledger, adding: Adding, debt: Debt, bound: int) -> None:
    held = adding.stream.bytes if debt.own else ledger.bytes
    tolerable = bound // TOLERANCE
    for word in (*adding.policy.on_full, "reject"):
        paid = _PAY[word](db, ledger, adding, debt)
        debt = Debt(debt.bytes - paid.bytes, debt.own, debt.now)
        held -= paid.bytes
        if debt.bytes <= 0 or (paid.searching and held - bound <= tolerable):
            return


def _reject(db: sqlite3.Connection, ledger: Ledger, adding: Adding, debt: Debt) -> Paid:
    priority = adding.stream.priority
    rows = db.execute(
        f"SELECT id, stream, pending, {SIZE} FROM item_{priority} WHERE id >= ? AND stream = ? ORDER BY id DESC",
        (adding.first, adding.stream.id),
    )
    victims, freed = [], 0
    for row in rows:
        if freed >= debt.bytes:
            break
        victims.append(row)
        freed += row[3]
    outbox.settle(db, ledger, priority, victims, EVERY_UPLINK, "rejected")
    adding.bytes -= freed
    return Paid(freed)


def _drop_oldest(db: sqlite3.Connection, ledger: Ledger, adding: Adding, debt: Debt) -> Paid:
    stream = adding.stream
    freed, looked_at = 0, 0
    while freed < debt.bytes and stream.stored:
        if looked_at >= SEARCH_ROWS:
            return Paid(freed, searching=True)
        rows = _oldest(db, stream.priority, ledger.oldest.get(stream.id, 0))
        if not rows:
            # Requeued under another priority, or lost: there is nothing left to find here.
            return Paid(freed)
        looked_at += len(rows)
        victims = []
        for row in rows:
            if row[1] == stream.id:
                if freed >= debt.bytes:
                    break
                victims.append(row)
                freed += row[3]
            ledger.oldest[stream.id] = row[0]
        _give_up(db, ledger, stream.priority, victims, debt.now)
    return Paid(freed)


def _drop_lowest_priority(db: sqlite3.Connection, ledger: Ledger, adding: Adding, debt: Debt) -> Paid:
    if debt.own:
        return _drop_oldest(db, ledger, adding, debt)
    return _drop_lowest(db, ledger, adding.stream.priority, debt)


def _drop_lowest(db: sqlite3.Connection, ledger: Ledger, up_to: int, debt: Debt) -> Paid:
    freed = 0
    for priority in range(up_to + 1):
        while freed < debt.bytes and (rows := _oldest(db, priority, 0)):
            victims = []
            for row in rows:
                if freed >= debt.bytes:
                    break
                victims.append(row)
                freed += row[3]
            _give_up(db, ledger, priority, victims, debt.now)
    return Paid(freed)


def _thin(db: sqlite3.Connection, ledger: Ledger, adding: Adding, debt: Debt) -> Paid:
    # A little more than it takes: merges that lie side by side share the pages that are written.
    spare = min(adding.stream.bytes // 64, 1 << 14)
    limit = SEARCH_ROWS + 4 * thinning.LOADED * adding.rows  # so that it keeps up with what comes
    freed, searching = thinning.thin(db, ledger, adding.stream, debt.bytes + spare, limit)
    return Paid(freed, searching)


_PAY: dict[str, Callable[[sqlite3.Connection, Ledger, Adding, Debt], Paid]] = {
    "reject": _reject,
    "drop-oldest": _drop_oldest,
    "drop-lowest-priority": _drop_lowest_priority,
    "thin": _thin,
}


def _oldest(db: sqlite3.Connection, priority: int, after: int) -> list[tuple[Any, ...]]:
    return db.execute(
        f"SELECT id, stream, pending, {SIZE}, expires, era FROM item_{priority} WHERE id > ? ORDER BY id LIMIT {CHUNK}",
        (after,),
    ).fetchall()


def _give_up(db: sqlite3.Connection, ledger: Ledger, priority: int, rows: Sequence[tuple[Any, ...]], now: int) -> None:
    """What has expired is no loss, and is counted as what it is."""
    reasons: dict[str, list[outbox.Row]] = {"quota": [], "expired": []}
    for id_, stream, pending, size, expires, era in rows:
        expired = expires is not None and expires + ledger.shift(era) <= now
        reasons["expired" if expired else "quota"].append((id_, stream, pending, size))
    for reason, some in reasons.items():
        outbox.settle(db, ledger, priority, some, EVERY_UPLINK, reason)
