"""The outbox as an uplink sees it: the next rows in order, and how much waits.

All functions run in SQLite's thread and change nothing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from edgefn.clock import NS
from edgefn.store.ledger import Ledger, UplinkAccount
from edgefn.store.records import Item, Stats, StreamStats
from edgefn.store.rows import COLUMNS, found

SCAN_ROWS = 4096  # one hop looks at no more rows, so that a commit never waits for a long search


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a scan: whose rows, how many (rows, bytes of payload), in which order, and the time in ns.

    `after` has a position for each priority: rows up to there are not looked at.
    """

    uplink: str
    rows: int
    bytes: int
    oldest_first: bool
    gateway: str
    now: int
    after: tuple[int, ...] = (0, 0, 0)


@dataclass(slots=True)
class Scan:
    items: list[Item] = field(default_factory=list)
    unfit: dict[int, str] = field(default_factory=dict)  # id → reason
    more: bool = False  # the search ended before the rows did
    passed: list[int] = field(default_factory=lambda: [0, 0, 0])  # by priority: up to there nothing was found
    mergeable: set[int] = field(default_factory=set)
    handed: list[int] = field(default_factory=list)  # of the items: what must not be merged any more


def scan(db: sqlite3.Connection, ledger: Ledger, wanted: Wanted) -> Scan:
    """What waits for an uplink: the highest priority first, or the oldest of all; one item at least if there is any."""
    account = ledger.uplink(wanted.uplink)
    result = Scan()
    for priority in (2, 1, 0):
        _scan_priority(db, ledger, account, priority, wanted, result)
        if result.items and not wanted.oldest_first and _full(result.items, wanted):
            result.more = True
            break
    if wanted.oldest_first:
        result.items.sort(key=lambda item: item.id >> 2)
    size = 0
    for n, item in enumerate(result.items):
        size += len(item.payload)
        if n and (n == wanted.rows or size > wanted.bytes):
            del result.items[n:]
            result.more = True
            break
    result.handed = [item.id for item in result.items if item.id in result.mergeable]
    ledger.hands.take(account.name, result.handed)
    return result


def _full(items: list[Item], wanted: Wanted) -> bool:
    return len(items) >= wanted.rows or sum(len(item.payload) for item in items) >= wanted.bytes


def _scan_priority(
    db: sqlite3.Connection, ledger: Ledger, account: UplinkAccount, priority: int, wanted: Wanted, result: Scan
) -> None:
    where = (account.id, priority)
    head = ledger.heads.get(where, 0)
    start = result.passed[priority] = max(head, wanted.after[priority])
    rows, size = wanted.rows, 0
    if not wanted.oldest_first:
        rows -= len(result.items)
    looked_at, passing = 0, True
    every = sum(uplink.bit for uplink in ledger.uplinks)
    for pending, *row in db.execute(
        f"SELECT pending, {COLUMNS} FROM item_{priority} WHERE id > :start ORDER BY id LIMIT {SCAN_ROWS}",
        {"start": start},
    ):
        if rows <= 0 or size > wanted.bytes:
            result.more = True
            break
        looked_at += 1
        id_ = row[0]
        if not pending & every:  # such a row would have been deleted: a bit of its mark has flipped
            result.unfit[id_] = "damaged"
            continue
        if not pending & account.bit:
            if passing:
                result.passed[priority] = id_
                if start == head:
                    ledger.heads[where] = id_
            continue
        passing = False
        one = found(row, ledger, wanted.gateway)
        if one is None:
            result.unfit[id_] = "damaged"
        elif one.expires is not None and one.expires <= wanted.now:
            result.unfit[id_] = "expired"
        else:
            rows -= 1
            size += len(one.item.payload)
            result.items.append(one.item)
            if one.mergeable:
                result.mergeable.add(id_)
    result.more |= looked_at == SCAN_ROWS


@dataclass(frozen=True, slots=True)
class Glance:
    """What a peek looks for: how many rows after which id, and of which stream or for which uplink only."""

    gateway: str
    limit: int
    after: int
    stream: str | None
    uplink: str | None


def peek(db: sqlite3.Connection, ledger: Ledger, what: Glance) -> tuple[list[Item], int | None]:
    """Intact rows, the oldest first, and where to go on (None: that is all)."""
    bits = ledger.bits(what.uplink)
    streams = None if what.stream is None else ledger.ids(what.stream)
    tables = " UNION ALL ".join(
        f"SELECT pending, {COLUMNS} FROM item_{priority} WHERE id > :after" for priority in range(3)
    )
    items: list[Item] = []
    looked_at, last = 0, what.after
    for pending, *row in db.execute(f"{tables} ORDER BY id LIMIT {SCAN_ROWS}", {"after": what.after}):
        looked_at, last = looked_at + 1, row[0]
        if pending & bits and (streams is None or row[1] in streams):
            one = found(row, ledger, what.gateway)
            if one is not None:
                items.append(one.item)
                if len(items) == what.limit:
                    return items, None
    return items, last if looked_at == SCAN_ROWS else None


def streams(db: sqlite3.Connection, ledger: Ledger) -> list[StreamStats]:
    """All streams that the store knows, those of earlier epochs too."""
    dropped: dict[int, dict[str, int]] = {}
    for id_, reason, n in db.execute("SELECT stream, reason, sum(n) FROM dropped GROUP BY stream, reason"):
        dropped.setdefault(id_, {})[reason] = n
    return [
        StreamStats(one.name, one.epoch, one.stored, one.bytes, one.priority, dropped.get(one.id, {}))
        for one in sorted(ledger.by_id.values(), key=lambda one: (one.name, one.epoch))
    ]


def stats(db: sqlite3.Connection, ledger: Ledger, uplink: str, now: int) -> Stats:
    """What waits for an uplink; the cost does not depend on how much."""
    account = ledger.uplink(uplink)
    if not account.rows:
        return Stats(0, 0, None)
    oldest: tuple[int, int, int, int] | None = None
    for priority in range(3):
        row = db.execute(
            "SELECT id, CAST(ts AS INTEGER), CAST(era AS INTEGER), CAST(own AS INTEGER) FROM "
            f"(SELECT id, ts, era, own, pending FROM item_{priority} WHERE id > ? ORDER BY id LIMIT {SCAN_ROWS}) "
            "WHERE pending & ? LIMIT 1",
            (ledger.heads.get((account.id, priority), 0), account.bit),
        ).fetchone()
        if row and (oldest is None or row[0] < oldest[0]):
            oldest = row
    if oldest is None:
        return Stats(account.rows, account.bytes, None)
    _, ts, era, own = oldest
    return Stats(account.rows, account.bytes, max(0, now - ts - (ledger.shift(era) if own else 0)) / NS)
