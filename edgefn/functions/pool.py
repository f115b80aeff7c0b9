"""The gateway's workers: forked on demand, reused while there is work, let go when idle, killed when need be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edgefn.functions import protocol
from edgefn.functions.printed import Printed
from edgefn.functions.protocol import Broken, Fork, Forked, FrameError, FromWorker, Gone, Leave, Ready
from edgefn.functions.workers import Program, Worker
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

IDLE = 30.0  # seconds after which an idle worker goes
HEARSAY = 0.2  # seconds until a worker without a connection is held to be alive
LEAVING = 2.0  # seconds that a worker which was told to leave may take
RESTART = 1.0  # seconds before the template is started again, where it died soon after its start


class _Connection(asyncio.Protocol):
    def __init__(self, worker: Worker, pool: Pool) -> None:
        self._worker, self._pool = worker, pool
        self._frames = protocol.Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._worker.transport = transport
        for data in self._worker.waiting:
            transport.write(data)
        self._worker.waiting.clear()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._pool.heard(self._worker, protocol.from_worker(body))
        except FrameError as error:
            self._worker.kill("connection", f"it wrote to edgefn's own connection ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        # It has died, most probably, and the template says how in a moment.
        asyncio.get_running_loop().call_later(HEARSAY, self._suspect)

    def _suspect(self) -> None:
        if self._worker.calls and self._worker.status is None:
            self._worker.kill("connection", "it closed its connection to edgefn")


class Pool:
    """All workers of a gateway, `size` at the most.

    `heard(worker, message)` gets what they say; `ended(worker)` is called once for each that is gone, with its status, its
    `why` and the calls that were under way.
    """

    def __init__(
        self,
        size: int,
        metrics: Metrics,
        *,
        gateway: str,
        secrets: Path,
        heard: Callable[[Worker, FromWorker], None],
        ended: Callable[[Worker], None],
        idle: float = IDLE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = size
        self.workers: dict[int, Worker] = {}
        self.template_pid = 0
        self.busy = asyncio.Event()  # a call is under way
        self._metrics = metrics
        self._gateway = gateway
        self._secrets = str(secrets)
        self._heard = heard
        self._ended = ended
        self._idle = idle
        self._monotonic = monotonic
        self._number = 0
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._wanted = asyncio.Event()
        self._stopping = False
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def pids(self) -> list[int]:
        """The template and its workers."""
        return [pid for pid in (self.template_pid, *(one.pid for one in self.workers.values())) if pid]

    # The template

    def want(self) -> None:
        """There are Python handlers: the template is started, if it is not there."""
        self._wanted.set()

    async def run(self) -> None:
        """Keeps the template alive once it is wanted, until cancelled."""
        await self._wanted.wait()
        while not self._stopping:
            started = self._monotonic()
            try:
                why = f"ended with status {await self._run_template()}"
            except (
                OSError
            ) as error:  # no process, memory or descriptor left for it: what used them up may have gone soon
                why = f"cannot be started: {error}"
            if self._stopping:
                return
            self._metrics.count("functions.template_restarts")
            log.error("the template of the workers %s; it is started again", why)
            if self._monotonic() - started < 10:
                await asyncio.sleep(RESTART)

    async def _run_template(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "edgefn.functions.template", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            theirs.close()
            self.template_pid = process.pid
            self._control = ours
            loop.add_reader(ours, self._told)
            for worker in list(self.workers.values()):
                if not worker.asked:
                    self._ask(worker)
            return await process.wait()
        finally:
            loop.remove_reader(ours)
            self._control = None
            self.template_pid = 0
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            ours.close()
            theirs.close()
            # They die with it, and nobody is left to say so; also one that it has made and not told of yet.
            for worker in list(self.workers.values()):
                if worker.asked:
                    worker.kill("template", "the template of the workers died")
                    self._gone(worker, -signal.SIGKILL)

    def _told(self) -> None:
        assert self._control is not None
        while True:
            try:
                data = self._control.recv(1 << 16)
            except (BlockingIOError, ConnectionError):
                return
            if not data:
                return
            message = protocol.from_template(data)
            worker = self.workers.get(message.number)
            if worker is None:
                continue
            if isinstance(message, Forked):
                worker.pid = message.pid
                if worker.why:
                    worker.kill(worker.cause, worker.why)
            elif isinstance(message, Gone):
                self._gone(worker, message.status)

    # Workers

    def find(self, program: Program, room: int) -> Worker | None:
        """A worker that can take a call now: one with fewer than `room` calls, or a new one; None: all are busy."""
        mine = [one for one in self.workers.values() if one.program == program and not one.leaving and not one.why]
        free = [one for one in mine if len(one.calls) < room]
        if free:
            return max(free, key=lambda one: (one.is_ready, -len(one.calls)))
        if program.is_async and mine:
            return None  # they share one
        if len(self.workers) >= self.size and not self._make_room():
            return None
        return self._start(program)

    def _make_room(self) -> bool:
        """Lets the worker go that has been idle for longest. False where all have work, or one is going already."""
        idle = [one for one in self.workers.values() if not one.calls and not one.leaving and not one.why]
        if idle:
            self.let_go(min(idle, key=lambda one: one.idle_since))
        # One that leaves is counted until it has gone: its memory is still taken.
        return len(self.workers) < self.size

    def _start(self, program: Program) -> Worker:
        self._number += 1
        worker = self.workers[self._number] = Worker(self._number, program, idle_since=self._monotonic())
        self.want()
        if self._control is not None:
            self._ask(worker)
        return worker

    def _ask(self, worker: Worker) -> None:
        assert self._control is not None
        worker.asked = True
        program = worker.program
        fork = Fork(
            worker.number, self._gateway, program.file, program.source, program.is_async, program.memory, self._secrets
        )
        ours, theirs = socket.socketpair()
        out, into = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._control, [protocol.encode(fork)], [theirs.fileno(), into])
        except OSError as error:
            ours.close()
            os.close(out)
            worker.cause, worker.why = "template", f"the template of the workers does not answer: {error}"
            asyncio.get_running_loop().call_soon(self._gone, worker, -signal.SIGKILL)
            return
        finally:
            theirs.close()
            os.close(into)
        self._metrics.count("functions.workers_started")
        worker.printed = Printed(out, lambda: _whose(worker), self._metrics)
        task = asyncio.ensure_future(self._connect(worker, ours))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _connect(self, worker: Worker, sock: socket.socket) -> None:
        sock.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: _Connection(worker, self), sock=sock)
        if worker.ended and worker.transport is not None:
            worker.transport.abort()

    def begin(self, worker: Worker, id: str, handler: str) -> None:
        """A call of a handler is its business from now on, until it has `returned`."""
        worker.calls[id] = handler
        worker.begun[id] = self._monotonic()
        self.busy.set()

    def heard(self, worker: Worker, message: FromWorker) -> None:
        if isinstance(message, Ready):
            worker.is_ready = True
        elif isinstance(message, Broken):
            worker.broken = message
        if not worker.ended:
            self._heard(worker, message)

    def returned(self, worker: Worker, id: str) -> None:
        """A call of it is through."""
        worker.calls.pop(id, None)
        worker.begun.pop(id, None)
        worker.idle_since = self._monotonic()
        if not worker.calls and worker.leaving:
            asyncio.get_running_loop().call_later(LEAVING, self._insist, worker)
        if not worker.calls and self._sweep is None and not self._stopping:
            self._sweep = asyncio.get_running_loop().call_later(self._idle, self._let_idle_go)

    def _let_idle_go(self) -> None:
        self._sweep = None
        now = self._monotonic()
        idle = [one for one in self.workers.values() if not one.calls and not one.leaving]
        for worker in idle:
            if now - worker.idle_since >= self._idle - 0.1:
                self.let_go(worker)
        rest = [one.idle_since for one in idle if not one.leaving]
        if rest:
            again = max(0.1, min(rest) + self._idle - now)
            self._sweep = asyncio.get_running_loop().call_later(again, self._let_idle_go)

    def let_go(self, worker: Worker) -> None:
        """When what it has begun is through; by force where it does not leave then."""
        if worker.leaving:
            return
        worker.leaving = True
        worker.send(Leave())
        if not worker.calls:
            asyncio.get_running_loop().call_later(LEAVING, self._insist, worker)

    def _insist(self, worker: Worker) -> None:
        if not worker.ended and not worker.calls:
            worker.kill("idle", "it did not leave")

    def retire(self, wanted: Callable[[Program], bool]) -> None:
        """Lets those go whose program is not wanted any more; what they have begun, they end."""
        for worker in list(self.workers.values()):
            if not wanted(worker.program):
                self.let_go(worker)

    def _gone(self, worker: Worker, status: int) -> None:
        if worker.status is not None:
            return
        worker.status = status
        if worker.pid:  # 0 would be our own group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)  # what it has started and not ended
        self.workers.pop(worker.number, None)
        if worker.transport is not None:
            _drain(worker.transport)
            worker.transport.abort()
        worker.ended = True  # not before its last words are heard
        if worker.printed is not None:
            worker.printed.close()
        self._ended(worker)

    async def stop(self, patience: float) -> None:
        """Gives what runs `patience` seconds, then ends everything. Twice is harmless."""
        self._stopping = True
        deadline = self._monotonic() + patience
        while any(one.calls for one in self.workers.values()) and self._monotonic() < deadline:  # noqa: ASYNC110 - once
            await asyncio.sleep(0.02)
        for worker in list(self.workers.values()):
            worker.kill("stop", "the gateway stops")
            self._gone(worker, -signal.SIGKILL)
        if self._sweep is not None:
            self._sweep.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def _drain(transport: asyncio.Transport) -> None:
    """What a worker said before it died counts, also where the news of its death came first."""
    receiver = transport.get_protocol()
    if not isinstance(receiver, _Connection) or transport.is_closing():
        return
    descriptor = transport.get_extra_info("socket").fileno()
    with contextlib.suppress(OSError):  # it is not blocking
        while data := os.read(descriptor, 1 << 18):
            receiver.data_received(data)


def _whose(worker: Worker) -> str:
    """The handler that runs, or the file where that is not certain."""
    names = set(worker.calls.values())
    return names.pop() if len(names) == 1 else Path(worker.program.file).name
