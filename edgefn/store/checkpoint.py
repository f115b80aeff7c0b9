"""The saved state of handlers and windows: per owner one snapshot and the deltas since, in order.

All functions run in SQLite's thread; those that change something, inside a transaction.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence

from edgefn.errors import StoreError
from edgefn.store.ledger import Ledger
from edgefn.store.records import CheckpointPart


def checksum(owner: str, n: int, data: bytes) -> int:
    """Covers the number of the part, so that one under another owner's name is seen."""
    return zlib.crc32(data, zlib.crc32(f"{owner}\0{n}".encode()))


def write(db: sqlite3.Connection, ledger: Ledger, parts: Sequence[CheckpointPart]) -> None:
    """Appends deltas; a snapshot takes the place of all that its owner had, a drop leaves nothing."""
    for part in parts:
        if part.kind not in ("snapshot", "delta", "drop"):
            raise StoreError(f"checkpoint of {part.owner!r}: unknown kind {part.kind!r}; use snapshot, delta or drop")
        known = ledger.parts.setdefault(part.owner, [])
        if part.kind == "drop":
            _delete(db, known)
            del ledger.parts[part.owner]
            continue
        if part.kind == "snapshot":
            # In the place of the one before: moved to the end each time, what every commit writes anew cost 1.6 kB more.
            _delete(db, known[1:])
            del known[1:]
        if part.kind == "delta" or not known:
            known.append(ledger.next_part)
            ledger.next_part += 1
        data, n, id_ = bytes(part.data), len(known) - 1, known[-1]
        row = (id_, part.owner, n, checksum(part.owner, n, data), data)
        db.execute("REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?)", row)


def load(db: sqlite3.Connection, wanted: str | None = None) -> tuple[dict[str, list[bytes]], set[str]]:
    """The parts of each owner (or of one) in order, and the owners of which a part is damaged or missing.

    The part number is under the checksum, so a part that turned up under another owner's name is seen on both sides;
    without it an owner would silently miss one change.
    """
    good: dict[str, list[bytes]] = {}
    damaged: set[str] = set()
    for owner, n, crc, data in db.execute(
        "SELECT owner, n, crc, data FROM checkpoint WHERE ?1 IS NULL OR owner = ?1 ORDER BY id", (wanted,)
    ):
        parts = good.setdefault(owner, [])
        if n == len(parts) and isinstance(data, bytes) and checksum(owner, n, data) == crc:
            parts.append(data)
        else:
            damaged.add(owner)
    return {owner: parts for owner, parts in good.items() if owner not in damaged}, damaged


def drop(db: sqlite3.Connection, ledger: Ledger, owners: Iterable[str]) -> None:
    for owner in owners:
        _delete(db, ledger.parts.pop(owner, []))


def _delete(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    db.executemany("DELETE FROM checkpoint WHERE id = ?", [(id_,) for id_ in ids])
