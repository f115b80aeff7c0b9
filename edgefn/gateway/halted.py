"""Which handlers do not run because an operator paused them or because they went into quarantine, also over restarts."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edgefn.gateway import small_files

log = logging.getLogger(__name__)

FILE = "handlers.json"  # in the folder of the state


class _Kept(msgspec.Struct):
    paused: list[str] = []
    quarantined: dict[str, str] = {}


class Halted:
    """Names of handlers. `state` None: nothing is kept. What the disk refuses holds until the next start, and is told."""

    def __init__(self, state: Path | None) -> None:
        self._path = None if state is None else state / FILE
        kept = (small_files.read(self._path, _Kept) if self._path else None) or _Kept()
        self._paused = set(kept.paused)
        self._quarantined = dict(kept.quarantined)  # name → version: another one is tried

    def is_paused(self, name: str) -> bool:
        return name in self._paused

    def is_quarantined(self, name: str, version: str) -> bool:
        return self._quarantined.get(name) == version

    def pause(self, name: str) -> None:
        if name not in self._paused:
            self._paused.add(name)
            self._save()

    def quarantine(self, name: str, version: str) -> None:
        self._quarantined[name] = version
        self._save()

    def resume(self, name: str) -> None:
        """Lifts both."""
        if name in self._paused or name in self._quarantined:
            self._paused.discard(name)
            self._quarantined.pop(name, None)
            self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        try:
            small_files.write(self._path, _Kept(sorted(self._paused), self._quarantined))
        except OSError as error:
            log.error("%s: %s; which handlers are paused holds until the next start only", self._path, error.strerror)
