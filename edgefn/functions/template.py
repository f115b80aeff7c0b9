"""The template: a process that has imported what workers need, and forks one when the gateway asks for it.

    python -P -m edgefn.functions.template FD

A fork takes a few milliseconds and shares its pages; a fresh Python takes half a second. The template imports neither
handlers nor numba nor numpy, and has no thread.
"""

from __future__ import annotations

import array
import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys

from edgefn.functions import protocol, worker
from edgefn.functions.protocol import Fork, Forked, Gone
from edgefn.processes import die_with_parent, log_to_stderr

_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36
MAX_FILES = 256  # descriptors of a worker
GRACE = 8 << 20  # bytes beyond the limit: what the interpreter needs to say that memory has run out


def main(arguments: list[str]) -> int:
    control = socket.socket(fileno=int(arguments[1]))
    die_with_parent(signal.SIGKILL)
    # What a handler's processes leave behind comes to us, and not to init: so the gateway finds it.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    log_to_stderr()
    _warm_up()
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the gateway stops us in its turn
    workers: dict[int, int] = {}  # pid → number
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                os.read(wake, 4096)
                _reap(control, workers)
            elif not _answer(control, workers, (wake, woken)):
                return 0


def _warm_up() -> None:
    """What handlers import most, and what each import of one needs: loaded once, and shared by all."""
    import asyncio  # noqa: F401
    import csv  # noqa: F401
    import datetime  # noqa: F401
    import json  # noqa: F401
    import statistics  # noqa: F401
    import urllib.request  # noqa: F401
    import zoneinfo  # noqa: F401

    import cronsim  # noqa: F401

    import edgefn.config
    import edgefn.loader  # noqa: F401

    gc.collect()
    gc.freeze()  # so that a collection in a worker does not copy our pages


def _answer(control: socket.socket, workers: dict[int, int], own: tuple[int, ...]) -> bool:
    """Forks a worker; False when the gateway has gone."""
    data, ancillary, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(2 * 4))
    if not data:
        return False
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    request = protocol.to_template(data)
    connection, printed = descriptors
    pid = os.fork()
    if pid == 0:
        _become_worker(request, connection, printed, (control.fileno(), *own))
    os.close(connection)
    os.close(printed)
    workers[pid] = request.number
    control.send(protocol.encode(Forked(request.number, pid)))
    return True


def _reap(control: socket.socket, workers: dict[int, int]) -> None:
    """Tells of the workers that have ended; what their children leave is only taken in."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        number = workers.pop(pid, None)
        if number is not None:
            control.send(protocol.encode(Gone(number, os.waitstatus_to_exitcode(status))))


def _become_worker(fork: Fork, connection: int, printed: int, ours: tuple[int, ...]) -> None:
    """In the child. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()  # a group of its own: the gateway kills it with all that it has started
        die_with_parent(signal.SIGKILL)
        name = os.path.basename(fork.file).removesuffix(".py")
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"fn:{name}"[:15].encode())
        for fd in ours:
            os.close(fd)
        for standard in (1, 2):
            os.dup2(printed, standard)
        os.close(printed)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        limit = _data_size() + fork.memory + GRACE
        for what, most in (
            (resource.RLIMIT_DATA, limit),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, MAX_FILES),
        ):
            _, hard = resource.getrlimit(what)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(what, (most, most))
        gc.enable()
        worker.serve(fork, socket.socket(fileno=connection))
    finally:
        os._exit(1)


def _data_size() -> int:
    """Bytes that count against RLIMIT_DATA now."""
    with open("/proc/self/status", "rb") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith(b"VmData:")), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
