"""The store of a gateway as the rest of edgefn sees it: commit, read, acknowledge, checkpoint, count."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from edgefn.clock import Clock
from edgefn.errors import ConfigError, StoreError
from edgefn.metrics import Metrics
from edgefn.store import audit, checkpoint, dead, eras, outbox, reading, room, totals
from edgefn.store.audit import Audit
from edgefn.store.database import MAX_MERGED_ROWS, Database
from edgefn.store.files import Lock
from edgefn.store.hands import AHEAD
from edgefn.store.ledger import MAX_UPLINKS, Era, Ledger, UplinkAccount
from edgefn.store.opening import begin_epoch, mark_clean, open_database
from edgefn.store.outbox import Moment, Purge
from edgefn.store.records import (
    Commit,
    DeadLetter,
    Drop,
    Item,
    OpenReport,
    Refused,
    Spent,
    Stats,
    StreamStats,
)
from edgefn.store.reserve import SIZE, Ballast, Reserve
from edgefn.store.salvage import Progress
from edgefn.store.totals import Totals

log = logging.getLogger(__name__)

MAX_BYTES = 256 << 20
PAUSE = 0.02  # seconds between two steps of an audit, for everybody else who wants the disk


def open_store(
    path: Path | str,
    *,
    gateway: str,
    clock: Clock,
    metrics: Metrics,
    max_bytes: int = MAX_BYTES,
    uplinks: Sequence[str] | None = None,
    salvage_for: Sequence[str] = (),
    ballast: int = SIZE,
    progress: Progress | None = None,
) -> Store:
    """The store at `path`: `async with open_store(…) as store`. `max_bytes` bounds the payloads in the outbox.

    `ballast` bytes of the disk are kept for the day on which it is full. `uplinks` names all that there are, as
    `Store.use_uplinks` does; None leaves them as they were, and rows of a damaged file that do not say whose they are go
    to those of `salvage_for`.

    Entering raises StoreError where the file is in use, belongs to something else, is too new, or its folder cannot be
    written. A damaged file is set aside, a fresh one begun, and what can be read of the old one is taken over: see
    `Store.report`. That takes a while where there is much; `progress` hears of it (rows looked at, and about how many
    there are), in another thread.
    """
    if not re.fullmatch(r"[a-z0-9-]+", gateway):
        raise ConfigError(f"gateway id {gateway!r}: only a-z, 0-9 and - are allowed")
    if max_bytes <= 0:
        raise ConfigError(f"max_bytes {max_bytes}: the outbox needs a size above 0")
    return Store(Path(path), gateway, clock, metrics, max_bytes, uplinks, salvage_for, ballast, progress)


class Store:
    """One file, one connection, one writer. All methods are called from one event loop, by any number of tasks.

    Every method raises StoreError where the disk fails; what it should have changed is then unchanged, and the same
    call may be made again.
    """

    report: OpenReport

    def __init__(
        self,
        path: Path,
        gateway: str,
        clock: Clock,
        metrics: Metrics,
        max_bytes: int,
        uplinks: Sequence[str] | None,
        salvage_for: Sequence[str],
        ballast: int,
        progress: Progress | None,
    ) -> None:
        self.path = path
        self.gateway = gateway
        self._clock = clock
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._uplinks = uplinks
        self._salvage_for = salvage_for if uplinks is None else uplinks
        self._progress = progress
        self._ledger = Ledger()
        self._lock = Lock(path)
        self._reserve = Reserve(path, Ballast(path, ballast), max_bytes, clock.monotonic)
        self._database = Database(path, self._ledger, metrics, self._reserve, self._connect)
        self._auditing: asyncio.Task[None] | None = None

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open()
        except (sqlite3.Error, OSError) as error:
            if not self._reserve.relieve(error):
                raise
        return self._open()

    def _open(self) -> sqlite3.Connection:
        db, self.report = open_database(
            self.path,
            self._ledger,
            self._clock.now(),
            reserve=self._reserve,
            uplinks=self._salvage_for,
            progress=self._progress,
        )
        self._ledger.hands.open(db, self.position(), trusted=not self.report.torn)
        return db

    async def __aenter__(self) -> Store:
        self._lock.acquire()
        try:
            await self._database.open()
            if self.report.lost:
                self._metrics.count("outbox.dropped", self.report.lost, reason="lost")
            if self.report.damaged:
                self._metrics.count("outbox.dropped", self.report.damaged, reason="damaged")
            if self.report.salvaged:
                self._metrics.count("store.salvaged", self.report.salvaged)
            if self.report.set_aside:
                self._metrics.count("store.set_aside")
            if self._uplinks is not None:
                await self.use_uplinks(self._uplinks)
            if self.report.clean and any(one.epoch != self.epoch for one in await self.streams()):
                await self._database.transact(lambda db, ledger: ledger.forget_streams(db))
            if self._ledger.census is not None:
                self._auditing = asyncio.create_task(self._audit(), name="store audit")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finishes what waits and closes the file. Calling it again does nothing."""
        if self._auditing is not None:
            self._auditing.cancel()
            with suppress(asyncio.CancelledError):
                await self._auditing
        room = self._reserve.room_of_log()
        try:
            await self._database.close(self._mark_clean)
            self._reserve.keep(room)
        finally:
            self._lock.release()

    def _mark_clean(self, db: sqlite3.Connection) -> None:
        self._ledger.hands.close(db)
        mark_clean(db, self._ledger)

    async def audited(self) -> None:
        """Returns when all rows have been counted that an unclean end had left; at once where there is nothing to count."""
        if self._auditing is not None:
            await asyncio.wait([self._auditing])

    async def _audit(self) -> None:
        """Counts the rows in steps, while others read and write; the next start begins again where this one ends early."""
        census = self._ledger.census
        assert census is not None
        try:
            while not await self._database.read(census.step):  # noqa: ASYNC110 - each turn does a piece of work
                await asyncio.sleep(PAUSE)
            if not census.adds_up:
                found = await self._database.transact(_recount, MAX_MERGED_ROWS)  # by itself: it reads the ledger anew
                self._metrics.count("outbox.dropped", found.lost, reason="lost")
                log.error(
                    "%s: %d items that were stored are missing; they are counted as dropped", self.path, found.lost
                )
                if not found.trusted:
                    log.error("%s: numbers of items were forgotten; epoch %s begins", self.path, self.epoch)
        except StoreError as error:
            log.error("%s; the next start counts its rows again", error)
        else:
            # In SQLite's thread, where a transaction may be telling it of a row that leaves.
            await self._database.read(lambda _, ledger: setattr(ledger, "census", None))

    @property
    def lean(self) -> bool:
        """The disk is full: the file does not grow, and new items use what deleted ones leave."""
        return self._reserve.lean

    @property
    def epoch(self) -> str:
        """Part of every key; a fresh store has a new one, and so has one whose newest commits were unreadable."""
        return self._ledger.epoch

    async def damage(self) -> NoReturn:
        """Waits until a call meets damage in the file, and raises StoreDamagedError: only a new start helps then."""
        await self._database.damage()

    async def commit(self, commit: Commit) -> list[Item]:
        """Makes items and checkpoint durable in one transaction; returns the items with their sequence numbers.

        Where the outbox is full, room is made by the policy of each item's stream; what goes may be the new ones.
        """

        def work(db: sqlite3.Connection, ledger: Ledger) -> list[Item]:
            moment = Moment(self._clock.now(), self._clock.monotonic())
            items, added = outbox.insert(db, ledger, commit.items, self.gateway, moment, self._max_bytes)
            room.make_room(db, ledger, added, self._max_bytes, moment.now)
            checkpoint.write(db, ledger, commit.checkpoint)
            dead.add(db, ledger, commit.letters)
            return items

        rows = len(commit.items) + len(commit.checkpoint) + len(commit.letters)
        return await self._database.transact(work, rows)

    def position(self) -> int:
        """A handle above all rows stored so far, for `read`."""
        return (self._ledger.next_item << 2) - 1

    async def read(
        self, uplink: str, limit: int, *, max_bytes: int = 1 << 20, oldest_first: bool = False, after: int = 0
    ) -> list[Item]:
        """What waits for an uplink, at most `limit` items and `max_bytes` of payload (but one at least).

        Ordered by priority and then age, or by age alone; in either order the items of one stream ascend. Reading again
        before `acknowledge` gives the same items. Expired and damaged ones are dropped on the way. With `after`, only
        what was stored after that position.
        """
        passed: Sequence[int] = (after, after, after)
        while True:
            wanted = reading.Wanted(
                uplink, limit, max_bytes, oldest_first, self.gateway, self._clock.now(), tuple(passed)
            )
            found = await self._database.read(lambda db, ledger, wanted=wanted: reading.scan(db, ledger, wanted))  # type: ignore[misc]
            passed = found.passed
            if unfit := found.unfit:
                if damaged := sum(reason == "damaged" for reason in unfit.values()):
                    log.error("%s: %d damaged rows of the outbox are dropped", self.path, damaged)
                await self._database.transact(
                    lambda db, ledger, unfit=unfit: outbox.drop(db, ledger, unfit),  # type: ignore[misc]
                    len(unfit),
                )
            if found.items or not found.more:
                await self._mark(found.handed)
                return found.items

    async def _mark(self, handed: Sequence[int]) -> None:
        """Before the first of ten thousand rows that could be merged leaves this process, the disk knows of them."""
        if max(handed, default=0) > self._ledger.hands.marked:
            mark = self.position() + (AHEAD << 2)
            await self._database.transact(lambda db, ledger: ledger.hands.write(db, mark))
            self._ledger.hands.marked = mark

    async def acknowledge(
        self,
        uplink: str,
        ids: Iterable[int],
        *,
        refused: Mapping[int, Refused] | None = None,
        patience: float = 0.0,
        spent: Spent | None = None,
    ) -> None:
        """The uplink has the items `ids`, except those in `refused` (id → why), which become dead letters.

        An item leaves the store when every uplink that must have it has acknowledged it. Unknown ids do no harm. With
        `patience` (seconds) this waits for the next commit to go along with, which halves what is written to the card.
        `spent` is kept with it: what the uplink has sent on that day.
        """
        some, why = list(ids), dict(refused or {})

        def work(db: sqlite3.Connection, ledger: Ledger) -> None:
            account = ledger.uplink(uplink)
            if spent is not None:
                account.spent, ledger.changed = spent, True
            outbox.acknowledge(db, ledger, uplink, (id_ for id_ in some if id_ not in why))
            dead.bury(db, ledger, account, why, self.gateway, self._clock.now())

        await self._database.transact(work, len(some) + len(why), patience=patience)
        self._ledger.hands.release(uplink, some)

    async def spent(self, uplink: str) -> Spent | None:
        """What was last saved with `acknowledge`."""
        return await self._database.read(lambda _, ledger: ledger.uplink(uplink).spent)

    async def stats(self, uplink: str) -> Stats:
        """What waits for an uplink. The cost does not depend on how much."""
        return await self._database.read(lambda db, ledger: reading.stats(db, ledger, uplink, self._clock.now()))

    async def drops(self) -> list[Drop]:
        """All items given up since the store began, by stream and reason: the gaps in the sequence numbers."""

        def work(db: sqlite3.Connection, _: Ledger) -> list[Drop]:
            rows = db.execute(
                "SELECT coalesce(epoch, ''), coalesce(name, ''), uplink, reason, n "
                "FROM dropped LEFT JOIN stream ON stream.id = dropped.stream ORDER BY 1, 2, 3, 4"
            )
            return [Drop(*row) for row in rows]

        return await self._database.read(work)

    async def streams(self) -> list[StreamStats]:
        """What the store holds of each stream. The cost does not depend on how much."""
        return await self._database.read(reading.streams)

    async def peek(
        self, limit: int, *, after: int = 0, stream: str | None = None, uplink: str | None = None
    ) -> list[Item]:
        """What waits, the oldest first, after the item with the id `after`; of one stream, or for one uplink.

        Nothing changes: it stays where it is and counts as not yet read. Damaged rows are left out.
        """
        items: list[Item] = []
        start: int | None = after
        while start is not None and len(items) < limit:
            what = reading.Glance(self.gateway, limit - len(items), start, stream, uplink)
            more, start = await self._database.read(lambda db, ledger, what=what: reading.peek(db, ledger, what))  # type: ignore[misc]
            items += more
        return items

    async def purge(self, *, stream: str | None = None, uplink: str | None = None) -> int:
        """Gives up what waits now, of one stream, for one uplink, or all of it. Returns how much; it counts as `purged`.

        A thousand rows a transaction: after a crash in between, what is left waits as before.
        """
        until = self.position()

        def what(_: sqlite3.Connection, ledger: Ledger) -> Purge:
            streams = None if stream is None else ledger.ids(stream)
            return Purge("purged", ledger.bits(uplink), uplink or "", streams, until)

        return await self._purge(await self._database.read(what))

    async def _purge(self, what: Purge) -> int:
        purged = 0
        for priority in range(3):
            after: int | None = 0
            while after is not None:
                n, after = await self._database.transact(
                    lambda db, ledger, priority=priority, start=after: outbox.purge(  # type: ignore[misc]
                        db, ledger, what, priority, start
                    ),
                    1000,
                )
                purged += n
        return purged

    async def dead(self, limit: int, *, after: int = 0) -> list[DeadLetter]:
        """What uplinks refused for good and handlers could not do, the oldest first, after the letter with the id `after`."""
        return await self._database.read(lambda db, ledger: dead.letters(db, ledger, self.gateway, limit, after))

    async def requeue(self, ids: Collection[int] | None) -> int:
        """Puts dead letters back, each for who refused it; None: all. Returns how many there were.

        An invocation is then a checkpoint of the owner "call <id>" again. Items keep their keys and come after what waits now;
        one for an uplink that there is no more stays.
        """

        def work(db: sqlite3.Connection, ledger: Ledger) -> int:
            n = dead.requeue(db, ledger, ids)
            room.make_room(db, ledger, (), self._max_bytes, self._clock.now())
            return n

        return await self._database.transact(work, dead.MAX_ROWS)

    async def purge_dead(self, ids: Collection[int] | None) -> int:
        """Throws dead letters away, None: all. Returns how many; they count as `purged`."""
        return await self._database.transact(lambda db, ledger: dead.purge(db, ledger, ids), dead.MAX_ROWS)

    async def totals(self) -> Totals:
        """All counts of one moment. The cost does not depend on how much waits."""
        return await self._database.read(totals.take)

    async def begin_era(self, boot: str, offset: int, synced: bool) -> None:
        """From now on items are stamped by gateway time, which is `offset` ns ahead of the monotonic clock of this boot.

        `synced`: it is known to be right. What was stored in this boot while it was not is put right with it.
        """
        await self._database.transact(lambda db, ledger: eras.begin(db, ledger, boot, offset, synced))

    async def newest_era(self) -> Era | None:
        """The era of what was stored last, of this boot or of an earlier one."""
        return await self._database.read(lambda _, ledger: eras.newest(ledger))

    async def load_checkpoint(self, owner: str | None = None) -> dict[str, list[bytes]]:
        """The parts of each owner (or of one): the snapshot, then its deltas in order. One with a damaged part is dropped."""
        good, damaged = await self._database.read(lambda db, _: checkpoint.load(db, owner))
        if damaged:
            log.error("%s: the saved state of %s is damaged and dropped", self.path, ", ".join(sorted(damaged)))
            self._metrics.count("checkpoint.damaged", len(damaged))
            await self._database.transact(lambda db, ledger: checkpoint.drop(db, ledger, damaged))
        return good

    async def use_uplinks(self, names: Sequence[str]) -> None:
        """Names all uplinks there are. A new one gets items from now on; one that is no longer named holds nothing.

        Rows that only a removed uplink still wanted are dropped (`uplink_removed`), a thousand a transaction. After a
        crash in between, the next call goes on.
        """

        def register(db: sqlite3.Connection, ledger: Ledger) -> None:
            for uplink in ledger.uplinks:
                if uplink.name not in names:
                    uplink.retired = True
                    db.execute("UPDATE uplink SET retired = 1 WHERE id = ?", (uplink.id,))
            known = {uplink.name for uplink in ledger.uplinks if not uplink.retired}
            free = sorted(set(range(1, MAX_UPLINKS + 1)) - {uplink.id for uplink in ledger.uplinks})
            new = [name for name in dict.fromkeys(names) if name not in known]
            if len(new) > len(free):
                raise ConfigError(f"uplinks {', '.join(new)}: a store serves {MAX_UPLINKS} at most")
            for name, id_ in zip(new, free, strict=False):
                db.execute("INSERT INTO uplink VALUES (?, ?, 0)", (id_, name))
                ledger.uplinks.append(UplinkAccount(id_, name))
                ledger.changed = True
                # Bits are used again: what waits for the new holder of one lies above all rows of the old.
                ledger.heads.update({(id_, priority): (ledger.next_item << 2) - 1 for priority in range(3)})

        await self._database.transact(register)
        retired = await self._database.read(lambda _, ledger: [one for one in ledger.uplinks if one.retired])
        for uplink in retired:
            await self._retire(uplink)

    async def _retire(self, uplink: UplinkAccount) -> None:
        await self._purge(Purge("uplink_removed", uplink.bit, uplink.name))

        def forget(db: sqlite3.Connection, ledger: Ledger) -> None:
            ledger.uplinks = [one for one in ledger.uplinks if one.id != uplink.id]
            db.execute("DELETE FROM uplink WHERE id = ?", (uplink.id,))
            db.execute("DELETE FROM account WHERE id = ?", (-uplink.id,))

        await self._database.transact(forget)


def _recount(db: sqlite3.Connection, ledger: Ledger) -> Audit:
    found = audit.recount(db, ledger)
    ledger.save(db)
    if not found.trusted:
        begin_epoch(db)
    ledger.load(db)
    return found


__all__ = ["Commit", "Store", "StoreError", "open_store"]
