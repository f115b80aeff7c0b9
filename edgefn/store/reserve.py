"""Room kept for the bad day: a file beside the store that is given up when the disk is full, and a bound on the store."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edgefn.clock import NS
from edgefn.store.files import sync_folder, wal_path
from edgefn.store.schema import LOG_SIZE, page_size

log = logging.getLogger(__name__)

SIZE = 8 << 20
LEAST = 256 << 10  # less is no use
_BLOCK = 4096  # of the file system
LOOK_EVERY = 10 * NS
_LEAN_LOG_SIZE = 128 << 10  # before what it holds is copied into the file
_LEAN_LOG = 1 << 20  # enough for the acknowledgement of any batch


def free_room(folder: Path) -> int:
    """Bytes that a program without privileges can still write."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class Ballast:
    """A file that takes up room, never more than a tenth of what is free, so that there is some to give back."""

    def __init__(self, path: Path, size: int, free: Callable[[Path], int] = free_room) -> None:
        self.path = path.with_name(path.name + ".ballast")
        self._size = size
        self._free = free

    @property
    def held(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def free(self) -> int:
        return self._free(self.path.parent)

    def has_room(self, share: int) -> bool:
        """Whether a `share`th part of what is free is worth being kept."""
        return self.free // share >= min(LEAST, self._size or LEAST)

    def make(self, share: int = 10) -> None:
        """Takes its room, where there is some."""
        if not self.held and self._size and self.has_room(share):
            self.take(min(self._size, self.free // share) // _BLOCK * _BLOCK)

    def take(self, size: int) -> None:
        """Takes that many bytes, if it can. Allocated and not sparse; unwritten blocks do, and spare the card."""
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(fresh, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            log.warning("%s: %d bytes cannot be kept for a full disk (%s)", self.path, size, error.strerror)
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def fit(self) -> None:
        """Gives back what a smaller setting does not want any more."""
        if self.held > self._size:
            self.give_up()

    def give_up(self) -> None:
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)


class Reserve:
    """What a connection may write: the bound of the file as its last line of defence, and less while the disk is full.

    In WAL mode even a deletion needs room first. When a write finds none, the ballast goes, its room becomes that of the
    log, and the store is *lean*: the file does not grow, and the log is used from its beginning again and again.
    Deletions make room inside the file, which new items then use. Over a stop the log's room is ballast again. Lean ends
    when the disk has room for a ballast of its own. Used in SQLite's thread only.
    """

    def __init__(self, path: Path, ballast: Ballast, max_bytes: int, monotonic: Callable[[], int]) -> None:
        self._log = wal_path(path)
        self.ballast = ballast
        self.lean = False
        self.given_up = 0  # how often
        # Measured: rows of 100 bytes take 1.4 times their payload, of 2,100 bytes twice. Saved state comes on top.
        self._bound = 2 * max_bytes + (64 << 20)
        self._monotonic = monotonic
        self._next_look = 0
        self._held = 0  # by the ballast, before it was given up

    def prepare(self, db: sqlite3.Connection) -> None:
        """Sets the limits of a connection that was just opened, and takes the ballast's room."""
        if self.lean:
            self._shrink(db)
            return
        self.ballast.fit()
        self.ballast.make()
        self._grow(db)

    def relieve(self, error: Exception, db: sqlite3.Connection | None = None) -> bool:
        """After a failed write: gives up the ballast if the disk is full. True where trying again makes sense."""
        try:
            return self._relieve(error, db)
        except OSError:  # a disk that does not even say how full it is: `error` is what is told of it
            return False

    def _relieve(self, error: Exception, db: sqlite3.Connection | None) -> bool:
        held = self.ballast.held
        if self.lean and not held:
            return False
        if not self._is_full(error, held, db):
            return False
        self.ballast.give_up()
        self._held = held
        self.lean = True
        self.given_up += 1
        self._next_look = self._monotonic() + LOOK_EVERY
        if db is not None:
            self._shrink(db)
        log.error(
            "%s: the disk is full; make room on it. The %d bytes of ballast are given back, so that what waits can be "
            "sent and deleted; the store does not grow until there is room",
            self.ballast.path.parent,
            held,
        )
        return True

    def _is_full(self, error: Exception, held: int, db: sqlite3.Connection | None) -> bool:
        """Not for the bound of the file, which SQLite reports alike, nor for an I/O error while there is room."""
        if isinstance(error, OSError):
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = getattr(error, "sqlite_errorname", "") or ""
        if name == "SQLITE_FULL":
            if db is None:
                return True
            bound, pages = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("max_page_count", "page_count"))
            return bool(bound - pages > LOG_SIZE // page_size(db))
        return name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and self.ballast.free < max(held, LOG_SIZE)

    def restore(self, db: sqlite3.Connection) -> None:
        """Before a write: takes the room again, every ten seconds at the most, and only where there is twice of it."""
        if not self.lean or self._monotonic() < self._next_look:
            return
        self._next_look = self._monotonic() + LOOK_EVERY
        with contextlib.suppress(OSError):  # a disk that does not say how much room it has has none
            if not self.ballast.has_room(share=20):
                return
            self.ballast.make(share=20)
            self._grow(db)
            log.warning("%s: there is room on the disk again", self.ballast.path.parent)

    def room_of_log(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def keep(self, size: int) -> None:
        """After the end on a full disk: keeps what the log gave back, since the next start needs one."""
        if self.lean and size and not self.ballast.held:
            self.ballast.take(size)

    def _grow(self, db: sqlite3.Connection) -> None:
        self.lean = False
        # A checkpoint must be able to finish on what the ballast gives back.
        log_size, size = min(LOG_SIZE, self.ballast.held // 2) or LOG_SIZE, page_size(db)
        db.execute(f"PRAGMA max_page_count = {self._bound // size}")
        db.execute(f"PRAGMA wal_autocheckpoint = {log_size // size}")

    def _shrink(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LEAN_LOG_SIZE // page_size(db)}")
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("PRAGMA wal_checkpoint(RESTART)")  # not TRUNCATE: what the log has is room to write in
        # Before another program takes what the ballast gave back. SQLite ends a log at the first frame that is not one.
        with contextlib.suppress(OSError):
            if not self._held:
                return
            fd = os.open(self._log, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.posix_fallocate(fd, 0, min(self._held, _LEAN_LOG))
            finally:
                os.close(fd)
