"""A look into a watched folder: which files there are that may be handed over.

Left out are hidden files, folders, and whatever is no regular file. So are symbolic links, wherever they lead: one to a file of
the folder is a second name of the same, and one that leads out would let whoever may write here have any file read that
the gateway may read. The folder itself may be one.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b

from edgefn.functions.sources.memory import IDENTITY, PLACE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was when it was looked at."""

    folder: str
    name: str
    size: int
    mtime: int  # ns
    identity: bytes  # its folder's place, and what tells it from all other files and versions that were ever there

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look into a folder brought."""

    folder: str
    files: tuple[Found, ...] = ()
    is_whole: bool = True  # all files, not only some by name
    trouble: str = ""  # why nothing can be seen
    is_missing: bool = False  # because the folder is not there
    links: int = 0
    nameless: int = 0
    inode: tuple[int, int] = (0, 0)  # of the folder: another one of the same name has to be watched anew


def place(folder: str) -> bytes:
    return blake2b(folder.encode(errors="surrogateescape"), digest_size=PLACE).digest()


def is_nameless(name: str) -> bool:
    """Its name is no UTF-8, and JSON has no way to say it."""
    return any("\ud800" <= letter <= "\udfff" for letter in name)


def look(folder: str, patterns: Collection[str], names: Collection[str] | None = None) -> Seen:
    """All files whose name fits a pattern, or those of some names; what is not there is left out. May block: for a thread."""
    try:
        status = os.stat(folder)
        inode = status.st_dev, status.st_ino
        entries = list(_all(folder, patterns) if names is None else _some(folder, patterns, names))
    except OSError as error:
        return Seen(
            folder, trouble=(error.strerror or str(error)).lower(), is_missing=isinstance(error, FileNotFoundError)
        )
    files, links, nameless = [], 0, 0
    for name, status in entries:
        if stat.S_ISLNK(status.st_mode):
            links += 1
        elif not stat.S_ISREG(status.st_mode):
            continue
        elif is_nameless(name):
            nameless += 1
        else:
            files.append(_found(folder, name, status))
    return Seen(folder, tuple(files), names is None, links=links, nameless=nameless, inode=inode)


def again(file: Found) -> Found | None:
    """The file as it is now; None: it is gone, or is no file any more. May block."""
    try:
        status = os.lstat(file.path)
    except OSError:
        return None
    return _found(file.folder, file.name, status) if stat.S_ISREG(status.st_mode) else None


def fits(name: str, pattern: str) -> bool:
    return not name.startswith(".") and fnmatchcase(name, pattern)


def _found(folder: str, name: str, status: os.stat_result) -> Found:
    # Here, in the thread: for ten thousand files the event loop would stand still.
    told = f"{folder}/{name}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}".encode()
    identity = place(folder) + blake2b(told, digest_size=IDENTITY - PLACE).digest()
    return Found(folder, name, status.st_size, status.st_mtime_ns, identity)


def _all(folder: str, patterns: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if any(fits(entry.name, pattern) for pattern in patterns):
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    log.debug("%s went away while it was looked at", entry.path)


def _some(folder: str, patterns: Collection[str], names: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
    for name in names:
        if any(fits(name, pattern) for pattern in patterns):
            try:
                yield name, os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                log.debug("%s went away from %s before it was looked at", name, folder)
