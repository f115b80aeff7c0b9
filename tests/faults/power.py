"""From a log of what was written to what is on the disk after the power goes at one moment of it.

The model of the disk: what was written before the last successful fsync of its file is there. Of what came after, each
sector of 512 bytes is the new one or the old one, a change of size happened or not, and where the file is longer than what
was written it is zeros. Creating, renaming and removing happen in their order, and are sure after an fsync of the folder.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("<cQQI")


@dataclass(frozen=True, slots=True)
class Record:
    """One call: open or create a file, write, truncate, sync, rename, remove."""

    kind: str
    inode: int
    number: int  # an offset or a size
    data: bytes

    @property
    def paths(self) -> list[str]:
        return self.data.decode().split("\0")


def records(log: Path) -> list[Record]:
    data = log.read_bytes()
    found, at = [], 0
    while at + _HEAD.size <= len(data):
        kind, inode, number, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        found.append(Record(kind.decode(), inode, number, data[at : at + length]))
        at += length
    return found


@dataclass(slots=True, eq=False)
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for record in self.pending:
            _apply(self.safe, record)
        self.pending.clear()

    def after_a_cut(self, rng: random.Random) -> bytes:
        content, pending = bytearray(self.safe), self.pending
        fate = rng.choice(("nothing more", "all of it", "up to a moment", "here and there", "here and there"))
        if fate == "all of it" or not pending:
            chance = 1.0
        elif fate == "nothing more":
            return bytes(content)
        elif fate == "up to a moment":
            last = rng.randrange(len(pending))
            for record in pending[:last]:
                _apply(content, record)
            pending, chance = pending[last : last + 1], 0.5
        else:
            chance = rng.uniform(0.05, 0.95)
        longest = len(content)
        for record in pending:
            if record.kind == "T":
                if rng.random() < chance:
                    _apply(content, record)
                continue
            for sector in _sectors(record):
                if rng.random() < chance:
                    _apply(content, sector)
            longest = max(longest, record.number + len(record.data))
        if fate == "here and there" and longest > len(content) and rng.random() < 0.5:
            content.extend(bytes(rng.randrange(longest - len(content) + 1)))
        return bytes(content)


def _apply(content: bytearray, record: Record) -> None:
    if record.kind == "T":
        content[record.number :] = bytes(max(0, record.number - len(content)))
        return
    end = record.number + len(record.data)
    if len(content) < record.number:
        content.extend(bytes(record.number - len(content)))
    content[record.number : end] = record.data


def _sectors(record: Record) -> Iterator[Record]:
    """A write in pieces that end where the disk's sectors do."""
    at = 0
    while at < len(record.data):
        offset = record.number + at
        size = min(SECTOR - offset % SECTOR, len(record.data) - at)
        yield Record("W", record.inode, offset, record.data[at : at + size])
        at += size


Names = dict[str, _File]


class Disk:
    """A folder, by name and content, under the calls of a log: `advance` by one, `cut` as often as you like."""

    def __init__(self, folder: Path, before: dict[str, bytes]) -> None:
        self._folder = f"{folder}/"
        self._names: Names = {self._folder + name: _File(bytearray(content)) for name, content in before.items()}
        self._safe_names = dict(self._names)
        self._changes: list[tuple[Record, _File | None]] = []  # of names, since the folder was synced
        self._inodes: dict[int, _File] = {}

    def advance(self, record: Record) -> None:
        match record.kind:
            case "W" | "T":
                self._inodes[record.inode].pending.append(record)
            case "S":
                self._inodes[record.inode].sync()
            case "D":
                for change in self._changes:
                    _change(self._safe_names, *change)
                self._changes.clear()
            case "O":
                self._inodes[record.inode] = self._names[record.paths[0]]
            case _:
                file = _File() if record.kind == "C" else None
                if file is not None:
                    self._inodes[record.inode] = file
                self._changes.append((record, file))
                _change(self._names, record, file)

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """What is found when the power is back, by name."""
        names = dict(self._safe_names)
        for change in self._changes[: rng.randrange(len(self._changes) + 1)]:
            _change(names, *change)
        return {path.removeprefix(self._folder): file.after_a_cut(rng) for path, file in names.items()}


def _change(names: Names, record: Record, file: _File | None) -> None:
    if file is not None:
        names[record.paths[0]] = file
    elif record.kind == "R":
        names[record.paths[1]] = names.pop(record.paths[0])
    else:
        del names[record.paths[0]]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(content: dict[str, bytes], folder: Path) -> None:
    """The folder has these files and no others."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
