"""The rows of the outbox: in with a sequence number, and gone when every uplink has them or none will.

All functions run in SQLite's thread, inside a transaction.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from edgefn.errors import StoreError
from edgefn.store.ledger import Ledger
from edgefn.store.records import HIGH, LOW, Item, NewItem

EVERY_UPLINK = -1

_header = struct.Struct("<qqqq").pack
Row = tuple[int, int, int, int]  # id, stream, pending, bytes of payload


def checksum(stream: int, seq: int, ts: int, expires: int | None, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_header(stream, seq, ts, expires or 0)))


def insert(db: sqlite3.Connection, ledger: Ledger, items: Sequence[NewItem], gateway: str) -> list[Item]:
    """Gives each item its sequence number and stores it. What no uplink wants is counted as dropped at once."""
    ledger.changed = ledger.changed or bool(items)
    stored: list[Item] = []
    rows: tuple[list[tuple[object, ...]], ...] = ([], [], [])
    masks: dict[frozenset[str] | None, int] = {}
    prefix = f"{gateway}/{ledger.epoch}/"
    for item in items:
        if not item.stream or not LOW <= item.priority <= HIGH:
            raise StoreError(
                f"an item of stream {item.stream!r} with priority {item.priority}: "
                "a stream has a name, and the priorities are 0 (low), 1 and 2 (high)"
            )
        stream = ledger.stream(db, item.stream)
        if not stream.stored:
            stream.priority = item.priority
        priority, seq, payload = stream.priority, stream.next_seq, bytes(item.payload)
        stream.next_seq += 1
        ledger.touched.add(stream)
        if (mask := masks.get(item.uplinks)) is None:
            mask = masks[item.uplinks] = ledger.mask(item.uplinks)
        id_ = ledger.next_item << 2 | priority
        ledger.next_item += 1
        stored.append(Item(id_, item.stream, seq, item.ts, priority, payload, f"{prefix}{item.stream}/{seq}"))
        if not mask:
            stream.gone += 1
            ledger.dropped[stream.id, "", "no_uplink"] += 1
            continue
        try:
            crc = checksum(stream.id, seq, item.ts, item.expires, payload)
        except struct.error as error:
            raise StoreError(
                f"an item of stream {item.stream!r} with ts {item.ts!r} and expires {item.expires!r}: "
                "both are whole nanoseconds since the epoch, in 64 bits"
            ) from error
        rows[priority].append((id_, stream.id, seq, item.ts, item.expires, mask, crc, payload))
        book(ledger, mask, 1, len(payload))
        ledger.bytes += len(payload)
    for priority, new in enumerate(rows):
        if new:
            db.executemany(f"INSERT INTO item_{priority} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)
    return stored


def book(ledger: Ledger, mask: int, rows: int, size: int) -> None:
    for uplink in ledger.uplinks:
        if uplink.bit & mask:
            uplink.rows += rows
            uplink.bytes += size


def make_room(db: sqlite3.Connection, ledger: Ledger, max_bytes: int, now: int) -> None:
    """Gives up the oldest of the lowest priority until the payloads fit into `max_bytes`."""
    for priority in (0, 1, 2):
        while ledger.bytes > max_bytes:
            excess = ledger.bytes - max_bytes
            victims: dict[str, list[Row]] = {"quota": [], "expired": []}
            rows = db.execute(
                f"SELECT id, stream, pending, length(payload), expires FROM item_{priority} ORDER BY id LIMIT 256"
            ).fetchall()
            for id_, stream, pending, size, expires in rows:
                if excess <= 0:
                    break
                expired = expires is not None and expires <= now
                victims["expired" if expired else "quota"].append((id_, stream, pending, size))
                excess -= size
            for reason, gone in victims.items():
                _settle(db, ledger, priority, gone, EVERY_UPLINK, reason)
            if not rows:
                break


def _settle(
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
            ledger.bytes -= size
            if stream is not None:
                stream.gone += 1
        if reason:
            ledger.dropped[stream_id if stream is not None else 0, uplink, reason] += 1
    db.executemany(f"DELETE FROM item_{priority} WHERE id = ?", delete)
    db.executemany(f"UPDATE item_{priority} SET pending = ? WHERE id = ?", update)


def _rows_of(db: sqlite3.Connection, ids: Iterable[int], bits: int) -> Iterator[tuple[int, list[Row]]]:
    """The rows that are still there and still wait for one of `bits`, by priority."""
    by_priority: dict[int, list[int]] = {}
    for id_ in ids:
        by_priority.setdefault(id_ & 3, []).append(id_)
    for priority, some in by_priority.items():
        if priority > HIGH:
            raise StoreError(f"{some[0]} is not the id of an item")
        for start in range(0, len(some), 500):
            chunk = some[start : start + 500]
            marks = ",".join("?" * len(chunk))
            yield (
                priority,
                db.execute(
                    f"SELECT id, stream, pending, length(payload) FROM item_{priority} "
                    f"WHERE id IN ({marks}) AND pending & ?",
                    (*chunk, bits),
                ).fetchall(),
            )


def acknowledge(
    db: sqlite3.Connection, ledger: Ledger, uplink: str, ids: Iterable[int], refused: Mapping[int, str]
) -> None:
    """One uplink has the items `ids`, except those of `refused` (id → reason), which it will never have.

    Ids that are not there are ignored: the quota may have taken the row while it was on its way.
    """
    account = ledger.uplink(uplink)
    for priority, rows in _rows_of(db, (id_ for id_ in ids if id_ not in refused), account.bit):
        _settle(db, ledger, priority, rows, account.bit)
    drop(db, ledger, refused, account.bit, uplink)


def drop(
    db: sqlite3.Connection, ledger: Ledger, why: Mapping[int, str], bits: int = EVERY_UPLINK, uplink: str = ""
) -> None:
    """Gives up items (id → reason) for the uplinks of `bits`, and counts them."""
    reasons: dict[str, list[int]] = {}
    for id_, reason in why.items():
        reasons.setdefault(reason, []).append(id_)
    for reason, ids in reasons.items():
        for priority, rows in _rows_of(db, ids, bits):
            _settle(db, ledger, priority, rows, bits, reason, uplink)


def retire(db: sqlite3.Connection, ledger: Ledger, uplink_id: int, priority: int, after: int) -> int | None:
    """Strikes a removed uplink off some rows after that id. Returns where to go on, None at the end."""
    account = next(uplink for uplink in ledger.uplinks if uplink.id == uplink_id)
    rows = db.execute(
        f"SELECT id, stream, pending, length(payload) FROM item_{priority} WHERE id > ? ORDER BY id LIMIT 1000",
        (after,),
    ).fetchall()
    held = [row for row in rows if row[2] & account.bit]
    _settle(db, ledger, priority, held, account.bit, "uplink_removed", account.name)
    return rows[-1][0] if rows else None
