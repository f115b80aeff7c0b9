"""Dead letters: what an uplink refused for good, or a handler could not do, is kept here until somebody sends it again or not.

An item is in the outbox, among the dead letters, at the far side, or counted as dropped: never in two of them. All
functions run in SQLite's thread; those that change something, inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping

from edgefn.errors import PayloadError
from edgefn.events import from_json
from edgefn.store import checkpoint, outbox
from edgefn.store.ledger import Ledger, UplinkAccount
from edgefn.store.records import CALL, INVOCATION, ITEM, CheckpointPart, DeadLetter, Letter, Refused
from edgefn.store.rows import COLUMNS, checksum, found

MAX_ROWS = 1000
MAX_BYTES = 4 << 20
MAX_REASON, MAX_DETAIL = 64, 1000  # what a far side says can be of any length

_Row = tuple[int, int, str, int]  # id, stream, uplink, bytes


def bury(
    db: sqlite3.Connection,
    ledger: Ledger,
    uplink: UplinkAccount,
    refused: Mapping[int, Refused],
    gateway: str,
    now: int,
) -> None:
    """Moves items out of the outbox, as far as that uplink is concerned. The oldest letters make room."""
    for priority, rows in outbox.rows_of(db, refused, uplink.bit):
        damaged: list[outbox.Row] = []
        for row in rows:
            full = db.execute(f"SELECT {COLUMNS} FROM item_{priority} WHERE id = ?", row[:1]).fetchone()
            one = found(full, ledger, gateway)
            if one is None:
                damaged.append(row)
                continue
            item, why = one.item, refused[row[0]]
            _insert(db, ledger, ITEM, row[1], item.seq, item.ts, uplink.name, now, why, item.payload)
            outbox.settle(db, ledger, priority, [row], uplink.bit)
        outbox.settle(db, ledger, priority, damaged, uplink.bit, "damaged", uplink.name)
    _make_room(db, ledger)


def add(db: sqlite3.Connection, ledger: Ledger, new: Iterable[Letter]) -> None:
    """Keeps invocations that their handlers could not do. The oldest letters make room."""
    for one in new:
        why = Refused(one.reason, one.detail)
        _insert(db, ledger, INVOCATION, 0, one.attempts, one.ts, one.handler, one.at, why, one.payload)
    _make_room(db, ledger)


def _insert(
    db: sqlite3.Connection, ledger: Ledger, kind: str, stream: int, seq: int, ts: int, whose: str, at: int, why: Refused,
    payload: bytes,
) -> None:  # fmt: skip
    db.execute(
        "INSERT INTO dead (kind, stream, seq, ts, uplink, at, reason, detail, crc, payload) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (kind, stream, seq, ts, whose, at, why.reason[:MAX_REASON], why.detail[:MAX_DETAIL],
         checksum(stream, seq, ts, None, payload), payload),
    )  # fmt: skip
    ledger.dead_rows += 1
    ledger.dead_bytes += len(payload)


def _make_room(db: sqlite3.Connection, ledger: Ledger) -> None:
    while ledger.dead_rows > MAX_ROWS or ledger.dead_bytes > MAX_BYTES:
        _give_up(db, ledger, _some(db, "ORDER BY id LIMIT 1", ()), "refused")


def letters(db: sqlite3.Connection, ledger: Ledger, gateway: str, limit: int, after: int) -> list[DeadLetter]:
    """The letters after that id, the oldest first."""
    found_letters = []
    for id_, kind, stream_id, seq, uplink, at, reason, detail, payload in db.execute(
        "SELECT id, kind, stream, seq, uplink, at, reason, detail, payload FROM dead WHERE id > ? ORDER BY id LIMIT ?",
        (after, limit),
    ):
        stream = ledger.by_id.get(stream_id)
        epoch, name = (stream.epoch, stream.name) if stream is not None else ("", "")
        key = "" if kind == INVOCATION else f"{gateway}/{epoch}/{name}/{seq}"
        found_letters.append(DeadLetter(id_, kind, key, name, uplink, at, reason, detail, payload))
    return found_letters


def requeue(db: sqlite3.Connection, ledger: Ledger, ids: Collection[int] | None) -> int:
    """Puts letters back: into the outbox, each for the uplink that refused it and under its old key, or before their handler.

    None: all. They come after what is there now. Those of an uplink that there is no more stay where they are.
    """
    uplinks = {uplink.name: uplink for uplink in ledger.uplinks if not uplink.retired}
    requeued = 0
    for id_, stream_id, uplink_name, size in list(_chosen(db, ids)):
        kind, seq, ts, crc, payload = db.execute(
            "SELECT kind, seq, ts, crc, payload FROM dead WHERE id = ?", (id_,)
        ).fetchone()
        stream, uplink = ledger.by_id.get(stream_id), uplinks.get(uplink_name)
        if kind != INVOCATION and (stream is None or uplink is None):
            continue
        call = _call(payload) if kind == INVOCATION else ""
        if checksum(stream_id, seq, ts, None, payload) != crc or call is None:
            _give_up(db, ledger, [(id_, stream_id, uplink_name, size)], "damaged")
            continue
        _forget(db, ledger, id_, size)
        if stream is None or uplink is None:
            checkpoint.write(db, ledger, [CheckpointPart(CALL + str(call), "snapshot", payload)])
            requeued += 1
            continue
        new_id = ledger.next_item << 2 | stream.priority
        ledger.next_item += 1
        row = (new_id, stream_id, seq, ts, None, uplink.bit, crc, payload, 0, 0, 0, None)
        outbox.write(db, stream.priority, [row])
        outbox.add(ledger, stream, uplink.bit, size)
        stream.gone -= 1
        requeued += 1
    return requeued


def _call(payload: bytes) -> str | None:
    """The id in the letter of an invocation."""
    try:
        id_ = from_json(payload)["id"]
    except (PayloadError, KeyError, TypeError):
        return None
    return id_ if isinstance(id_, str) else None


def purge(db: sqlite3.Connection, ledger: Ledger, ids: Collection[int] | None) -> int:
    """Gives letters up for good; None: all."""
    return _give_up(db, ledger, list(_chosen(db, ids)), "purged")


def _some(db: sqlite3.Connection, where: str, arguments: tuple[int, ...]) -> list[_Row]:
    return db.execute(f"SELECT id, stream, uplink, length(payload) FROM dead {where}", arguments).fetchall()


def _chosen(db: sqlite3.Connection, ids: Collection[int] | None) -> Iterator[_Row]:
    if ids is None:
        yield from _some(db, "ORDER BY id", ())
    else:
        for id_ in sorted(set(ids)):
            yield from _some(db, "WHERE id = ?", (id_,))


def _give_up(db: sqlite3.Connection, ledger: Ledger, rows: Collection[_Row], reason: str) -> int:
    for id_, stream_id, uplink, size in rows:
        _forget(db, ledger, id_, size)
        ledger.dropped[stream_id if stream_id in ledger.by_id else 0, uplink, reason] += 1
    return len(rows)


def _forget(db: sqlite3.Connection, ledger: Ledger, id_: int, size: int) -> None:
    db.execute("DELETE FROM dead WHERE id = ?", (id_,))
    ledger.dead_rows -= 1
    ledger.dead_bytes -= size
