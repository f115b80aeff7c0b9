"""Eras: times in which the gateway's clock ran on undisturbed, and what puts right the rows that were stamped in each.

All functions run in SQLite's thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from edgefn.clock import STEP
from edgefn.store.ledger import Era, Ledger

MANY = 256  # a boot without a right clock makes one, and a clock that is set


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
    """Lets go of eras without rows: of all where nothing is stored, else now and then, since it reads every row.

    The order of rows tells nothing of their eras: what was salvaged, merged or put back stands behind newer ones.
    """
    tables = [f"item_{priority}" for priority in range(3)]
    is_empty = not any(db.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0] for table in tables)
    if not is_empty and len(ledger.eras) < MANY:
        return
    used = {row[0] for table in tables for row in db.execute(f"SELECT DISTINCT era FROM {table}")}
    for era in ledger.eras.keys() - used:
        del ledger.eras[era]
        db.execute("DELETE FROM era WHERE id = ?", (era,))


def _write(db: sqlite3.Connection, ledger: Ledger, era: Era) -> None:
    ledger.eras[era.id] = era
    row = (era.id, era.boot, era.offset, era.synced, era.shift)
    db.execute("REPLACE INTO era (id, boot, offset, synced, shift) VALUES (?, ?, ?, ?, ?)", row)
