"""One SQLite connection in a thread of its own, and the transactions of many callers merged into few."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import aiosqlite

from edgefn.errors import StoreDamagedError, StoreDiskError, StoreError
from edgefn.metrics import Metrics
from edgefn.store import asides
from edgefn.store.files import disk_error
from edgefn.store.ledger import Ledger
from edgefn.store.reserve import Reserve
from edgefn.store.schema import is_damage

T = TypeVar("T")
Work = Callable[[sqlite3.Connection, Ledger], T]

MAX_MERGED = 64  # callers in one transaction
MAX_MERGED_ROWS = 4096

_RESTART = "it is damaged: restart edgefn, which sets the file aside and takes over what can be read of it"
_ADVICE = {
    "SQLITE_FULL": "the disk or its quota is full: make room; what was not stored can be stored again later",
    "SQLITE_IOERR": "the disk reports an error: check its space, the card and the kernel log",
    "SQLITE_READONLY": "the file cannot be written: check its owner and whether the disk is mounted read-only",
    "SQLITE_BUSY": "another program has it open: close that program",
    "SQLITE_CANTOPEN": "it cannot be opened: check the folder and its owner",
    "SQLITE_CORRUPT": _RESTART,
    "SQLITE_NOTADB": _RESTART,
}


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """The same failure with the name of the file and what to do."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), "see the log")
    disk = name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN"))
    kind = StoreDamagedError if is_damage(error) else StoreDiskError if disk else StoreError
    return kind(f"{path}: {error} ({name}); {advice}")


class _Connection(aiosqlite.Connection):
    """aiosqlite's thread, asked for a whole function at a time.

    With a call per statement, a task cancelled between BEGIN and COMMIT leaves the transaction open for ever.
    """

    stopped: asyncio.Future[None] | None = None

    def stop(self) -> asyncio.Future[None] | None:
        self.stopped = super().stop()
        return self.stopped

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._execute(lambda: function(self._conn))  # type: ignore[no-untyped-call]
        return result


@dataclass(slots=True, eq=False)
class _Job:
    work: Work[Any]
    rows: int
    done: asyncio.Future[Any]


class Database:
    """Reads and transactions on the connection that `connector` opens in the database's thread.

    `transact` calls that wait while a transaction runs go into the next one together, up to 64 callers or 4,096 rows:
    WAL with synchronous=FULL costs one fsync per transaction, 10 ms on a card. Each caller waits for its own result,
    so what queues here is bounded by the number of tasks. A cancelled caller's work is done whole or not at all.
    """

    def __init__(
        self,
        path: Path,
        ledger: Ledger,
        metrics: Metrics,
        reserve: Reserve,
        connector: Callable[[], sqlite3.Connection],
    ) -> None:
        self.path = path
        self._ledger = ledger
        self._metrics = metrics
        self._reserve = reserve
        self._connection = _Connection(connector, iter_chunk_size=64)
        self._waiting: deque[_Job] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._open = False
        self._damage: StoreDamagedError | None = None
        self._damaged = asyncio.Event()

    async def open(self) -> None:
        try:
            await self._connection
        except BaseException as error:
            if self._connection.stopped:  # the thread must be through with the file before the lock is released
                await self._connection.stopped
            if isinstance(error, sqlite3.Error):
                raise store_error(self.path, error) from error
            if isinstance(error, OSError) and not isinstance(error, StoreError):
                raise disk_error(self.path, error) from error
            raise
        self._open = True
        self._count_relief()

    async def close(self, last: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Finishes what waits, runs `last`, closes. Calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        self._start_writer()
        while self._writer is not None:
            await asyncio.wait([self._writer])
        try:
            if last is not None and self._damage is None:
                await self._connection.run(lambda db: self._write_with_relief(db, last))
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error
        finally:
            await self._connection.close()

    async def read(self, work: Work[T]) -> T:
        """Runs `work` between two transactions; it must not change anything. Raises StoreError."""
        self._check_open()

        def run(db: sqlite3.Connection) -> T:
            if self._ledger.stale:
                self._ledger.load(db)
            return work(db, self._ledger)

        try:
            return await self._connection.run(run)
        except sqlite3.Error as error:
            raise self._error(error) from error

    async def transact(self, work: Work[T], rows: int = 1, *, patience: float = 0.0) -> T:
        """Runs `work` in a transaction and returns its result once that is on the disk.

        With `patience` it goes along with the next impatient one, or alone after that many seconds.

        Raises StoreError where the disk refuses; nothing is changed then, and the same work can be tried again.
        """
        self._check_open()
        job = _Job(work, rows, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if not patience:
            self._start_writer()
            return await job.done  # type: ignore[no-any-return]
        timer = asyncio.get_running_loop().call_later(patience, self._start_writer)
        try:
            return await job.done  # type: ignore[no-any-return]
        finally:
            timer.cancel()

    def _start_writer(self) -> None:
        if self._writer is None and self._waiting:
            self._writer = asyncio.create_task(self._write(), name="store writer")

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the store is closed")

    def _next_group(self) -> list[_Job]:
        jobs: list[_Job] = []
        rows = 0
        while self._waiting and len(jobs) < MAX_MERGED:
            if jobs and rows + self._waiting[0].rows > MAX_MERGED_ROWS:
                break
            job = self._waiting.popleft()
            if not job.done.done():  # else cancelled before its turn: nothing of it happens
                jobs.append(job)
                rows += job.rows
        return jobs

    async def _write(self) -> None:
        jobs: list[_Job] = []
        try:
            while self._waiting:
                if jobs := self._next_group():
                    await self._write_group(jobs)
        finally:
            self._writer = None
            for job in (*jobs, *self._waiting):
                if not job.done.done():
                    job.done.set_exception(StoreError(f"{self.path}: the store stopped before this was written"))
            self._waiting.clear()

    async def _write_group(self, jobs: Sequence[_Job]) -> None:
        try:
            try:
                results, dropped = await self._connection.run(
                    lambda db: self._transaction(db, [job.work for job in jobs])
                )
            finally:
                self._count_relief()
        except sqlite3.OperationalError as error:
            self._fail(jobs, self._error(error))
        except Exception as error:
            if len(jobs) > 1:  # one of them is wrong in itself; the others must not suffer for it
                for job in jobs:
                    await self._write_group([job])
            else:
                self._fail(jobs, self._error(error) if isinstance(error, sqlite3.Error) else error)
        else:
            for reason, n in dropped.items():
                self._metrics.count("outbox.dropped", n, reason=reason)
            for job, result in zip(jobs, results, strict=True):
                if not job.done.done():
                    job.done.set_result(result)

    def _error(self, error: sqlite3.Error) -> StoreError:
        """Damage is remembered in a file, too: what met it here may lie where the next start does not look.

        A disk that fails reads and writes makes SQLite speak of damage, which is gone when the disk is back.
        """
        told = store_error(self.path, error)
        if isinstance(told, StoreDamagedError) and self._damage is None:
            if not asides.accuse(self.path, str(told)):
                # An EIO while reading is SQLITE_CORRUPT to SQLite (os_unix.c: IOERR_CORRUPTFS).
                return StoreDiskError(
                    f"{self.path}: disk I/O error ({error}, and no file beside it can be written); "
                    "check the card and the kernel log"
                )
            self._damage = told
            self._damaged.set()
        return told

    async def damage(self) -> NoReturn:
        """Waits until a call meets damage, and raises that StoreDamagedError."""
        await self._damaged.wait()
        assert self._damage is not None
        raise self._damage

    def _count_relief(self) -> None:
        given_up, self._reserve.given_up = self._reserve.given_up, 0
        if given_up:
            self._metrics.count("store.ballast_given_up", given_up)

    def _fail(self, jobs: Sequence[_Job], error: Exception) -> None:
        self._metrics.count("store.failed", len(jobs))
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(error)

    def _write_with_relief(self, db: sqlite3.Connection, write: Callable[[sqlite3.Connection], T]) -> T:
        """Once more, where the disk was full and there was something to give up."""
        try:
            return write(db)
        except sqlite3.Error as error:
            if not self._reserve.relieve(error, db):
                raise
        return write(db)

    def _transaction(self, db: sqlite3.Connection, works: Sequence[Work[Any]]) -> tuple[list[Any], Counter[str]]:
        self._reserve.restore(db)  # before: where no write succeeds, nothing else would see that there is room again
        return self._write_with_relief(db, lambda db: self._attempt(db, works))

    def _attempt(self, db: sqlite3.Connection, works: Sequence[Work[Any]]) -> tuple[list[Any], Counter[str]]:
        ledger = self._ledger
        if ledger.stale:
            ledger.load(db)
        db.execute("BEGIN IMMEDIATE")
        try:
            results = [work(db, ledger) for work in works]
            ledger.save(db)
            db.execute("COMMIT")
        except BaseException:
            ledger.stale = True
            if db.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
                db.execute("ROLLBACK")
            raise
        ledger.era_on_disk = ledger.era
        dropped = Counter[str]()
        for (_, _, reason), n in ledger.dropped.items():
            dropped[reason] += n
        ledger.dropped.clear()
        return results, dropped
