"""The gateway's hand on the engine process: starts it, talks to it, notices that it hangs or dies, and starts it again."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from edgefn import aot, link
from edgefn.bus import Backoff
from edgefn.manifest import Manifest
from edgefn.processes import die_with_parent
from edgefn.running import Watch

log = logging.getLogger(__name__)

CHECK = 0.5  # seconds at most between two looks at what the engine runs: each wakes the processor
STOP_TIMEOUT = 4.0
DOUBT = (
    3  # times that an engine may die soon and unexplained before it does without the machine code made ahead of time
)
AT_ONCE = 5  # times that an engine is started again without a pause; one that keeps dying must not take the processor


def _die_with_gateway() -> None:
    """From the first moment on: an engine that is stopped while it imports would be left behind for ever."""
    die_with_parent(signal.SIGKILL)


class Supervisor(Protocol):
    """What the engine's host asks and tells; called from the host's task, one call after the other."""

    async def start_message(self) -> link.Message:
        """What a new engine is told first."""

    def active(self) -> list[Manifest]:
        """The files that make the plan."""

    def forward(self) -> list[str]:
        """Patterns of which each message is wanted as it is."""

    async def on_message(self, message: link.Message) -> None:
        """Anything the engine says, except what the host handles itself. Must not wait for the engine."""

    async def on_crash(self, handler: str | None, why: str) -> None:
        """The engine is gone; `handler` was running where that is known. The plan may change before it starts again."""


class EngineHost:
    """One engine process after the other."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        clock_fd: int,
        deadline: int,
        memory: int,
        cache: str,
        machine_code: Callable[[], Path | None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._clock_fd = clock_fd
        self._deadline = deadline
        self._memory = memory
        self._cache = cache
        self._machine_code = machine_code
        self._backoff = backoff or Backoff(base=0.2, cap=30.0)
        self._numbers: dict[int, str] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._hung = ""
        self._running = 0
        self.restarts = 0
        self.generation = 0  # which engine it is, by number

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    def send(self, message: link.Message) -> None:
        """Does nothing while no engine runs: a new one is told everything that matters when it starts."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(link.encode(message))

    def change_plan(self) -> None:
        self.send(self._plan())

    def _plan(self) -> link.Message:
        manifests = [msgspec.to_builtins(one) for one in self._supervisor.active() if one.handlers]
        return {"type": "plan", "manifests": manifests, "forward": self._supervisor.forward()}

    async def run(self) -> None:
        """Keeps an engine running until `stop`."""
        failures = 0
        while not self._stopping:
            started = time.monotonic()
            # One that dies while nobody's handler runs may have been given machine code that the card has damaged.
            machine_code = self._machine_code()
            why = await self._run_once(aot.NOTHING if failures >= DOUBT else str(machine_code or ""))
            if self._stopping:
                return
            self.restarts += 1
            handler = self._blamed()
            log.error("the engine %s%s; it is started again", why, f" while it ran {handler}" if handler else "")
            await self._supervisor.on_crash(handler, why)
            failures = 0 if handler or time.monotonic() - started > 60 else failures + 1
            if failures > AT_ONCE:
                await asyncio.sleep(self._backoff.delay(failures - AT_ONCE))

    def _blamed(self) -> str | None:
        return self._numbers.get(self._running)

    async def _run_once(self, machine_code: str) -> str:
        """Starts one engine and returns, when it has ended, how it did. `machine_code`: as in aot.ENVIRONMENT."""
        ours, theirs = socket.socketpair()
        watch = Watch.create()
        self._numbers, self._running, self._hung = {}, 0, ""
        self.generation += 1
        environment = {**os.environ, "NUMBA_CACHE_DIR": self._cache, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        environment[aot.ENVIRONMENT] = machine_code
        arguments = (str(theirs.fileno()), str(watch.fd), str(self._memory >> 20), str(self._clock_fd))
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "edgefn.engine", *arguments,
                pass_fds=(theirs.fileno(), watch.fd, self._clock_fd), stdin=asyncio.subprocess.DEVNULL, env=environment,
                preexec_fn=_die_with_gateway,
            )  # fmt: skip
            theirs.close()
            reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
            looking = asyncio.create_task(self._look(watch, self._process))
            try:
                start = await self._supervisor.start_message()
                self._writer = writer  # from here on: a plan that came before the start would begin with nothing
                self.send(start)
                self.send(self._plan())
                await self._listen(reader)
            finally:
                looking.cancel()
            code = await self._process.wait()
            self._running = watch.running()[0]
            return self._hung or (f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}")
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            self._writer = None
            ours.close()
            theirs.close()
            watch.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        decoder = link.Decoder()
        while data := await _read(reader):
            for message in decoder.feed(data):
                if message["type"] == "ready":
                    self._numbers = {number: name for name, number in message["numbers"].items()}
                await self._supervisor.on_message(message)

    async def _look(self, watch: Watch, process: asyncio.subprocess.Process) -> None:
        """Kills the engine when one call of a handler takes too long: nothing else interrupts machine code."""
        while True:
            await asyncio.sleep(min(CHECK, self._deadline / 2e9))
            number, since = watch.running()
            if number and time.monotonic_ns() - since > self._deadline:
                self._hung = f"hung for more than {self._deadline / 1e9:g} s and was killed"
                process.kill()
                return

    async def stop(self) -> None:
        """Lets the engine commit what it has; kills it where that takes too long. Twice is harmless."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.send({"type": "stop"})
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            log.warning("the engine did not stop within %g s and is killed; nothing acknowledged is lost", STOP_TIMEOUT)
            process.kill()
            await process.wait()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What the engine says next, nothing when it is gone."""
    try:
        return await reader.read(1 << 20)
    except ConnectionError:  # it died with something of ours unread, which a socket pair reports as a reset
        return b""
