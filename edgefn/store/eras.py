"""Eras: times in which the gateway's clock ran on undisturbed, and what puts right the rows that were stamped in each.

All functions run in SQLite's thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from edgefn.clock import STEP
from edgefn.store.ledger import Era, Ledger


def begin(db: sqlite3.Connection, ledger: Ledger, boot: str, offset: int, synced: bool) -> None:
    """Rows are stamped by gateway time of this offset over the monotonic clock of this boot from now on.

    What was stamped in this boot while the clock was not known to be right moves by the difference of the offsets: one row
    an era is updated, however many rows it has. Where nothing has changed, the era before goes on.
    """
    for era in list(ledger.eras.values()):
        if era.boot == boot and not era.synced:
            shift = offset - era.offset
            _write(db, ledger, replace(era, synced=synced, shift=shift if abs(shift) >= STEP else 0))
    last = newest(ledger)
    if last is not None and last.boot == boot and last.synced == synced and abs(last.offset - offset) < STEP:
        ledger.era = last.id
        return
    _forget(db, ledger)
    ledger.era = max(ledger.eras, default=0) + 1
    _write(db, ledger, Era(ledger.era, boot, offset, synced))


def newest(ledger: Ledger) -> Era | None:
    return max(ledger.eras.values(), key=lambda era: era.id, default=None)


def _forget(db: sqlite3.Connection, ledger: Ledger) -> None:
    """Lets go of eras without rows. Rows are stored in the order of their eras, so the ends of the tables tell.

    A row of none (0), of an older version or put back by an operator, tells nothing: all eras on its side stay.
    """
    oldest, last = (
        [
            row[0]
            for priority in range(3)
            for row in db.execute(f"SELECT CAST(era AS INTEGER) FROM item_{priority} ORDER BY id {order} LIMIT 1")
        ]
        for order in ("ASC", "DESC")
    )
    for era in list(ledger.eras):
        if not oldest or era < min(oldest) or (0 not in last and era > max(last)):
            del ledger.eras[era]
            db.execute("DELETE FROM era WHERE id = ?", (era,))


def _write(db: sqlite3.Connection, ledger: Ledger, era: Era) -> None:
    ledger.eras[era.id] = era
    row = (era.id, era.boot, era.offset, era.synced, era.shift)
    db.execute("REPLACE INTO era (id, boot, offset, synced, shift) VALUES (?, ?, ?, ?, ?)", row)
