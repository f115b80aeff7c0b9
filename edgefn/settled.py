"""Whether somebody still writes a file: the kernel is asked, and where it cannot tell, whether the file changes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from pathlib import Path

from edgefn.clock import NS, Clock, SystemClock

QUIET = NS // 2  # how long size and mtime have to stay as they are, where nobody can be asked
MAX_SEEN = 10_000  # files that are remembered between two looks


class Settling:
    """Looks at files again and again, and remembers those that only time can tell about."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[Path, tuple[int, int, int]] = {}  # size, mtime, and since when they are so

    def is_being_written(self, path: Path) -> bool:
        """False also for what is not there or cannot be opened: whoever reads it then says why."""
        try:
            # Not to wait for the other end of a pipe that lies in the folder.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._seen.pop(path, None)
            return False
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return False
            has_writer = _has_writer(fd)
        finally:
            os.close(fd)
        return self._changes(path, status) if has_writer is None else has_writer

    def _changes(self, path: Path, status: os.stat_result) -> bool:
        if self._clock.now() - status.st_mtime_ns >= QUIET:
            self._seen.pop(path, None)
            return False  # it says so itself; where its time is in the future, one of the clocks is wrong
        now = self._clock.monotonic()
        size, mtime, since = self._seen.pop(path, (-1, -1, now))
        if (size, mtime) != (status.st_size, status.st_mtime_ns):
            since = now
            if len(self._seen) >= MAX_SEEN:
                del self._seen[next(iter(self._seen))]  # it is looked at afresh: later, never too early
        elif now - since >= QUIET:
            return False
        self._seen[path] = (status.st_size, status.st_mtime_ns, since)
        return True


def _has_writer(fd: int) -> bool | None:
    """None where the kernel cannot say: a network file system, or a file of another user (fcntl(2), leases)."""
    try:
        # A writer that opens the file in this very moment breaks the lease, which is told by a signal; SIGIO, which
        # it is by default, ends a process that does not expect it, and nobody minds SIGURG.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


_shared = Settling(SystemClock())


def is_being_written(path: Path) -> bool:
    """Whether to look at the file again a moment later, before it is read."""
    return _shared.is_being_written(path)
