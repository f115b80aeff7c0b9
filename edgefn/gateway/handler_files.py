"""The folder of handler files: each change goes through the loader, and the plan follows what can be used."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from watchfiles import Change, awatch

from edgefn import loader, manifest
from edgefn.config import StreamSettings
from edgefn.errors import Finding
from edgefn.gateway.streams import overridden
from edgefn.manifest import ActiveFunction, FunctionManifest, HandlerManifest, Manifest

log = logging.getLogger(__name__)

# Seconds that loading may take, and for each handler more: a Pi 3 compiles four to eight times slower than a desktop.
LOAD_TIMEOUT, LOAD_TIMEOUT_EACH = 60.0, 20.0
STRIKES = 3  # kills of the engine within STRIKE_WINDOW that put a handler into quarantine
STRIKE_WINDOW = 600.0

Tell = Callable[[str, Any], Awaitable[None]]


@dataclass(slots=True)
class HandlerFile:
    """One file: the version that runs, and what became of the newest."""

    path: Path
    active: Manifest | None = None
    latest: Manifest | None = None


@dataclass(slots=True)
class Strikes:
    """How often a handler has taken the engine down lately."""

    version: str
    times: list[float] = field(default_factory=list)
    quarantined: bool = False


class HandlerFiles:
    """Watches one folder. `tell(name, state)` publishes a handler's state; `changed()` is called when the plan is."""

    def __init__(
        self,
        folder: Path,
        cache: Path,
        tell: Tell,
        changed: Callable[[], None],
        streams: Sequence[StreamSettings] = (),
    ) -> None:
        self.folder = folder
        self._streams = streams
        self._cache = cache
        self._tell = tell
        self._changed = changed
        self._files: dict[Path, HandlerFile] = {}
        self._strikes: dict[str, Strikes] = {}
        self._lock = asyncio.Lock()  # the watch begins before the first load is through
        self._warmed = False
        self._ran: dict[str, dict[str, HandlerManifest]] = {}  # version → handlers by name; a few hundred bytes a save
        self._paused: set[str] = set()
        self._told: dict[str, Any] = {}

    # What runs

    def active(self) -> list[Manifest]:
        """The manifests of the plan, without what is in quarantine and without a second handler of a name."""
        manifests = [one.active for _, one in sorted(self._files.items()) if one.active is not None]
        refused = {(finding.file, finding.line) for finding in manifest.conflicts(manifests)}

        def runs(file: Manifest, handler: HandlerManifest | FunctionManifest) -> bool:
            stopped = handler.name in self._paused or self._is_quarantined(handler.name, file.version)
            return not stopped and (file.file, handler.line) not in refused

        def compiled(file: Manifest) -> tuple[HandlerManifest, ...]:
            kept: dict[str, HandlerManifest] = {}
            for handler in file.handlers:  # in the order of lines: what a handler builds on stands above it
                if runs(file, handler) and (handler.parent is None or handler.parent in kept):
                    kept[handler.name] = handler
            return tuple(kept.values())

        return [
            msgspec.structs.replace(
                file,
                handlers=compiled(file),
                functions=tuple(one for one in file.functions if one.options.enabled and runs(file, one)),
            )
            for file in manifests
        ]

    def functions(self) -> list[ActiveFunction]:
        """The Python handlers that run now."""
        return [
            ActiveFunction(function, Path(file.file), file.version, Path(file.file))
            for file in self.active()
            for function in file.functions
        ]

    def _is_quarantined(self, name: str, version: str) -> bool:
        strikes = self._strikes.get(name)
        return strikes is not None and strikes.quarantined and strikes.version == version

    def handler(self, name: str, version: str) -> HandlerManifest:
        """A handler of a file's version that runs or ran: what it has put out may come when it has gone. Raises KeyError."""
        return self._ran[version][name]

    # What changes

    async def load_all(self) -> None:
        """Loads the folder as it is now; an empty one is made where there is none."""
        async with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.paths():
                await self._load(path)
            await self.tell_all()

    def paths(self) -> list[Path]:
        """The handler files that are in the folder now."""
        return [path for path in sorted(self.folder.glob("*.py")) if _is_handler_file(path)]

    async def watch(self) -> None:
        """Follows the folder until cancelled."""
        async for changes in awatch(self.folder, recursive=False, step=500, debounce=1000, rust_timeout=60_000):
            async with self._lock:
                for change, name in sorted(changes):
                    path = Path(name)
                    if not _is_handler_file(path):
                        continue
                    if change == Change.deleted and not path.exists():
                        await self._retire(path)
                    else:
                        await self._load(path)
                await self.tell_all()

    async def _retire(self, path: Path) -> None:
        gone = self._files.pop(path, None)
        if gone is None:
            return
        log.info("%s is gone: its handlers are retired", path.name)
        self._changed()

    async def _load(self, path: Path) -> None:
        entry = self._files.setdefault(path, HandlerFile(path))
        if entry.active is None:
            self._told[path.stem] = {"state": "compiling", "file": str(path)}
            await self._tell(path.stem, self._told[path.stem])
        latest = loader.cached(path, self._cache)
        if latest is None:
            await self._warm()
            latest = await self._run_loader(path)
        latest = overridden(latest, self._streams)
        entry.latest = latest
        if latest.ok:
            is_new = entry.active is None or entry.active.version != latest.version
            entry.active = latest
            self._ran[latest.version] = {handler.name: handler for handler in latest.handlers}
            names = ", ".join(handler.name for handler in latest.handlers)
            took = f" (compiled in {latest.seconds:.1f} s)" if latest.seconds else ""
            log.info("%s: %s%s", path.name, names, took)
            if is_new:
                self._changed()
        else:
            kept = "; the version before keeps running" if entry.active else ""
            for finding in latest.findings:
                log.error("%s%s", finding, kept)

    async def _warm(self) -> None:
        """Compiles the engine's own loops, where this machine has not done so yet: before the first file, and once."""
        if not self._warmed:
            await self._run("import edgefn.engine.engine", "-c")
            self._warmed = True

    async def _run_loader(self, path: Path) -> Manifest:
        try:
            handlers = path.read_bytes().count(b"\n@")
        except OSError:
            handlers = 0  # the loader says what is wrong with it
        timeout = LOAD_TIMEOUT + handlers * LOAD_TIMEOUT_EACH
        output, error = await self._run("edgefn.loader", "-m", "--cache", str(self._cache), str(path), timeout=timeout)
        try:
            return msgspec.json.decode(output, type=Manifest)
        except msgspec.DecodeError:
            return Manifest(str(path), findings=(Finding(str(path), 0, error or "the loader died without a word"),))

    async def _run(self, what: str, how: str, *arguments: str, timeout: float = 5 * LOAD_TIMEOUT) -> tuple[bytes, str]:
        """One loader at a time: two processes that write one cache have crashed. Returns its output and how it failed."""
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(self._cache / "numba"), "NUMBA_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, how, what, *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError:
            return b"", f"it did not load within {timeout:g} s; does it loop when it is imported?"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode not in (0, 1):
            return output, f"the loader ended with status {process.returncode}; does it crash when it is imported?"
        return output, ""

    # What goes wrong

    async def strike(self, name: str, why: str) -> None:
        """A handler took the engine down. The third time within ten minutes it goes into quarantine."""
        file = next((one for one in self.active() if any(handler.name == name for handler in one.handlers)), None)
        if file is None:
            return
        strikes = self._strikes.get(name)
        if strikes is None or strikes.version != file.version:
            strikes = self._strikes[name] = Strikes(file.version)
        now = time.monotonic()
        strikes.times = [one for one in strikes.times if now - one < STRIKE_WINDOW] + [now]
        log.error("%s: the engine %s while it ran this handler (%d of %d)", name, why, len(strikes.times), STRIKES)
        if len(strikes.times) >= STRIKES:
            strikes.quarantined = True
            log.error("%s is in quarantine: change %s or send cmd/resume, and it is tried again", name, file.file)
            self._changed()
        await self.tell_all()

    async def pause(self, name: str) -> bool:
        """Takes a handler out of the plan until `resume` or the next start; False where there is none of that name."""
        if name not in self._told:
            return False
        self._paused.add(name)
        self._changed()
        await self.tell_all()
        return True

    async def resume(self, name: str) -> bool:
        """Lets a paused handler, or one in quarantine, run again; False where there is none of that name."""
        if name not in self._told:
            return False
        self._paused.discard(name)
        self._strikes.pop(name, None)
        self._changed()
        await self.tell_all()
        return True

    # What is told

    async def tell_all(self, meters: dict[str, Any] | None = None, samples: dict[str, Any] | None = None) -> None:
        """Publishes the state of every handler, and of every file that has none, where it has changed."""
        meters, samples = meters or {}, samples or {}
        states: dict[str, Any] = {}
        running = {handler.name for file in self.active() for handler in file.handlers}
        manifests = [one.active for _, one in sorted(self._files.items()) if one.active is not None]
        twice = {(finding.file, finding.line): finding for finding in manifest.conflicts(manifests)}
        for entry in self._files.values():
            broken = entry.latest is not None and not entry.latest.ok
            error = _error(entry.latest) if broken and entry.latest else None
            for handler in entry.active.handlers if entry.active else ():
                assert entry.active is not None
                finding = twice.get((entry.active.file, handler.line))
                if finding is not None:
                    states[f"{handler.name}-{entry.path.stem}"] = {"state": "failed", "error": str(finding)}
                    continue
                strikes = self._strikes.get(handler.name)
                state = "active" if handler.options.enabled else "disabled"
                if handler.name not in running:
                    state = "stopped" if handler.options.enabled else "disabled"  # with one that it builds on
                if handler.name in self._paused:
                    state = "paused"
                if self._is_quarantined(handler.name, entry.active.version):
                    state = "quarantined"
                states[handler.name] = {
                    "state": state,
                    "kind": handler.kind,
                    "source": handler.pattern or handler.parent,
                    "file": str(entry.path),
                    "version": entry.active.version,
                    **({"strikes": len(strikes.times)} if strikes else {}),
                    **({"newest": {"state": "failed", **error}} if error else {}),
                    **({"meter": meters[handler.name]} if handler.name in meters else {}),
                    **({"last_failure": samples[handler.name]} if handler.name in samples else {}),
                }
            if entry.active is None and error:
                states[entry.path.stem] = {"state": "failed", "file": str(entry.path), **error}
        for name in self._told.keys() - states.keys():
            await self._tell(name, None)
        for name, state in states.items():
            if self._told.get(name) != state:
                await self._tell(name, state)
        self._told = states

    def states(self) -> dict[str, Any]:
        return self._told


def _error(latest: Manifest) -> dict[str, Any]:
    return {
        "error": "\n".join(str(finding) for finding in latest.findings),
        **({"traceback": latest.traceback} if latest.traceback else {}),
    }


def _is_handler_file(path: Path) -> bool:
    return path.suffix == ".py" and path.name[0] not in "._"


def check(folder: Path, cache: Path, told: Callable[[str], None]) -> list[Manifest]:
    """Loads every file of a folder in child processes, one after the other; `told` hears which one is next."""

    async def nothing(name: str, state: Any) -> None: ...

    async def run() -> list[Manifest]:
        files = HandlerFiles(folder, cache, nothing, lambda: None)
        told("the engine's own loops")
        await files._warm()
        manifests = []
        for path in files.paths():
            told(path.name)
            manifests.append(await files._run_loader(path))
        return manifests

    return asyncio.run(run())
