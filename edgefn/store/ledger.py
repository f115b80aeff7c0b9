"""The counts that every transaction changes, held in memory beside the table they are saved to.

Counting rows would cost time that grows with the backlog. Only SQLite's thread touches a ledger. After a rolled back
transaction it is read again from the file, so it never says what the file does not.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgefn.errors import ConfigError
from edgefn.store import schema
from edgefn.store.hands import Hands
from edgefn.store.records import Spent
from edgefn.store.seal import is_intact, seal

if TYPE_CHECKING:
    from edgefn.store.audit import Census
    from edgefn.store.thinning import Pass

MAX_UPLINKS = 32  # bits of item.pending
EVERY_UPLINK = -1


@dataclass(slots=True, eq=False)
class Stream:
    id: int
    epoch: str
    name: str
    next_seq: int = 1
    gone: int = 0  # given to every uplink, dropped, or among the dead letters
    priority: int = 1
    bytes: int = 0

    @property
    def stored(self) -> int:
        return self.next_seq - 1 - self.gone


@dataclass(slots=True, eq=False)
class UplinkAccount:
    id: int  # from 1
    name: str
    retired: bool = False
    rows: int = 0
    bytes: int = 0
    spent: Spent | None = None

    @property
    def bit(self) -> int:
        return 1 << (self.id - 1)


@dataclass(frozen=True, slots=True)
class Era:
    """A time in which the gateway's clock ran on undisturbed; `shift` (ns) puts right what was stamped in it."""

    id: int
    boot: str
    offset: int
    synced: bool
    shift: int = 0


@dataclass(slots=True)
class Ledger:
    """Streams, uplinks and totals. `load` before use, `save` in the transaction that changed something."""

    epoch: str = ""
    streams: dict[str, Stream] = field(default_factory=dict)  # of this epoch, by name
    by_id: dict[int, Stream] = field(default_factory=dict)  # of every epoch
    uplinks: list[UplinkAccount] = field(default_factory=list)
    eras: dict[int, Era] = field(default_factory=dict)
    era: int = 0  # of rows that are stored now
    era_on_disk: int = 0  # the same, without what a transaction that is under way has done
    parts: dict[str, list[int]] = field(default_factory=dict)  # owner → ids of its checkpoint parts
    bytes: int = 0
    dead_rows: int = 0
    dead_bytes: int = 0
    next_item: int = 1
    next_part: int = 1
    # Up to this id nothing waits for that uplink in that priority. Holds across rollbacks: ids only grow.
    heads: dict[tuple[int, int], int] = field(default_factory=dict)
    hands: Hands = field(default_factory=Hands)
    oldest: dict[int, int] = field(default_factory=dict)  # stream → up to this id it has no row
    passes: dict[int, Pass] = field(default_factory=dict)  # stream → how far it is thinned
    too_large: set[int] = field(default_factory=set)  # streams that were told so
    dropped: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    census: Census | None = None  # under way after an unclean end
    stale: bool = True
    touched: set[Stream] = field(default_factory=set)
    changed: bool = False  # what an uplink has to send or has sent

    def load(self, db: sqlite3.Connection) -> None:
        """Raises sqlite3.DatabaseError where a row is not what was written."""
        self.touched.clear()
        self.dropped.clear()
        self.changed = False
        self.oldest.clear()
        row = db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
        if row is None:  # a reading of the whole table may have found what a search in a damaged one does not
            raise schema.damage("its epoch cannot be found")
        self.epoch = row[0]
        accounts = {
            row[0]: row[1:] for row in _sealed(db, "account", "id, next_seq, gone, priority, rows, bytes, day, spent")
        }
        self.by_id = {}
        for id_, epoch, name in _sealed(db, "stream", "id, epoch, name"):
            next_seq, gone, priority, _, size, _, _ = accounts.get(id_, (1, 0, 1, None, 0, None, None))
            self.by_id[id_] = Stream(id_, epoch, name, next_seq, gone, priority, size or 0)
        self.streams = {stream.name: stream for stream in self.by_id.values() if stream.epoch == self.epoch}
        self.uplinks = []
        for id_, name, retired in db.execute("SELECT id, name, retired FROM uplink ORDER BY id"):
            rows, size, day, spent = accounts.get(-id_, (None, None, None, 0, 0, None, None))[3:]
            total = None if day is None else Spent(day, spent)
            self.uplinks.append(UplinkAccount(id_, name, bool(retired), rows, size, total))
        self.bytes = accounts.get(0, (None, None, None, None, 0))[4]
        self.eras = {
            row[0]: Era(row[0], row[1], row[2], bool(row[3]), row[4])
            for row in db.execute("SELECT id, boot, offset, synced, shift FROM era")
        }
        self.era = self.era_on_disk if self.era_on_disk in self.eras else 0
        self.dead_rows, self.dead_bytes = db.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM dead"
        ).fetchone()
        self.parts = {}
        for id_, owner in db.execute("SELECT id, owner FROM checkpoint ORDER BY id"):
            self.parts.setdefault(owner, []).append(id_)
        # Never lower than before: a handle to a row that a rolled back transaction gave out must not name another row.
        for priority in range(3):
            last = db.execute(f"SELECT max(id) FROM item_{priority}").fetchone()[0] or 0
            self.next_item = max(self.next_item, (last >> 2) + 1)
        last = db.execute("SELECT max(id) FROM checkpoint").fetchone()[0] or 0
        self.next_part = max(self.next_part, last + 1)
        if self.census is not None:
            self.census.begin(self)
        self.stale = False

    def save(self, db: sqlite3.Connection) -> None:
        """Writes what changed: one page where streams are few."""
        rows: list[tuple[int | None, ...]] = [
            (stream.id, stream.next_seq, stream.gone, stream.priority, None, stream.bytes, None, None)
            for stream in self.touched
        ]
        if self.changed:
            rows += [
                (-uplink.id, None, None, None, uplink.rows, uplink.bytes, *(uplink.spent or (None, None)))
                for uplink in self.uplinks
            ]
            rows.append((0, None, None, None, None, self.bytes, None, None))
        db.executemany("REPLACE INTO account VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(*row, seal(row)) for row in rows])
        db.executemany(
            "INSERT INTO dropped VALUES (?, ?, ?, ?) "
            "ON CONFLICT (stream, uplink, reason) DO UPDATE SET n = n + excluded.n",
            [(*what, n) for what, n in sorted(self.dropped.items())],
        )
        self.touched.clear()
        self.changed = False

    @property
    def stored(self) -> int:
        """Rows in the outbox."""
        return sum(stream.stored for stream in self.by_id.values())

    def forget_streams(self, db: sqlite3.Connection) -> None:
        """Lets go of streams of earlier epochs of which there is nothing more to tell: no row, no letter, no drop."""
        told = {row[0] for row in db.execute("SELECT stream FROM dropped UNION SELECT stream FROM dead")}
        for stream in list(self.by_id.values()):
            if stream.epoch != self.epoch and not stream.stored and stream.id not in told:
                del self.by_id[stream.id]
                db.execute("DELETE FROM stream WHERE id = ?", (stream.id,))
                db.execute("DELETE FROM account WHERE id = ?", (stream.id,))

    def stream(self, db: sqlite3.Connection, name: str) -> Stream:
        """The stream of that name in this epoch, begun if there is none."""
        if (known := self.streams.get(name)) is not None:
            return known
        stream = Stream(insert_stream(db, self.epoch, name), self.epoch, name)
        self.streams[name] = self.by_id[stream.id] = stream
        return stream

    def uplink(self, name: str) -> UplinkAccount:
        for uplink in self.uplinks:
            if uplink.name == name and not uplink.retired:
                return uplink
        names = ", ".join(repr(uplink.name) for uplink in self.uplinks if not uplink.retired) or "none"
        raise ConfigError(f"uplink {name!r} is not registered with the store (known: {names}); name it in use_uplinks")

    def mask(self, names: Iterable[str] | None) -> int:
        """The bits of the uplinks that must have an item."""
        if names is None:
            return sum(uplink.bit for uplink in self.uplinks if not uplink.retired)
        return sum(self.uplink(name).bit for name in set(names))

    def shift(self, era: int) -> int:
        """What puts the times of that era right, ns."""
        return self.eras[era].shift if era in self.eras else 0

    def bits(self, uplink: str | None) -> int:
        """The bit of an uplink, or EVERY_UPLINK."""
        return EVERY_UPLINK if uplink is None else self.uplink(uplink).bit

    def ids(self, stream: str) -> frozenset[int]:
        """The streams of that name in all epochs."""
        return frozenset(one.id for one in self.by_id.values() if one.name == stream)


def insert_stream(db: sqlite3.Connection, epoch: str, name: str) -> int:
    """The id of a new row."""
    id_ = db.execute("INSERT INTO stream (epoch, name) VALUES (?, ?)", (epoch, name)).lastrowid
    assert id_ is not None
    db.execute("UPDATE stream SET crc = ? WHERE id = ?", (seal((id_, epoch, name)), id_))
    return id_


def _sealed(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    for *values, crc in db.execute(f"SELECT {columns}, crc FROM {table}"):
        if not is_intact(crc, values):
            raise schema.damage(f"row {values[0]} of its table {table} fails its checksum")
        yield tuple(values)
