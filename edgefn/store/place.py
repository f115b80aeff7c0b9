"""The place where a store is to live: what can be known to go wrong there before a gateway starts. Changes nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from pathlib import Path

from edgefn.errors import Trouble
from edgefn.store import asides, schema
from edgefn.store.files import ADVICE
from edgefn.store.reserve import free_room

_MEMORY = ("tmpfs", "ramfs")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")
_PLAIN = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk")
_AS_USER = "run this as the user that runs edgefn, or make the folder that user's"
_HEADER = 100  # bytes; sqlite.org/fileformat2.html, 1.3


def look(path: Path, ballast: int) -> list[Trouble]:
    """What would keep a store at `path` from working, and what may cost its content. The file need not exist yet."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        findings = _try(folder) if folder == path.parent else _may_be_made(folder, path.parent)
        findings += _header(path)
        if not findings and (free := free_room(folder)) < max(1 << 20, ballast):
            findings.append(f"{path}: only {free} bytes are free on its disk; make room")
    except OSError as error:
        findings = [f"{path}: cannot be looked at ({error.strerror}); {ADVICE.get(error.errno or 0, _AS_USER)}"]
    warnings = _file_system(path, folder)
    for file in asides.pending(path):
        warnings.append(f"{file}: a damaged store; the next start takes over what can be read of it")
    return [*(Trouble(text) for text in findings), *(Trouble(text, fatal=False) for text in warnings)]


def _try(folder: Path) -> list[str]:
    """Writes, syncs and locks a file without a name."""
    if not folder.is_dir():
        return [f"{folder}: is not a folder; set gateway.state to one"]
    what = "written"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            what = "synced to the disk"
            os.fsync(file.fileno())
            what = "locked"
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = _AS_USER if error.errno in (errno.EACCES, errno.EPERM) else "the store needs a local disk, such as ext4"
        return [f"{folder}: a file cannot be {what} there ({error.strerror}); {ADVICE.get(error.errno or 0, other)}"]
    return []


def _may_be_made(exists: Path, wanted: Path) -> list[str]:
    if not exists.is_dir():
        return [f"{wanted}: cannot be made, since {exists} is not a folder; set gateway.state to another"]
    if not os.access(exists, os.W_OK):
        return [f"{wanted}: there is no such folder, and it cannot be made in {exists}; {_AS_USER}"]
    return []


def _header(path: Path) -> list[str]:
    """What the first bytes of the file say; a damaged one is no finding, since a start mends it."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(b"SQLite format 3\0"):
        return []
    if int.from_bytes(header[68:72], "big") not in (schema.APPLICATION_ID, 0):
        return [f"{path}: this is the database of another program; set gateway.state to a folder of its own"]
    if (version := int.from_bytes(header[60:64], "big")) > schema.VERSION:
        return [schema.too_new(path, version)]
    return []


def _file_system(path: Path, folder: Path) -> list[str]:
    kind = _kind(folder.resolve())
    if kind in _MEMORY:
        return [f"{path}: is in memory ({kind}): all of it is gone after a restart; set gateway.state to a disk"]
    if kind == "overlay":
        return [
            f"{path}: is on an overlay file system, whose upper layer is often memory, as with raspi-config: all of it may "
            "be gone after a restart; set gateway.state to a disk"
        ]
    if kind in _NETWORK:
        return [
            f"{path}: is on a network file system ({kind}), where locks and fsync may not hold; set gateway.state to a disk"
        ]
    if kind in _PLAIN:
        return [f"{path}: is on {kind}, which has no journal of its own: a power cut may cost the whole file; use ext4"]
    return []


def _kind(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system of a folder, by proc(5); empty where nobody says."""
    best, kind = -1, ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), left.split()[4]))  # a space is \040
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split()[0]
    return kind
