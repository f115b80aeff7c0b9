"""The last good versions of each handler file, kept as source, so that an operator can go back to one."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import msgspec

from edgefn.errors import EdgefnError
from edgefn.gateway import small_files

log = logging.getLogger(__name__)

FOLDER = "versions"  # in the folder of the state
KEPT = 3  # good versions of each file
ORPHANS = 20  # files that are not there any more, whose versions are kept all the same: they may come back
INDEX = "index.json"


class VersionError(EdgefnError, LookupError):
    """There is no such version to go back to. The message says which there are."""


class Kept(msgspec.Struct, frozen=True):
    """One good version."""

    version: str
    content: str  # the hash of the source: a version's name is of edgefn and the CPU as well
    handlers: dict[str, str] = {}  # name → kind


class RolledBack(msgspec.Struct, frozen=True):
    """What an operator wants to run instead of the file, as long as the file is what it was."""

    content: str  # of the file
    version: str


class _Index(msgspec.Struct):
    kept: list[Kept] = []  # the newest last
    rolled_back: RolledBack | None = None


def content_of(source: bytes) -> str:
    return hashlib.blake2b(source, digest_size=16).hexdigest()


class Versions:
    """One folder for each handler file: sources under their version, and an index. `state` None: nothing is kept."""

    def __init__(self, state: Path | None) -> None:
        self._folder = None if state is None else state / FOLDER
        self._indexes: dict[str, _Index] = {}

    def kept(self, stem: str) -> list[Kept]:
        """Of a file, by its name without .py; the newest last."""
        return list(self._index(stem).kept)

    def told(self, stem: str, running: str | None) -> list[dict[str, Any]]:
        """For operators, the newest first."""
        return [
            {"version": one.version, "running": one.version == running, "handlers": sorted(one.handlers)}
            for one in reversed(self.kept(stem))
        ]

    def source(self, stem: str, version: str) -> Path | None:
        """Where the text of a version is; None where it is not kept."""
        if self._folder is None or all(one.version != version for one in self._index(stem).kept):
            return None
        path = self._path(stem, version)
        return path if path.is_file() else None

    def keep(self, stem: str, new: Kept, source: bytes, *, is_of_file: bool = True) -> None:
        """Notes that a version is good. Without `is_of_file` it runs after a rollback, and keeps its place."""
        index = self._index(stem)
        if self._folder is None:
            return
        before = next((one for one in index.kept if one.content == new.content), None)
        if before == new and (not is_of_file or index.kept[-1] == new) and self._path(stem, new.version).is_file():
            return
        kept = [one for one in index.kept if one.content != new.content]
        place = index.kept.index(before) if before is not None and not is_of_file else len(kept)
        kept.insert(place, new)
        rolled_back = index.rolled_back
        if rolled_back and before and rolled_back.version == before.version:
            rolled_back = msgspec.structs.replace(rolled_back, version=new.version)
        small_files.write_bytes(self._path(stem, new.version), source)
        self._save(stem, _Index(kept[-KEPT:], rolled_back))

    def wanted(self, stem: str, content: str) -> str | None:
        """The version that runs instead of a file with this content; None: the file itself."""
        rolled_back = self._index(stem).rolled_back
        return rolled_back.version if rolled_back and rolled_back.content == content else None

    def see(self, stem: str, content: str) -> None:
        """A rollback is over when the file has another content."""
        rolled_back = self._index(stem).rolled_back
        if rolled_back and rolled_back.content != content:
            self.forget_rollback(stem)

    def find(self, stem: str, version: str | None, running: str | None) -> Kept:
        """The version of a name (or its beginning), or the one before what runs. Raises VersionError."""
        kept = self._index(stem).kept
        if version is not None:
            found = [one for one in kept if one.version.startswith(version)]
            if version and len(found) == 1:
                return found[0]
            there = ", ".join(one.version for one in reversed(kept)) or "none"
            what = (
                f"several kept versions begin with {version!r}" if found else f"no kept version is called {version!r}"
            )
            raise VersionError(f"{stem}.py: {what}; there are {there}")
        names = [one.version for one in kept]
        older = kept[: names.index(running)] if running in names else kept
        if not older:
            raise VersionError(f"{stem}.py: no version before {running or 'it'} is kept")
        return older[-1]

    def roll_back(self, stem: str, content: str, to: Kept) -> None:
        """Runs a version instead of the file, while that has this content. Raises OSError where that cannot be kept."""
        index = self._index(stem)
        # Of a file that has just this content, nothing is to be remembered: it runs by itself.
        self._save(stem, _Index(index.kept, None if to.content == content else RolledBack(content, to.version)))

    def forget_rollback(self, stem: str) -> None:
        try:
            self._save(stem, _Index(self._index(stem).kept, None))
        except OSError as error:
            log.error("%s.py: that a rollback is over cannot be noted: %s", stem, error)

    def names(self) -> set[str]:
        """Of all handlers in versions that are kept, also of files that have gone."""
        stems = [path.name for path in self._folders()]
        return {name for stem in stems for one in self._index(stem).kept for name in one.handlers}

    def prune(self, there: set[str]) -> None:
        """Gives up versions of files that have gone, but for the newest few."""
        gone = [path for path in self._folders() if path.name not in there]
        for path in gone[ORPHANS:]:
            shutil.rmtree(path, ignore_errors=True)
            self._indexes.pop(path.name, None)

    def _folders(self) -> list[Path]:
        """The newest first."""
        try:
            found = [(path.stat().st_mtime, path) for path in self._folder.iterdir()] if self._folder else []
        except FileNotFoundError:
            return []  # nothing was kept yet
        except OSError as error:
            log.error("%s: which versions are kept cannot be read: %s", self._folder, error.strerror)
            return []
        return [path for _, path in sorted(found, reverse=True)]

    def _path(self, stem: str, version: str) -> Path:
        assert self._folder is not None
        return self._folder / stem / f"{version}.py"

    def _index(self, stem: str) -> _Index:
        if stem not in self._indexes:
            read = self._folder and small_files.read(self._folder / stem / INDEX, _Index)
            self._indexes[stem] = read or _Index()
        return self._indexes[stem]

    def _save(self, stem: str, index: _Index) -> None:
        """The index first: a source that nobody knows is removed below, or with the next save."""
        self._indexes[stem] = index
        if self._folder is None:
            return
        folder = self._folder / stem
        small_files.write(folder / INDEX, index)
        known = {f"{one.version}.py" for one in index.kept} | {INDEX}
        for path in folder.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)
