"""What can be read of a damaged store, taken over into another: items under their old keys, accounts, saved state.

A thousand rows a transaction, each with a note of how far it went: after a power cut it goes on there, and nothing is
taken twice. Runs in SQLite's thread, before anybody else uses the store.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from edgefn.errors import StoreError
from edgefn.store import checkpoint, outbox
from edgefn.store.ledger import MAX_UPLINKS, Era, Ledger, Stream, UplinkAccount, insert_stream
from edgefn.store.records import HIGH, INVOCATION, LOW, CheckpointPart, Spent
from edgefn.store.rows import COLUMNS, checksum, intact
from edgefn.store.source import Source

log = logging.getLogger(__name__)

BATCH = 1000  # rows in one transaction
_MOST = 1 << 53  # larger counts are nonsense
_NOTE = "salvaged/"
_ROW = [*COLUMNS.split(", ")[1:], "pending"]
_ERA = {"id": int, "boot": str, "offset": int, "synced": int, "shift": int}
_LETTER = ["kind", "stream", "seq", "ts", "uplink", "at", "reason", "detail", "crc", "payload"]

Progress = Callable[[int, int], None]  # rows looked at, and about how many there are


class _Note(msgspec.Struct):
    """How far the salvage of one file went; kept in `meta` under the file's identity."""

    after: dict[str, int] = {}  # table → id of the last row that was looked at
    taken: dict[str, int] = {}  # id of the stream in this store → rows
    state_done: bool = False
    done: bool = False


@dataclass(slots=True)
class Salvaged:
    """What came of it. `damaged` counts the items that were in the file once and could not be taken."""

    items: int = 0
    damaged: int = 0
    owners: list[str] = field(default_factory=list)  # whose saved state was taken over
    counted: bool = True  # False: the accounts are lost as well, so nobody knows what is missing
    before: bool = False  # everything had been taken already
    complete: bool = True  # False: the disk or the quota was full; calling again goes on

    def __str__(self) -> str:
        if self.before:
            return "everything that can be read of it was taken over before"
        text = f"{self.items} items and the state of {len(self.owners)} handlers and windows are taken over"
        if self.damaged:
            text += f", {self.damaged} items cannot be read and are counted as dropped (damaged)"
        if not self.counted:
            text += "; its accounts cannot be read, so how many are missing is not known"
        return text if self.complete else text + "; then there was no room: the next start goes on"


def salvage(
    db: sqlite3.Connection,
    ledger: Ledger,
    path: Path,
    *,
    uplinks: Sequence[str] = (),
    state: bool = True,
    progress: Progress | None = None,
) -> Salvaged:
    """Takes over what can be read of the store at `path`. Raises StoreError where that is no store of ours.

    `uplinks` are named in rows whose own list of uplinks is lost; `state` False leaves saved state where it is.
    """
    with Source(path) as source:
        identity = source.identity
        note = db.execute("SELECT value FROM meta WHERE name = ?", (_NOTE + identity,)).fetchone()
        epochs = {stream.epoch for stream in ledger.by_id.values()} | {ledger.epoch}
        if note is None and identity in epochs:
            raise StoreError(f"{path}: it is a copy of this store itself; nothing in it is missing here")
        work = _Salvage(db, ledger, source, identity, uplinks, progress or (lambda done, of: None))
        return work.run(state, note[0] if note else None)


class _Salvage:
    def __init__(
        self,
        db: sqlite3.Connection,
        ledger: Ledger,
        source: Source,
        identity: str,
        uplinks: Sequence[str],
        progress: Progress,
    ) -> None:
        self.db = db
        self.ledger = ledger
        self.source = source
        self.identity = identity
        self.uplinks = uplinks
        self.progress = progress
        self.report = Salvaged()
        self.note = _Note()
        self.streams: dict[int, Stream] = {}  # id in the source → stream here
        self.accounts: dict[int, tuple[int, int, int]] = {}  # id in the source → next_seq, gone, priority
        self.bits: dict[int, int] = {}  # an uplink's bit in the source → its bit here
        self.eras: dict[int, int] = {}  # id in the source → id here
        self.everyone = 0  # bits of all uplinks, where the source's are not known
        self.shift = ledger.next_item - 1  # ids go on above those that are here, in the old order
        self.looked_at = 0
        self.total = source.span([f"item_{priority}" for priority in range(3)])

    def run(self, state: bool, note: str | None) -> Salvaged:
        if note is not None:
            self.note = msgspec.json.decode(note, type=_Note)
        if self.note.done:
            return Salvaged(before=True)
        try:
            with self._transaction():
                self._begin(first=note is None)
            if state and not self.note.state_done:
                with self._transaction():
                    self._take_state()
            for priority in (2, 1, 0):
                self._take_items(priority)
            with self._transaction():
                self._settle()
        except sqlite3.OperationalError as error:  # full, or an I/O error where we write: what is taken stays
            log.error("%s: %s", self.source.path, error)
            self.report.complete = False
        return self.report

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.ledger.save(self.db)
            note = msgspec.json.encode(self.note).decode()
            self.db.execute("REPLACE INTO meta VALUES (?, ?)", (_NOTE + self.identity, note))
            self.db.execute("COMMIT")
            self.ledger.dropped.clear()
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self.ledger.load(self.db)
            raise

    def _begin(self, first: bool) -> None:
        """Streams and uplinks get their numbers here; no item of them is here yet, so all count as gone."""
        for id_, *account in self.source.sealed("account", {"id": int, "next_seq": int, "gone": int, "priority": int}):
            next_seq, gone, priority = account
            # Below 0 where what one of many uplinks refused was put back: it has a row of its own then.
            if id_ > 0 and -MAX_UPLINKS * next_seq < gone < next_seq < _MOST and LOW <= priority <= HIGH:
                self.accounts[id_] = (account[0], account[1], account[2])
        for id_, epoch, name in self.source.sealed("stream", {"id": int, "epoch": str, "name": str}):
            self.streams[id_] = self._stream(id_, epoch, name)
        self.report.counted = bool(self.accounts)
        self._map_uplinks()
        self._map_eras()
        if not first:
            return
        for name, value in self.source.small("meta", {"name": str, "value": str}):
            if name.startswith(_NOTE):
                self.db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
        for id_, uplink, reason, n in self.source.small(
            "dropped", {"stream": int, "uplink": str, "reason": str, "n": int}
        ):
            here = self.streams.get(id_)
            self.ledger.dropped[here.id if here else 0, uplink, reason] += n if 0 < n < _MOST else 0
        self._take_letters()

    def _stream(self, id_: int, epoch: str, name: str) -> Stream:
        for known in self.ledger.by_id.values():
            if (known.epoch, known.name) == (epoch, name):
                return known
        next_seq, _, priority = self.accounts.get(id_, (1, 0, 1))
        stream = Stream(insert_stream(self.db, epoch, name), epoch, name, next_seq, next_seq - 1, priority)
        self.ledger.by_id[stream.id] = stream
        self.ledger.touched.add(stream)
        return stream

    def _map_uplinks(self) -> None:
        known = [
            (id_, name)
            for id_, name, retired in self.source.small("uplink", {"id": int, "name": str, "retired": int})
            if not retired and 0 < id_ <= MAX_UPLINKS
        ]
        here = {name: self._uplink(name) for name in [name for _, name in known] or self.uplinks}
        if known:
            self.bits = {1 << (id_ - 1): here[name] for id_, name in known}
        else:  # who had a row already is not known: too often is better than never
            self.everyone = sum(here.values())

        spent = {
            id_: total
            for id_, *total in self.source.sealed("account", {"id": int, "day": int, "spent": int})
            if id_ < 0
        }
        for id_, name in known:
            for uplink in self.ledger.uplinks:
                if uplink.name == name and uplink.spent is None and -id_ in spent:
                    uplink.spent = Spent(*spent[-id_])

    def _map_eras(self) -> None:
        for id_, boot, offset, synced, shift in self.source.small("era", _ERA):
            newest = max(self.ledger.eras, default=0)
            here = next((era for era in self.ledger.eras.values() if (era.boot, era.offset) == (boot, offset)), None)
            if here is None or here.id < newest:  # eras ascend as rows do; that one may have been put right since
                put_right = (bool(synced), shift) if here is None else (here.synced, here.shift)
                here = Era(newest + 1, boot, offset, *put_right)
                self.ledger.eras[here.id] = here
                self.db.execute(
                    "INSERT INTO era VALUES (?, ?, ?, ?, ?)", (here.id, boot, offset, here.synced, here.shift)
                )
            self.eras[id_] = here.id

    def _take_letters(self) -> None:
        for _, kind, stream_id, seq, ts, uplink, at, reason, detail, crc, payload in self.source.rows("dead", _LETTER):
            stream = self.streams.get(stream_id)
            id_ = 0 if kind == INVOCATION and stream_id == 0 else None if stream is None else stream.id
            sound = isinstance(at, int) and all(isinstance(text, str) for text in (kind, uplink, reason, detail))
            if id_ is None or not sound or not intact((0, stream_id, seq, ts, None, 0, 0, 0, crc, payload, None)):
                log.error("%s: a dead letter of uplink %s is damaged", self.source.path, uplink)
                continue
            crc = checksum(id_, seq, ts, None, payload)
            self.db.execute(
                f"INSERT INTO dead ({', '.join(_LETTER)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (kind, id_, seq, ts, uplink, at, reason, detail, crc, payload),
            )
            self.ledger.dead_rows += 1
            self.ledger.dead_bytes += len(payload)

    def _uplink(self, name: str) -> int:
        """The bit of an uplink here; 0 where there is no room for one more."""
        for uplink in self.ledger.uplinks:
            if uplink.name == name and not uplink.retired:
                return uplink.bit
        free = set(range(1, MAX_UPLINKS + 1)) - {uplink.id for uplink in self.ledger.uplinks}
        if not free:
            return 0
        uplink = UplinkAccount(min(free), name)
        self.db.execute("INSERT INTO uplink VALUES (?, ?, 0)", (uplink.id, name))
        self.ledger.uplinks.append(uplink)
        self.ledger.changed = True
        return uplink.bit

    def _mask(self, pending: Any) -> int:
        if self.everyone or not isinstance(pending, int):
            return self.everyone or sum(self.bits.values())
        return sum(here for there, here in self.bits.items() if pending & there)

    def _take_state(self) -> None:
        """All owners whose parts are whole; none where handlers have saved something here since."""
        self.note.state_done = True
        if self.ledger.parts:
            return
        spoiled: set[str] = set()
        for _, owner, n, crc, data in self.source.rows("checkpoint", ["owner", "n", "crc", "data"]):
            known = self.ledger.parts.get(owner, [])
            if not isinstance(owner, str):
                continue
            if n == len(known) and isinstance(data, bytes) and checkpoint.checksum(owner, n, data) == crc:
                checkpoint.write(self.db, self.ledger, [CheckpointPart(owner, "delta", data)])
            else:
                spoiled.add(owner)
        for owner in spoiled:
            log.error("%s: the saved state of %s is damaged and begins afresh", self.source.path, owner)
            checkpoint.write(self.db, self.ledger, [CheckpointPart(owner, "drop")])
        self.report.owners = sorted(self.ledger.parts)

    def _take_items(self, priority: int) -> None:
        table = f"item_{priority}"
        rows = self.source.rows(table, _ROW, self.note.after.get(table, 0))
        while batch := list(islice(rows, BATCH)):
            with self._transaction():
                self.ledger.changed = True
                for row in batch:
                    self._take(priority, row)
                self.note.after[table] = batch[-1][0]
            self.looked_at += len(batch)
            self.progress(self.looked_at, max(self.looked_at, self.total))

    def _take(self, priority: int, row: tuple[Any, ...]) -> None:
        id_, stream_id, seq, ts, expires, era, own, made, _, payload, _, pending = row
        if not intact(row[:-1]):
            return
        stream = self.streams.get(stream_id)
        if stream is None:  # its name is lost, and its items say themselves what they are
            stream = self.streams[stream_id] = self._stream(stream_id, self.identity, f"salvaged/{stream_id}")
        taken = self.note.taken.get(str(stream.id), 0)
        mask = self._mask(pending)
        if not mask:
            self.note.taken[str(stream.id)] = taken + 1
            self.ledger.dropped[stream.id, "", "uplink_removed"] += 1
            return
        new_id = id_ + (self.shift << 2)
        era = self.eras.get(era, 0)
        crc = checksum(stream.id, seq, ts, expires, payload, era=era, own=own, made=made)
        cursor = self.db.execute(
            f"INSERT OR IGNORE INTO item_{priority} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            # Without a summary: the far side may have it already, so that it must never be merged.
            (new_id, stream.id, seq, ts, expires, mask, crc, payload, era, own, made, None),
        )
        if not cursor.rowcount:  # a damaged page can bring a row twice
            return
        if seq >= stream.next_seq:
            stream.gone += seq + 1 - stream.next_seq
            stream.next_seq = seq + 1
        stream.gone -= 1
        self.ledger.next_item = max(self.ledger.next_item, (new_id >> 2) + 1)
        outbox.add(self.ledger, stream, mask, len(payload))
        self.note.taken[str(stream.id)] = taken + 1
        self.report.items += 1

    def _settle(self) -> None:
        """What the accounts of the file say and nobody found is given up, by the stream that it is missing from."""
        for id_, (next_seq, gone, _) in self.accounts.items():
            here = self.streams.get(id_)
            taken = self.note.taken.get(str(here.id), 0) if here else 0
            if (missing := next_seq - 1 - gone - taken) > 0:
                self.ledger.dropped[here.id if here else 0, "", "damaged"] += missing
                self.report.damaged += missing
        self.note.done = True
