"""The files beside the database: the lock, and the write-ahead log as a crash has left it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgefn.errors import StoreDiskError, StoreError, StoreInUseError

ADVICE = {  # where an error of the disk has one remedy
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the user's quota is used up: make room",
    errno.EIO: "the disk reports an error: look at the card and the kernel log",
    errno.EROFS: "the disk is mounted read-only, often after an error: look at the kernel log, then mount it for writing",
}


def disk_error(path: Path, error: OSError) -> StoreError:
    """What the disk refuses for now, or what a person must mend, with what to do."""
    kind = StoreDiskError if error.errno in ADVICE else StoreError
    advice = ADVICE.get(error.errno or 0, "make it writable for the user that runs edgefn")
    return kind(f"{path}: cannot write in the folder {path.parent} ({error.strerror}); {advice}")


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def hand_over(path: Path) -> None:
    """Gives a file that root makes to the owner of its folder: an operator's command must not lock the service out."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


class Lock:
    """Held while a store is open, so that a second process is told instead of waiting or damaging anything.

    flock and not a pid file: the kernel releases it when the process dies, however it dies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._store = path
        self._fd = -1

    def acquire(self) -> None:
        """Raises StoreError where the folder cannot be written or another store has the file."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            hand_over(self.path)
        except OSError as error:
            advice = ADVICE.get(error.errno or 0, "make it writable for the user that runs edgefn")
            raise StoreError(
                f"{self._store}: cannot write in the folder {folder} ({error.strerror}); {advice}"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreError(
                    f"{self.path}: cannot be locked ({error.strerror}); the store needs a file system with locks, "
                    "such as ext4 on this machine's own disk"
                ) from error
            who = f"process {holder}" if holder else "another process"
            raise StoreInUseError(
                f"{self._store}: {who} has this store open; stop it first, one gateway runs per folder", who
            ) from error
        with contextlib.suppress(OSError):  # on a full disk the pid is missing from a message, nothing else
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        # The file stays: removing it would let a waiting process lock a name that is no longer there.
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def sync_folder(folder: Path) -> None:
    """Makes new and changed names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class WalTail:
    """Where the write-ahead log has commits, by frame number from 1, whether or not SQLite can still read up to there.

    SQLite ignores all frames after the first damaged one without a word: a flipped bit in the middle cost 200 of 400
    confirmed rows. What it ignores is still in the file, so comparing tells.
    """

    last_commit: int = 0
    readable: bool = True  # the header of the log is in order

    def torn(self, valid_frames: int) -> bool:
        return not self.readable or self.last_commit > valid_frames


_HEADER = 32
_FRAME_HEADER = 24


def read_wal_tail(path: Path) -> WalTail:
    """Reads the log of the database at `path`, before SQLite opens that. Format: sqlite.org/fileformat2.html, 4."""
    try:
        with wal_path(path).open("rb") as file:
            header = file.read(_HEADER)
            size = os.fstat(file.fileno()).st_size
            if size < _HEADER + _FRAME_HEADER:
                return WalTail()
            if not _header_valid(header):
                return WalTail(readable=False)
            page_size = int.from_bytes(header[8:12], "big")
            salts = header[16:24]
            last_commit = 0
            step = _FRAME_HEADER + page_size
            for number, offset in enumerate(range(_HEADER, size - step + 1, step), start=1):
                frame = os.pread(file.fileno(), _FRAME_HEADER, offset)
                if frame[8:16] == salts and frame[4:8] != b"\0\0\0\0":
                    last_commit = number
            return WalTail(last_commit)
    except FileNotFoundError:
        return WalTail()
    except OSError as error:
        raise StoreError(f"{wal_path(path)}: cannot be read ({error.strerror})") from error


def _header_valid(header: bytes) -> bool:
    magic = int.from_bytes(header[:4], "big")
    if magic not in (0x377F0682, 0x377F0683):
        return False
    words = struct.unpack((">" if magic & 1 else "<") + "6I", header[:24])
    s0 = s1 = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    return (s0, s1) == struct.unpack(">2I", header[24:32])
