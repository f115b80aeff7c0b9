"""Workers of a trial: the same processes as on the device, called one after the other, without an event loop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgefn.functions import protocol
from edgefn.functions.output import END, MARK
from edgefn.functions.protocol import Broken, Call, Fork, Outcome, Published
from edgefn.manifest import FunctionManifest
from edgefn.trial.calls import Publish

GRACE = 0.3  # seconds beyond a timeout, in which an async function may be ended by its own loop
STARTING = 30.0  # seconds that a worker may take to import its file
MAX_LINES = 500  # of what one call prints
MAX_LINE = 1000


class Workers:
    """In workers, one a file: what hangs, eats memory or ends its process costs that call and nothing else.

    `told(handler, level, line)` gets what handlers print and log.
    """

    def __init__(self, gateway: str, secrets: Path, told: Callable[[str, str, str], None]) -> None:
        self._gateway = gateway
        self._secrets = str(secrets)
        self._told = told
        self._workers: dict[tuple[Path, bool, int], _Worker] = {}
        self._number = 0  # of the worker that was started last
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def call(self, file: Path, function: FunctionManifest, call: Call, publish: Publish) -> Outcome:
        kind = file, function.is_async, function.policy.memory
        worker = self._workers.get(kind)
        try:
            if worker is None:
                worker = self._workers[kind] = self._start(kind)
            return worker.call(call, function.policy.timeout / 1e9, publish, self._tell)
        except _GoneError as error:
            assert worker is not None
            why = str(error) or self._why(worker.number)  # before it is killed, which would be the answer
            self._workers.pop(kind).kill()
            return Outcome(call.id, error.result, why)
        except BaseException:  # Ctrl-C: what runs must not be taken up by the next call
            if kind in self._workers:
                self._workers.pop(kind).kill()
            raise

    def _tell(self, name: str, lines: list[tuple[str, str]]) -> None:
        for level, line in lines:
            self._told(name, level, line)

    def _why(self, number: int) -> str:
        """What the template says of the end of a worker that has closed its connection."""
        assert self._control is not None
        until = time.monotonic() + 1.0
        while select.select([self._control], [], [], max(0.0, until - time.monotonic()))[0]:
            gone = protocol.from_template(self._control.recv(1 << 16))
            if not isinstance(gone, protocol.Gone) or gone.number != number:
                continue  # of one that was killed before
            if gone.status < 0:
                return f"its process was ended by {signal.Signals(-gone.status).name}"
            return f"its process ended with status {gone.status} before it returned; does it call os._exit?"
        return "it closed its connection to edgefn"

    def _start(self, kind: tuple[Path, bool, int]) -> _Worker:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._template = subprocess.Popen(
                    [sys.executable, "-P", "-m", "edgefn.functions.template", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
        file, is_async, memory = kind
        self._number += 1
        fork = Fork(self._number, self._gateway, str(file), str(file), is_async, memory, self._secrets)
        ours, theirs = socket.socketpair()
        out, into = os.pipe2(os.O_CLOEXEC)
        socket.send_fds(self._control, [protocol.encode(fork)], [theirs.fileno(), into])
        theirs.close()
        os.close(into)
        while True:
            data = self._control.recv(1 << 16)
            if not data:
                raise RuntimeError("the template of the workers has ended")
            answer = protocol.from_template(data)
            if isinstance(answer, protocol.Forked):  # and not the end of one that was killed
                return _Worker(answer.number, answer.pid, ours, out)

    def close(self) -> None:
        """Twice is harmless."""
        if self._template is not None and self._control is not None:
            self._template.kill()  # before what it would see, and complain of
            self._template.wait()
            self._control.close()
            self._template = self._control = None
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()


class _GoneError(Exception):
    def __init__(self, result: Literal["timeout", "failed"], message: str) -> None:
        super().__init__(message)
        self.result: Literal["timeout", "failed"] = result


class _Worker:
    """A worker as the trial sees it: one call at a time."""

    def __init__(self, number: int, pid: int, sock: socket.socket, printed: int) -> None:
        self.number = number
        self._pid = pid
        self._sock = sock
        self._printed = printed
        self._frames = protocol.Frames()
        self._is_ready = False
        self._rest = b""
        self._lines: list[tuple[str, str]] = []
        self._left_out = 0
        os.set_blocking(printed, False)

    def call(
        self, call: Call, timeout: float, publish: Publish, tell: Callable[[str, list[tuple[str, str]]], None]
    ) -> Outcome:
        """Raises _GoneError where the worker does not survive it."""
        self._lines, self._left_out = [], 0
        try:
            if not self._is_ready:
                ready = self._receive(time.monotonic() + STARTING, publish, "its file takes longer than 30 s to import")
                self._is_ready = True
                if isinstance(ready, Broken):
                    self._is_ready = False
                    return Outcome(call.id, "failed", ready.error, ready.traceback)
            deadline = time.monotonic_ns() + int(timeout * 1e9)
            self._sock.sendall(protocol.frame(msgspec.structs.replace(call, deadline=deadline)))
            over = f"it took longer than its timeout of {timeout:g} s"
            outcome = self._receive(deadline / 1e9 + GRACE, publish, over)
            assert isinstance(outcome, Outcome)
            return outcome
        finally:
            self._read_printed(0.0)
            if self._rest:
                self._take(b"\n")
            if self._left_out:
                self._lines.append(("warning", f"{self._left_out} more lines are left out"))
            tell(call.name, self._lines)

    def _receive(self, deadline: float, publish: Publish, over: str) -> Any:
        """The next message that ends something; what is published meanwhile goes on at once."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._printed, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _GoneError("timeout", over)
            events = poll.poll(left * 1000)
            for fd, _ in events:
                if fd == self._printed:
                    if not self._read_printed(deadline - time.monotonic()):
                        poll.unregister(fd)
                    continue
                try:
                    data = self._sock.recv(1 << 18)
                except ConnectionError:
                    data = b""
                if not data:
                    raise _GoneError("failed", "")
                last = None
                for body in self._frames.feed(data):
                    message = protocol.from_worker(body)
                    if isinstance(message, Published):
                        publish(message.topic, message.payload, message.qos, message.retain)
                    else:
                        last = message
                if last is not None:
                    return last

    def _read_printed(self, seconds: float) -> bool:
        """Reads what there is; False at the end of the pipe."""
        until = time.monotonic() + min(seconds, 0.05)
        while True:
            try:
                data = os.read(self._printed, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._take(data)
            if time.monotonic() > until:  # a flood must not keep us from looking at the deadline
                return True

    def _take(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MAX_LINE]
        for raw in whole:
            if len(self._lines) >= MAX_LINES:
                self._left_out += 1
                continue
            line, level = raw[:MAX_LINE].decode(errors="backslashreplace"), "info"
            if line.startswith(MARK) and line.count(END) >= 2:
                _, level, line = line[1:].split(END, 2)
            self._lines.append((level, line))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._sock.close()
        os.close(self._printed)
