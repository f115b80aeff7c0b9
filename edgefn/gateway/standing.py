"""The handlers of a gateway that stands still, as far as its folder of handlers and its state folder tell of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from edgefn import loader
from edgefn.gateway import file_checks
from edgefn.gateway.halted import Halted
from edgefn.gateway.handler_commands import NoHandlerError
from edgefn.gateway.versions import Kept, VersionError, Versions, content_of


class StandingHandlers:
    """What is paused, let run or gone back to here holds when the gateway is started. Nothing is loaded."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._state = state
        self._versions = Versions(state)

    @cached_property
    def _halted(self) -> Halted:
        return Halted(self._state)  # read by who asks for handlers: a damaged one is told then

    def states(self) -> dict[str, dict[str, Any]]:
        """Of handlers as the gateway saw their file last; a file that it never could use stands there by itself."""
        told: dict[str, dict[str, Any]] = {}
        for path in file_checks.handler_files(self._folder):
            content = self._content(path)
            to_run = self._to_run(path, content)
            if to_run is None:
                told[path.stem] = {"state": "new", "file": str(path)}
                continue
            for name, kind in to_run.handlers.items():
                state = "paused" if self._halted.is_paused(name) else "standing"
                told[name] = {
                    "state": "quarantined" if self._halted.is_quarantined(name, to_run.version) else state,
                    "kind": kind,
                    "file": str(path),
                    "version": to_run.version,
                    **({"rolled_back": True} if self._versions.wanted(path.stem, content) else {}),
                    # What the gateway will do about it is seen when it is started.
                    **({} if to_run.content == content else {"newest": {"state": "new"}}),
                }
        return told

    def versions_of(self, name: str) -> list[dict[str, Any]]:
        told = self.states().get(name)
        return self._versions.told(Path(told["file"]).stem, told.get("version")) if told else []

    async def pause(self, name: str) -> None:
        self._expect(name)
        self._halted.pause(name)

    async def resume(self, name: str) -> None:
        self._expect(name)
        self._halted.resume(name)

    async def roll_back(self, name: str, version: str | None = None) -> dict[str, Any]:
        path = self._path_of(name)
        content = self._content(path)
        before = self._to_run(path, content)
        to = self._versions.find(path.stem, version, before.version if before else None)
        try:
            self._versions.roll_back(path.stem, content, to)
        except OSError as error:
            raise VersionError(f"{path.name}: {error}; nothing was changed") from error
        return {
            "file": str(path),
            "from": before.version if before else "",
            "to": to.version,
            "handlers": sorted(to.handlers),
        }

    def _to_run(self, path: Path, content: str) -> Kept | None:
        """The version that the gateway will run, or, where the file has changed since it ran, the last that it did."""
        kept = self._versions.kept(path.stem)
        wanted = self._versions.wanted(path.stem, content)
        rolled_back = next((one for one in kept if one.version == wanted), None)
        of_file = next((one for one in kept if one.content == content), None)
        return rolled_back or of_file or (kept[-1] if kept else None)

    @staticmethod
    def _content(path: Path) -> str:
        try:
            return content_of(loader.plain(path.read_bytes()))
        except OSError:
            return ""

    def _expect(self, name: str) -> None:
        if "kind" not in self.states().get(name, {}):
            raise NoHandlerError(f"there is no handler {name!r} that this gateway has ever loaded")

    def _path_of(self, name: str) -> Path:
        for path in file_checks.handler_files(self._folder):
            if name in (path.name, str(path)):
                return path
        self._expect(name)
        return Path(self.states()[name]["file"])
