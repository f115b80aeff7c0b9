"""The rows of the outbox: in with a sequence number, and gone when every uplink has them or none will.

All functions run in SQLite's thread, inside a transaction.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgefn.errors import StoreError
from edgefn.policies import StreamPolicy
from edgefn.store.ledger import EVERY_UPLINK, Ledger, Stream
from edgefn.store.records import HIGH, LOW, Item, NewItem
from edgefn.store.rows import SIZE, checksum

log = logging.getLogger(__name__)

Row = tuple[int, int, int, int]  # id, stream, pending, size


@dataclass(slots=True)
class Adding:
    """What one commit adds to a stream."""

    stream: Stream
    policy: StreamPolicy
    first: int  # id of the first new row
    bytes: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """When a commit is made: the gateway's time, and the monotonic clock, in ns."""

    now: int
    made: int


def insert(
    db: sqlite3.Connection, ledger: Ledger, items: Sequence[NewItem], gateway: str, moment: Moment, max_bytes: int
) -> tuple[list[Item], list[Adding]]:
    """Gives each item its sequence number and stores it; there may be too much in the store then.

    What no uplink wants, and what is larger than all that its stream may have, is counted as dropped at once.
    """
    ledger.changed = ledger.changed or bool(items)
    stored: list[Item] = []
    rows: tuple[list[tuple[object, ...]], ...] = ([], [], [])
    masks: dict[frozenset[str] | None, int] = {}
    added: dict[str, Adding] = {}
    made = moment.made
    prefix, era = f"{gateway}/{ledger.epoch}/", ledger.era
    unsynced = era in ledger.eras and not ledger.eras[era].synced
    for item in items:
        if not item.stream or not LOW <= item.priority <= HIGH:
            raise StoreError(
                f"an item of stream {item.stream!r} with priority {item.priority}: "
                "a stream has a name, and the priorities are 0 (low), 1 and 2 (high)"
            )
        stream = ledger.stream(db, item.stream)
        if not stream.stored:
            stream.priority = item.priority
        priority, seq, payload, summary = stream.priority, stream.next_seq, bytes(item.payload), item.summary
        stream.next_seq += 1
        ledger.touched.add(stream)
        if (mask := masks.get(item.uplinks)) is None:
            mask = masks[item.uplinks] = ledger.mask(item.uplinks)
        id_ = ledger.next_item << 2 | priority
        ledger.next_item += 1
        key = f"{prefix}{item.stream}/{seq}"
        expires = None if item.ttl is None else moment.now + item.ttl
        stored.append(Item(id_, item.stream, seq, item.ts, priority, payload, key, made, unsynced, expires))
        if not mask:
            stream.gone += 1
            ledger.dropped[stream.id, "", "no_uplink"] += 1
            continue
        size = len(payload) + (0 if summary is None else len(summary))
        most = max_bytes if item.policy.quota is None else min(max_bytes, item.policy.quota)
        if size > most:
            _too_large(ledger, stream, size, most)
            continue
        own = int(item.own_clock)
        try:
            crc = checksum(stream.id, seq, item.ts, expires, payload, era=era, own=own, made=made, summary=summary)
        except struct.error as error:
            raise StoreError(
                f"an item of stream {item.stream!r} with ts {item.ts!r} and ttl {item.ttl!r}: "
                "both are whole nanoseconds, in 64 bits"
            ) from error
        rows[priority].append((id_, stream.id, seq, item.ts, expires, mask, crc, payload, era, own, made, summary))
        add(ledger, stream, mask, size)
        if (adding := added.get(item.stream)) is None:
            adding = added[item.stream] = Adding(stream, item.policy, id_)
        adding.bytes += size
        adding.rows += 1
    for priority, new in enumerate(rows):
        write(db, priority, new)
    return stored, list(added.values())


def _too_large(ledger: Ledger, stream: Stream, size: int, most: int) -> None:
    stream.gone += 1
    ledger.dropped[stream.id, "", "too_large"] += 1
    if stream.id not in ledger.too_large:
        ledger.too_large.add(stream.id)
        log.error(
            "stream %s: an item of %d bytes does not fit into its quota of %d bytes and is dropped, as all such will be; "
            "make the quota larger",
            *(stream.name, size, most),
        )


def write(db: sqlite3.Connection, priority: int, rows: Sequence[tuple[object, ...]]) -> None:
    """Rows of all columns, in the order of the table."""
    if rows:
        db.executemany(f"INSERT INTO item_{priority} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def add(ledger: Ledger, stream: Stream, mask: int, size: int) -> None:
    """Counts a row that is stored now."""
    book(ledger, mask, 1, size)
    stream.bytes += size
    ledger.bytes += size
    ledger.touched.add(stream)
    ledger.changed = True


def book(ledger: Ledger, mask: int, rows: int, size: int) -> None:
    for uplink in ledger.uplinks:
        if uplink.bit & mask:
            uplink.rows += rows
            uplink.bytes += size


def settle(
    db: sqlite3.Connection,
    ledger: Ledger,
    priority: int,
    rows: Iterable[Row],
    mask: int,
    reason: str = "",
    uplink: str = "",
) -> None:
    """Strikes the uplinks of `mask` off each row, and the row where none is left; with a reason it is a drop."""
    ledger.changed = True
    delete: list[tuple[int]] = []
    update: list[tuple[int, int]] = []
    for id_, stream_id, pending, size in rows:
        book(ledger, pending & mask, -1, -size)
        stream = ledger.by_id.get(stream_id)
        if stream is not None:
            ledger.touched.add(stream)
        if left := pending & ~mask:
            update.append((left, id_))
        else:
            delete.append((id_,))
            if ledger.census is not None:
                ledger.census.gone(id_, stream_id)
            ledger.bytes -= size
            if stream is not None:
                stream.gone += 1
                stream.bytes -= size
                if not stream.stored:
                    ledger.passes.pop(stream.id, None)
        if reason:
            ledger.dropped[stream_id if stream is not None else 0, uplink, reason] += 1
    db.executemany(f"DELETE FROM item_{priority} WHERE id = ?", delete)
    db.executemany(f"UPDATE item_{priority} SET pending = ? WHERE id = ?", update)


def rows_of(db: sqlite3.Connection, ids: Iterable[int], bits: int) -> Iterator[tuple[int, list[Row]]]:
    """The rows that are still there and still wait for one of `bits`, by priority."""
    by_priority: dict[int, list[int]] = {}
    for id_ in ids:
        by_priority.setdefault(id_ & 3, []).append(id_)
    for priority, some in by_priority.items():
        if priority > HIGH:
            raise StoreError(f"{some[0]} is not the id of an item")
        for start in range(0, len(some), 500):
            chunk = some[start : start + 500]
            marks = ",".join(f"?{n}" for n in range(2, len(chunk) + 2))
            yield (
                priority,
                db.execute(
                    f"SELECT id, stream, pending, {SIZE} FROM item_{priority} "
                    f"WHERE id IN ({marks}) AND (pending & ?1 OR ?1 = {EVERY_UPLINK})",
                    (bits, *chunk),
                ).fetchall(),
            )


def acknowledge(db: sqlite3.Connection, ledger: Ledger, uplink: str, ids: Iterable[int]) -> None:
    """One uplink has the items `ids`. Those that are not there are ignored: the quota may have taken the row meanwhile."""
    bit = ledger.uplink(uplink).bit
    for priority, rows in rows_of(db, ids, bit):
        settle(db, ledger, priority, rows, bit)


def drop(db: sqlite3.Connection, ledger: Ledger, why: Mapping[int, str]) -> None:
    """Gives up items (id → reason), and counts them."""
    reasons: dict[str, list[int]] = {}
    for id_, reason in why.items():
        reasons.setdefault(reason, []).append(id_)
    for reason, ids in reasons.items():
        for priority, rows in rows_of(db, ids, EVERY_UPLINK):
            settle(db, ledger, priority, rows, EVERY_UPLINK, reason)


@dataclass(frozen=True, slots=True)
class Purge:
    """Which rows are given up, why, and for whom: for one uplink, or for all with EVERY_UPLINK and no name."""

    reason: str
    bits: int = EVERY_UPLINK
    uplink: str = ""
    streams: Collection[int] | None = None  # ids; None: all
    until: int = (1 << 63) - 1


def purge(db: sqlite3.Connection, ledger: Ledger, what: Purge, priority: int, after: int) -> tuple[int, int | None]:
    """Looks at a thousand rows after that id. Returns how many were given up, and where to go on (None at the end)."""
    rows = db.execute(
        f"SELECT id, stream, pending, {SIZE} FROM item_{priority} WHERE id > ? AND id <= ? ORDER BY id LIMIT 1000",
        (after, what.until),
    ).fetchall()
    held = [row for row in rows if row[2] & what.bits and (what.streams is None or row[1] in what.streams)]
    settle(db, ledger, priority, held, what.bits, what.reason, what.uplink)
    return len(held), rows[-1][0] if rows else None
