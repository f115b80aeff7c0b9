"""One handler file at a time through the loader, in a process that is watched, bounded and ended with all its children."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from edgefn import aot
from edgefn.errors import Finding
from edgefn.gateway import file_checks
from edgefn.manifest import Manifest, Progress

log = logging.getLogger(__name__)

# Seconds that loading may take, and for each handler more: a Pi 3 compiles four to eight times slower than a desktop.
LOAD_TIMEOUT, LOAD_TIMEOUT_EACH = 60.0, 20.0
PREPARE_TIMEOUT = 1200.0  # for the engine's own loops, which take a minute on a desktop
MAX_LINE = 16 << 20  # bytes of a manifest
MAX_PRINTED = 4 << 20  # bytes that a file may print while it is loaded
SHOWN = 2000  # of them, the last, that go to the log
LAST_WORDS = 2.0  # seconds for a pipe's rest, once the process has ended: a child of its own may hold it open

Told = Callable[[Progress], Awaitable[None]]


async def _nobody(progress: Progress) -> None: ...


class Loader:
    """Compiles into `cache`. One process at a time: two that write one cache have crashed."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._is_prepared = self._is_warm = False
        self.machine_code: Path | None = None  # where the engine finds its own loops without numba

    async def prepare(self, told: Told = _nobody) -> None:
        """Compiles the engine's own loops ahead of time, where this machine can and has not done so yet: once."""
        if self._is_prepared:
            return
        self._is_prepared = True
        folder, why = aot.folder(self._cache), aot.unavailable()
        if not why and aot.missing(folder):
            log.info("compiling the engine's own loops for this machine: once, and some minutes on a small one")
            process = _Process(self._cache, "the engine", told)
            why = await process.run("-m", "edgefn.engine.aot_build", PREPARE_TIMEOUT, "--cache", str(self._cache))
            if aot.missing(folder):
                why = why or "the compiler left some out"
        if why:
            log.warning("the engine needs numba to run, which takes 130 MB and a second more: %s", why)
        else:
            self.machine_code = folder

    async def _warm(self) -> None:
        """Lets numba compile the engine's own loops, where that has to be: before the first file, and once."""
        if not self._is_warm and self.machine_code is None:
            await _Process(self._cache, "the engine", _nobody).run("-c", "import edgefn.engine.engine", PREPARE_TIMEOUT)
        self._is_warm = True

    async def load(self, path: Path, told: Told) -> Manifest:
        """Never raises for what stands in the file; `told` hears how far it is."""
        await self.prepare()
        await self._warm()
        try:
            handlers = path.read_bytes().count(b"\n@")
        except OSError:
            handlers = 0  # the loader says what is wrong with it
        timeout = LOAD_TIMEOUT + handlers * LOAD_TIMEOUT_EACH
        process = _Process(self._cache, path.name, told)
        error = await process.run("-m", "edgefn.loader", timeout, "--cache", str(self._cache), str(path))
        if process.manifest is None or error:
            return Manifest(str(path), findings=(Finding(str(path), 0, error or "the loader died without a word"),))
        return process.manifest


def check(folder: Path, cache: Path, told: Callable[[str], None]) -> list[Manifest]:
    """Loads every file of a folder in child processes, one after the other; `told` hears which one is next."""

    async def run() -> list[Manifest]:
        compiler = Loader(cache)

        async def tell_own(progress: Progress) -> None:
            told(f"the engine's own loops, {progress.done} of {progress.of}")

        told("the engine's own loops")
        await compiler.prepare(tell_own)
        manifests = []
        for path in file_checks.handler_files(folder):
            told(path.name)
            finding = file_checks.refusal(path, file_checks.checking_owners())
            manifests.append(
                Manifest(str(path), findings=(finding,)) if finding else await compiler.load(path, _nobody)
            )
        return manifests

    return asyncio.run(run())


class _Process:
    def __init__(self, cache: Path, name: str, told: Told) -> None:
        self._cache = cache
        self._name = name
        self._told = told
        self._printed = b""
        self._n_printed = 0
        self._trouble = ""
        self.manifest: Manifest | None = None

    async def run(self, how: str, what: str, timeout: float, *arguments: str) -> str:
        """Returns how it failed; empty: it did not."""
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(self._cache / "numba"), "NUMBA_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            # -P: a handler file called json.py in the current folder is nobody's json.
            *(sys.executable, "-P", how, what, *arguments),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment, limit=MAX_LINE, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        readers = asyncio.gather(
            self._read(process.stdout, process.pid), self._read_printed(process.stderr, process.pid)
        )
        try:
            async with asyncio.timeout(timeout):
                await _ended(process)
        except TimeoutError:
            self._trouble = f"it did not load within {timeout:g} s; does it loop when it is imported?"
        finally:
            _kill(process.pid)  # with what the file has started, which would hold the pipes open
            await process.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(readers, LAST_WORDS)
        self._log_printed()
        if self._trouble:
            return self._trouble
        if process.returncode not in (0, 1):
            return (
                f"the loader ended with {_status(process.returncode)}; does it crash when it is imported?{self._end()}"
            )
        if what == "edgefn.loader" and self.manifest is None:
            return f"the loader ended before it was through; does it end its process when it is imported?{self._end()}"
        return ""

    async def _read(self, stream: asyncio.StreamReader, pid: int) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                return self._stop(pid, f"it has written more than {MAX_LINE >> 20} MB between loader and gateway")
            if not line:
                return None
            try:
                await self._told(msgspec.json.decode(line, type=Progress))
                continue
            except msgspec.DecodeError:
                pass
            try:
                self.manifest = msgspec.json.decode(line, type=Manifest)
            except msgspec.DecodeError:
                return self._stop(pid, "it has written between loader and gateway, where nothing of its own belongs")

    async def _read_printed(self, stream: asyncio.StreamReader, pid: int) -> None:
        while data := await stream.read(1 << 16):
            self._n_printed += len(data)
            self._printed = (self._printed + data)[-SHOWN:]
            if self._n_printed > MAX_PRINTED:
                return self._stop(pid, f"it printed more than {MAX_PRINTED >> 20} MB when it was imported")
        return None

    def _stop(self, pid: int, why: str) -> None:
        self._trouble = self._trouble or why
        _kill(pid)

    def _log_printed(self) -> None:
        if self._printed:
            before = self._n_printed - len(self._printed)
            left_out = f"({before} bytes before that are left out) " if before else ""
            log.info("%s printed while it was loaded: %s%s", self._name, left_out, self._text())

    def _end(self) -> str:
        """The last line that it printed, which may say why it ended."""
        lines = self._text().splitlines()
        return f" It printed last: {lines[-1][:200]}" if lines else ""

    def _text(self) -> str:
        return self._printed.decode(errors="replace").strip()


async def _ended(process: asyncio.subprocess.Process) -> None:
    """asyncio itself would wait until its pipes are closed too, which what a file has started holds open."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # it has ended, or a sandbox does not know the call
        await process.wait()
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _status(code: int | None) -> str:
    if code is None or code >= 0:
        return f"status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
