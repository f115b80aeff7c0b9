"""The folder of handler files: each change goes through the loader, and the plan follows what can be used."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from watchfiles import awatch

from edgefn import loader, manifest
from edgefn.clock import Clock, SystemClock
from edgefn.config import StreamSettings
from edgefn.errors import Finding
from edgefn.gateway import file_checks
from edgefn.gateway.halted import Halted
from edgefn.gateway.handler_commands import NoHandlerError
from edgefn.gateway.loading import Loader
from edgefn.gateway.states import HandlerFile, states
from edgefn.gateway.streams import overridden
from edgefn.gateway.strikes import STRIKES, Strikes
from edgefn.gateway.texts import Text, text_of
from edgefn.gateway.versions import Kept, VersionError, Versions, content_of
from edgefn.manifest import ActiveFunction, FunctionManifest, HandlerManifest, Manifest, Progress
from edgefn.settled import Settling

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.5  # seconds until a file that somebody still writes is looked at again

Tell = Callable[[str, Any], Awaitable[None]]


class HandlerFiles:
    """Watches one folder. `tell(name, state)` publishes a handler's state; `changed()` is called when the plan is.

    state: the folder in which good versions, and what is paused, are kept over restarts; None: they are not.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        tell: Tell,
        changed: Callable[[], None],
        streams: Sequence[StreamSettings] = (),
        *,
        state: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.folder = folder
        self.versions = Versions(state)
        self._streams = streams
        self._cache = cache
        self._loader = Loader(cache)
        self._tell = tell
        self._changed = changed
        self._halted = Halted(state)
        self._strikes = Strikes(clock)
        self._settling = Settling(clock)
        self._owners = file_checks.trusted_owners()
        self._files: dict[Path, HandlerFile] = {}
        self._unsettled: set[Path] = set()
        self._look_again = asyncio.Event()  # set while there are any
        self._lock = asyncio.Lock()  # the watch begins before the first load is through
        self._ran: dict[str, dict[str, HandlerManifest]] = {}  # version → handlers by name; a few hundred bytes a save
        self._meters: dict[str, Any] = {}
        self._samples: dict[str, Any] = {}
        self._told: dict[str, Any] = {}

    # What runs

    def active(self) -> list[Manifest]:
        """The manifests of the plan, without what is in quarantine and without a second handler of a name."""
        manifests = [one.active for one in self._sorted() if one.active is not None]
        refused = {(finding.file, finding.line) for finding in manifest.conflicts(manifests)}

        def runs(file: Manifest, handler: HandlerManifest | FunctionManifest) -> bool:
            name = handler.name
            stopped = self._halted.is_paused(name) or self._halted.is_quarantined(name, file.version)
            return not stopped and (file.file, handler.line) not in refused

        def compiled(file: Manifest) -> tuple[HandlerManifest, ...]:
            kept: dict[str, HandlerManifest] = {}
            for handler in file.handlers:  # in the order of lines: what a handler builds on stands above it
                if runs(file, handler) and (handler.parent is None or handler.parent in kept):
                    kept[handler.name] = handler
            return tuple(kept.values())

        def python(file: Manifest) -> tuple[FunctionManifest, ...]:
            return tuple(one for one in file.functions if one.options.enabled and runs(file, one))

        return [msgspec.structs.replace(one, handlers=compiled(one), functions=python(one)) for one in manifests]

    def functions(self) -> list[ActiveFunction]:
        """The Python handlers that run now."""
        return [
            ActiveFunction(function, path, file.version, self._files[path].source or path)
            for file in self.active()
            for path in (Path(file.file),)
            for function in file.functions
        ]

    def handler(self, name: str, version: str) -> HandlerManifest:
        """A handler of a file's version that runs or ran: what it has put out may come when it has gone. Raises KeyError."""
        return self._ran[version][name]

    def _sorted(self) -> list[HandlerFile]:
        return [one for _, one in sorted(self._files.items())]

    @property
    def machine_code(self) -> Path | None:
        """Where the engine finds its own loops; None: numba has to compile them."""
        return self._loader.machine_code

    # What changes

    async def load_all(self) -> None:
        """Loads the folder as it is now; an empty one is made where there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._loader.prepare()
        await self._take(file_checks.handler_files(self.folder))
        if self._unsettled:
            # Where the kernel cannot say who writes a file, and the clock was not set yet, all of them are looked at twice.
            await asyncio.sleep(LOOK_AGAIN)
            await self.take_unsettled()
        for name in self.versions.names() - self._told.keys():
            await self._tell(name, None)  # it went while the gateway was off, and the broker may still say what it was
        self.versions.prune({path.stem for path in file_checks.handler_files(self.folder)})

    async def watch(self) -> None:
        """Follows the folder until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle())
            async for changes in awatch(self.folder, recursive=False, step=500, debounce=1000, rust_timeout=60_000):
                await self._take(
                    path for path in {Path(name) for _, name in changes} if file_checks.is_handler_file(path)
                )

    async def _settle(self) -> None:
        """Looks again at what somebody still wrote, until nobody does; waits where there is nothing."""
        looks = 0
        while True:
            if not self._unsettled:
                self._look_again.clear()
                looks = 0
            await self._look_again.wait()
            await asyncio.sleep(LOOK_AGAIN if looks < 20 else 10 * LOOK_AGAIN)  # whoever keeps it open may forget it
            looks += 1
            await self.take_unsettled()

    async def take_unsettled(self) -> None:
        """Loads what was half written before, as far as it is complete now."""
        await self._take(self._unsettled)

    async def _take(self, paths: Iterable[Path]) -> None:
        """Loads those of the files that are there and retires the others: first all that needs no time."""
        paths = sorted(paths)
        self._note(paths)
        await self.tell_all()  # others may be compiling for a while
        async with self._lock:
            self._note(paths)
            # A file that was renamed has gone under one name and come under another: the plan has its handlers all along.
            is_changed = any([self._retire(path) for path in paths if not os.path.lexists(path)])
            there = [path for path in paths if path in self._files and self._is_settled(path)]
            slow = [path for path in there if self._takes_time(path)]
            for path in there:
                if path not in slow and await self._load(path):
                    is_changed = True
            await self._tell_changes(is_changed)
            for path in slow:
                await self._tell_changes(await self._load(path))

    def _note(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if os.path.lexists(path):
                self._files.setdefault(path, HandlerFile(path)).under_way = "new"

    async def _tell_changes(self, is_changed: bool) -> None:
        if is_changed:
            self._changed()
        await self.tell_all()

    def _is_settled(self, path: Path) -> bool:
        if not self._settling.is_being_written(path):
            self._unsettled.discard(path)
            return True
        if path not in self._unsettled:
            log.info("%s is still being written: it is loaded when it is complete", path.name)
            self._unsettled.add(path)
            self._look_again.set()
        return False

    def _retire(self, path: Path) -> bool:
        self._unsettled.discard(path)
        gone = self._files.pop(path, None)
        if gone is None or gone.active is None:
            return False
        log.info("%s is gone: its handlers are retired", path.name)
        return True

    # One file

    def _takes_time(self, path: Path) -> bool:
        text = text_of(path, self._owners, self.versions)
        return not isinstance(text, Finding) and loader.cached(text.source, self._cache) is None

    async def _load(self, path: Path) -> bool:
        """Whether the plan has changed."""
        file, text = self._files[path], text_of(path, self._owners, self.versions)
        if isinstance(text, Finding):
            latest = Manifest(str(path), findings=(text,))
        else:
            latest = await self._manifest(file, text.source)
        if not os.path.lexists(path):
            log.warning("%s was renamed or removed while it was read", path.name)
            return self._retire(path)
        file.latest, file.under_way = latest, None
        if isinstance(text, Finding) or not latest.ok:
            return await self._refuse(file)
        if latest.version != loader.version_of(text.data):
            log.info("%s has changed while it was loaded, and is loaded again", path.name)
            self._unsettled.add(path)
            self._look_again.set()
            file.under_way = "new"
            return False
        return await self._activate(file, latest, text)

    async def _manifest(self, file: HandlerFile, source: Path) -> Manifest:
        async def told(progress: Progress) -> None:
            file.under_way = progress
            await self.tell_all()

        found = loader.cached(source, self._cache)
        if found is None:
            await told(Progress("compiling", 0, 0))
            found = await self._loader.load(source, told)
        return overridden(msgspec.structs.replace(found, file=str(file.path)), self._streams)

    async def _activate(self, file: HandlerFile, latest: Manifest, text: Text) -> bool:
        is_new = file.active is None or file.active.version != latest.version
        stem = file.path.stem
        names: dict[str, str] = {one.name: one.kind for one in latest.everything}
        kept = Kept(latest.version, text.content, names)
        try:
            await asyncio.to_thread(self.versions.keep, stem, kept, text.data, is_of_file=not text.is_rolled_back)
        except OSError as error:
            log.error("%s: this version cannot be kept to go back to it: %s", file.path.name, error)
        file.active, file.rolled_back = latest, text.is_rolled_back
        file.source = self.versions.source(stem, latest.version)
        self._ran[latest.version] = {handler.name: handler for handler in latest.handlers}
        took = f" (compiled in {latest.seconds:.1f} s)" if latest.seconds else ""
        log.info("%s: %s%s", file.path.name, ", ".join(names), took)
        return is_new

    async def _refuse(self, file: HandlerFile) -> bool:
        """Tells what is wrong. At a start the last good version runs, as it would have without one."""
        assert file.latest is not None
        refused, is_changed = file.latest, False
        if file.active is None:
            for kept in reversed(self.versions.kept(file.path.stem)):
                source = self.versions.source(file.path.stem, kept.version)
                latest = await self._manifest(file, source) if source else refused
                if source and latest.ok:
                    data = source.read_bytes()
                    is_changed = await self._activate(file, latest, Text(source, data, kept.content, ""))
                    break
        file.latest, file.under_way, file.rolled_back = refused, None, False
        for finding in refused.findings:
            log.error("%s%s", finding, "; the version before keeps running" if file.active else "")
        return is_changed

    # What goes wrong, and what operators do about it

    async def strike(self, name: str, why: str) -> None:
        """A handler took down what runs it. The third time within ten minutes it goes into quarantine."""
        file = next((one for one in self.active() if name in _names(one)), None)
        if file is None:
            return
        n = self._strikes.add(name, file.version)
        log.error("%s: the engine %s while it ran this handler (%d of %d)", name, why, n, STRIKES)
        if n >= STRIKES:
            self._halted.quarantine(name, file.version)
            log.error("%s is in quarantine: change %s or send cmd/resume, and it is tried again", name, file.file)
            self._changed()
        await self.tell_all()

    async def pause(self, name: str) -> None:
        """Takes a handler out of the plan until `resume`, also over restarts. Raises NoHandlerError."""
        self._file_of(name)
        await asyncio.to_thread(self._halted.pause, name)
        await self._tell_changes(True)

    async def resume(self, name: str) -> None:
        """Lets a paused handler, or one in quarantine, run again. Raises NoHandlerError."""
        self._file_of(name)
        await asyncio.to_thread(self._halted.resume, name)
        self._strikes.forget(name)
        await self._tell_changes(True)

    async def roll_back(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Runs the version before, or a given one, until the file changes; `name` is that of a handler or a file.

        Raises NoHandlerError, and VersionError where there is no such version.
        """
        async with self._lock:
            file = self._file_of(name, or_file=True)
            before = file.active.version if file.active else ""
            to = self.versions.find(file.path.stem, version, before or None)
            try:
                content = content_of(loader.plain(file.path.read_bytes()))
                await asyncio.to_thread(self.versions.roll_back, file.path.stem, content, to)
            except OSError as error:
                raise VersionError(f"{file.path.name}: {error}; nothing was changed") from error
            log.warning("%s goes back to version %s", file.path.name, to.version)
            await self._tell_changes(await self._load(file.path))
            if file.active is None or not file.latest or not file.latest.ok:
                raise VersionError(f"{file.path.name}: version {to.version} cannot be used any more; see the log")
            return {
                "file": str(file.path),
                "from": before,
                "to": file.active.version,
                "handlers": sorted(_names(file.active)),
            }

    def versions_of(self, name: str) -> list[dict[str, Any]]:
        """The good versions of a handler's file that are kept, the newest first."""
        told = self._told.get(name)
        return self.versions.told(Path(told["file"]).stem, told.get("version")) if told else []

    def _file_of(self, name: str, *, or_file: bool = False) -> HandlerFile:
        for file in self._sorted():
            if file.active is not None and name in _names(file.active):
                return file
            if or_file and name in (file.path.name, str(file.path)):
                return file
        raise NoHandlerError(f"there is no handler {name!r}" + (" and no such file" if or_file else ""))

    # What is told

    async def tell_all(self, meters: dict[str, Any] | None = None, samples: dict[str, Any] | None = None) -> None:
        """Publishes the state of every handler, and of every file that has none, where it has changed."""
        self._meters = self._meters if meters is None else meters
        self._samples = self._samples if samples is None else samples
        running = {name for file in self.active() for name in _names(file)}
        now = states(self._sorted(), running, self._halted, self._strikes, self._meters, self._samples)
        before, self._told = self._told, now
        for name, state in before.items():
            if name not in now:
                if "kind" in state:
                    await self._tell(name, {**state, "state": "retired"})
                await self._tell(name, None)
        for name, state in now.items():
            if before.get(name) != state:
                await self._tell(name, state)

    def states(self) -> dict[str, Any]:
        return self._told


def _names(file: Manifest) -> set[str]:
    return {handler.name for handler in file.everything}
