"""The files of damaged stores: out of the way under a name with the time, taken over, and in the end removed."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from pathlib import Path

from edgefn.clock import NS
from edgefn.store.files import sync_folder, wal_path

log = logging.getLogger(__name__)

KEEP = 2
_DONE = "-salvaged"
_BESIDE = ("-wal", "-shm", ".page1")


def all_of(path: Path) -> list[Path]:
    """The set-aside files of the store at `path`, by the time in their names."""
    found = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(file for file in found if not file.name.endswith(_BESIDE))


def pending(path: Path) -> list[Path]:
    """Those from which not everything that can be read has been taken over yet."""
    return [file for file in all_of(path) if not file.name.endswith(_DONE)]


def set_aside(path: Path, now: int) -> Path:
    """Moves a damaged database and its log out of the way; `now` in ns. Returns the new name.

    The database first: while it is gone and its log is not, `complete` knows what was going on. The other way round
    a power cut in between would leave a store that opens, without its newest commits.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // NS))
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    n = 1
    while target.exists() or _done(target).exists():
        n += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{n}")
    os.rename(path, target)
    with contextlib.suppress(FileNotFoundError):
        os.rename(wal_path(path), wal_path(target))
    sync_folder(path.parent)
    return target


def complete(path: Path) -> None:
    """Finishes what a power cut left half done: a log whose database is set aside already follows it.

    SQLite would delete the log of a database that is not there.
    """
    if path.exists() or not wal_path(path).exists():
        return
    for file in reversed(pending(path)):
        if not wal_path(file).exists():
            os.rename(wal_path(path), wal_path(file))
            sync_folder(path.parent)
            return


def finish(file: Path) -> Path:
    """Notes in its name that all that can be read of a set-aside file has been taken over."""
    target = _done(file)
    os.rename(file, target)
    for end in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.rename(file.with_name(file.name + end), target.with_name(target.name + end))
    sync_folder(file.parent)
    return target


def prune(path: Path, spare: Path | None = None) -> None:
    """Removes all but the newest two, which a card has room for and a person may want to look at.

    `spare` stays, too: one that was set aside before the clock was right has the oldest name.
    """
    kept = [*all_of(path)[-KEEP:], *([spare] if spare else [])]
    names = {file.name + end for file in kept for end in ("", *_BESIDE)}
    for file in sorted(path.parent.glob(f"{path.name}.damaged-*")):
        if file.name not in names:
            log.warning("%s is removed: the newest %d damaged stores are kept", file, KEEP)
            file.unlink(missing_ok=True)


def suspect(path: Path) -> Path:
    """The file that says that damage was met while the store was open, so that the next start looks at all of it."""
    return path.with_name(path.name + ".suspect")


def accuse(path: Path, why: str) -> bool:
    """Leaves that file; False where the disk takes not even this: it is the disk then, and nothing is known of the file."""
    try:
        with suspect(path).open("w") as file:
            file.write(why + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # where it is full, the next start may still find the damage by itself
        log.error("%s: that it is damaged cannot be noted (%s)", path, error)
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return True


def _done(file: Path) -> Path:
    return file.with_name(file.name + _DONE)
