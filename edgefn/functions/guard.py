"""Keeps an eye on workers that are busy for long: on the processes they start, and on the memory that all of these take.

A limit of the kernel's holds for one process (RLIMIT_DATA) or for all of a user (RLIMIT_NPROC, and not for root), so neither
stops a fork bomb. What a worker starts is in its process group; a group is killed at once and whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgefn.functions.pool import Pool
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

SELDOM = 2.0  # seconds between two looks while all calls are short: one reads the states of all processes
LOOK = 0.1  # seconds between two looks while something runs; a bomb makes some hundred processes in that time
MAX_PROCESSES = 16  # of one worker, itself among them
PAGE = resource.getpagesize()


class Process(NamedTuple):
    pid: int
    parent: int
    group: int
    memory: int  # bytes, resident


class Guard:
    """Looks only while calls are under way."""

    def __init__(self, pool: Pool, metrics: Metrics, proc: Path = Path("/proc")) -> None:
        self._pool = pool
        self._metrics = metrics
        self._proc = proc
        self._spared: set[int] = set()  # orphans that may not be killed, and were told of

    async def run(self) -> None:
        """Until cancelled. The pool says when there is work."""
        last = 0.0
        while True:
            await self._pool.busy.wait()
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            begun = [at for one in self._pool.workers.values() for at in one.begun.values()]
            if not begun:
                self._pool.busy.clear()
            if not begun or min(begun) < now - LOOK or now - last > SELDOM:
                self.look()  # also when the last one has ended: at what it has left behind
                last = now

    def look(self) -> None:
        found = list(processes(self._proc))
        number = Counter(process.group for process in found)
        memory = Counter[int]()
        for process in found:
            memory[process.group] += process.memory
        base = next(
            (one.memory for one in found if one.pid == self._pool.template_pid), 0
        )  # that each has of the template
        workers = {one.pid: one for one in self._pool.workers.values() if one.pid}
        for pid, worker in workers.items():
            if number[pid] > MAX_PROCESSES:
                self._metrics.count("functions.killed", reason="processes")
                worker.kill("processes", f"it had started {number[pid] - 1} processes; {MAX_PROCESSES - 1} are allowed")
            elif number[pid] > 1 and memory[pid] > worker.program.memory + number[pid] * base:
                self._metrics.count("functions.killed", reason="memory")
                worker.kill("memory", f"it and its processes take {memory[pid] >> 20} MB")
        if all(one.pid for one in self._pool.workers.values()):  # else one of them may be a worker that is just made
            orphans = {one.pid for one in found if one.parent == self._pool.template_pid} - workers.keys()
            self._spared &= orphans
            for pid in orphans - self._spared:
                self._kill_orphan(pid)

    def _kill_orphan(self, pid: int) -> None:
        """Its parent is gone, and so the template has it now: a handler has left it behind."""
        with contextlib.suppress(ProcessLookupError):
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:  # sudo, ping: it has another user's rights
                self._spared.add(pid)
                log.warning("process %d, which a handler has left behind, belongs to another user and goes on", pid)
                return
            self._metrics.count("functions.killed", reason="left_behind")
            log.warning("process %d, which a handler has left behind, is killed", pid)


def processes(proc: Path = Path("/proc")) -> Iterator[Process]:
    """All processes there are. proc(5), /proc/pid/stat: the name may hold spaces and parentheses."""
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_bytes()
            except OSError:
                continue
            fields = stat[stat.rfind(b")") + 2 :].split()
            yield Process(int(entry.name), int(fields[1]), int(fields[2]), int(fields[21]) * PAGE)
