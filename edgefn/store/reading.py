"""The outbox as an uplink sees it: the next rows in order, how much waits, and whether everything adds up.

All functions run in SQLite's thread and only `audit` changes anything.
"""

from __future__ import annotations

import sqlite3
import struct
from dataclasses import dataclass, field

from edgefn.clock import NS
from edgefn.store.ledger import Ledger, UplinkAccount
from edgefn.store.outbox import book, checksum
from edgefn.store.records import Item, Stats

SCAN_ROWS = 4096  # one hop looks at no more rows, so that a commit never waits for a long search


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a scan: whose rows, how many (rows, bytes of payload), in which order, and the time in ns."""

    uplink: str
    rows: int
    bytes: int
    oldest_first: bool
    gateway: str
    now: int


@dataclass(slots=True)
class Scan:
    items: list[Item] = field(default_factory=list)
    unfit: dict[int, str] = field(default_factory=dict)  # id → reason
    more: bool = False  # the search ended before the rows did


def scan(db: sqlite3.Connection, ledger: Ledger, wanted: Wanted) -> Scan:
    """What waits for an uplink: the highest priority first, or the oldest of all; one item at least if there is any."""
    account = ledger.uplink(wanted.uplink)
    found = Scan()
    for priority in (2, 1, 0):
        _scan_priority(db, ledger, account, priority, wanted, found)
        if found.items and not wanted.oldest_first and _full(found.items, wanted):
            found.more = True
            break
    if wanted.oldest_first:
        found.items.sort(key=lambda item: item.id >> 2)
    size = 0
    for n, item in enumerate(found.items):
        size += len(item.payload)
        if n and (n == wanted.rows or size > wanted.bytes):
            del found.items[n:]
            found.more = True
            break
    return found


def _full(items: list[Item], wanted: Wanted) -> bool:
    return len(items) >= wanted.rows or sum(len(item.payload) for item in items) >= wanted.bytes


def _scan_priority(
    db: sqlite3.Connection, ledger: Ledger, account: UplinkAccount, priority: int, wanted: Wanted, found: Scan
) -> None:
    where = (account.id, priority)
    head = ledger.heads.get(where, 0)
    rows, size = wanted.rows, 0
    if not wanted.oldest_first:
        rows -= len(found.items)
    looked_at, passing = 0, True
    for id_, mine, stream_id, seq, ts, expires, crc, payload in db.execute(
        "SELECT id, pending & :bit, stream, seq, ts, expires, crc, CASE WHEN pending & :bit THEN payload END "
        f"FROM item_{priority} WHERE id > :head ORDER BY id LIMIT {SCAN_ROWS}",
        {"bit": account.bit, "head": head},
    ):
        if rows <= 0 or size > wanted.bytes:
            found.more = True
            break
        looked_at += 1
        if not mine:
            if passing:
                ledger.heads[where] = id_
            continue
        passing = False
        stream = ledger.by_id.get(stream_id)
        if stream is None or not _intact(stream_id, seq, ts, expires, payload, crc):
            found.unfit[id_] = "damaged"
        elif expires is not None and expires <= wanted.now:
            found.unfit[id_] = "expired"
        else:
            rows -= 1
            size += len(payload)
            key = f"{wanted.gateway}/{stream.epoch}/{stream.name}/{seq}"
            found.items.append(Item(id_, stream.name, seq, ts, priority, payload, key))
    found.more |= looked_at == SCAN_ROWS


def _intact(stream: int, seq: int, ts: int, expires: int | None, payload: bytes, crc: int) -> bool:
    try:
        return checksum(stream, seq, ts, expires, payload) == crc
    except (struct.error, TypeError):  # a flipped bit can change the type of a value, too
        return False


def stats(db: sqlite3.Connection, ledger: Ledger, uplink: str, now: int) -> Stats:
    """What waits for an uplink; the cost does not depend on how much."""
    account = ledger.uplink(uplink)
    if not account.rows:
        return Stats(0, 0, None)
    oldest: tuple[int, int] | None = None
    for priority in range(3):
        row = db.execute(
            f"SELECT id, CAST(ts AS INTEGER) FROM (SELECT id, ts, pending FROM item_{priority} WHERE id > ? "
            f"ORDER BY id LIMIT {SCAN_ROWS}) WHERE pending & ? LIMIT 1",
            (ledger.heads.get((account.id, priority), 0), account.bit),
        ).fetchone()
        if row and (oldest is None or row[0] < oldest[0]):
            oldest = row
    return Stats(account.rows, account.bytes, None if oldest is None else max(0, now - oldest[1]) / NS)


@dataclass(frozen=True, slots=True)
class Audit:
    lost: int  # items that are neither there nor accounted for
    trusted: bool  # False: a row has a sequence number that was never given out


def audit(db: sqlite3.Connection, ledger: Ledger) -> Audit:
    """Counts everything again after an unclean end. Every stream must add up: given out = stored + gone.

    Reads all rows, so it also finds a damaged table (sqlite3.DatabaseError).
    """
    present: dict[int, int] = {}
    trusted = True
    ledger.changed = True
    ledger.bytes = 0
    for uplink in ledger.uplinks:
        uplink.rows = uplink.bytes = 0
    for priority in range(3):
        for stream_id, pending, n, size, last in db.execute(
            "SELECT CAST(stream AS INTEGER), CAST(pending AS INTEGER), count(*), "
            "coalesce(sum(length(payload)), 0), max(CAST(seq AS INTEGER)) "
            f"FROM item_{priority} GROUP BY stream, pending"
        ).fetchall():
            present[stream_id] = present.get(stream_id, 0) + n
            book(ledger, pending or 0, n, size)
            ledger.bytes += size
            stream = ledger.by_id.get(stream_id)
            trusted &= stream is None or last < stream.next_seq
    lost = 0
    for stream in ledger.by_id.values():
        missing = stream.stored - present.get(stream.id, 0)
        if missing:
            ledger.touched.add(stream)
            stream.gone += missing
        if missing > 0:
            ledger.dropped[stream.id, "", "lost"] += missing
            lost += missing
    return Audit(lost, trusted)
