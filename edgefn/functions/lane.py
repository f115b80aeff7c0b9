"""One Python handler in the scheduler: who waits for it, who runs, and whose turn is next."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from edgefn.clock import NS
from edgefn.functions.invocation import Invocation
from edgefn.functions.memory import Memory
from edgefn.functions.meter import Meter
from edgefn.functions.workers import Program, Worker
from edgefn.manifest import FunctionManifest

MAX_WORDS, WORD = 10, 10 * NS  # failures of one handler that are told at once, and the time until one more is


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version of a handler that is to run. `source`: where its text is; `file`: what messages call it."""

    manifest: FunctionManifest
    file: str
    source: str
    version: str

    def program(self, memory: int) -> Program:
        return Program(self.file, self.source, self.version, self.manifest.is_async, memory)


@dataclass(slots=True, eq=False)
class Running:
    """One attempt."""

    invocation: Invocation
    worker: Worker
    deployment: Deployment  # it ends as it began, whatever becomes of its handler meanwhile
    started: int  # monotonic ns; when it was given to the worker
    timer: asyncio.TimerHandle | None = None
    deadline: int = 0  # monotonic ns; 0 while the worker begins
    published: Counter[bytes] = field(default_factory=Counter)
    is_behind: bool = False  # its worker was given the state anew meanwhile, without what this one does to it


class Lane:
    """Invocations of one handler. Without a deployment (it was removed, or is paused) they wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.deployment: Deployment | None = None
        self.program: Program | None = None
        self.queue: deque[Invocation] = deque()
        self.running: dict[str, Running] = {}
        self.delayed: dict[str, tuple[Invocation, asyncio.TimerHandle]] = {}  # until they are tried again
        self.memory = Memory(name)
        self.meter = Meter()
        self.last_error: dict[str, Any] | None = None
        self._words = float(MAX_WORDS)  # how often its failures may still be told
        self._worded = 0  # monotonic ns
        self._untold = 0
        self._busy: Counter[str] = Counter()  # keys of those that run or are tried again, where the order counts

    @property
    def waiting(self) -> int:
        return len(self.queue) + len(self.delayed)

    def is_ready(self) -> bool:
        """Whether it could start one more now."""
        return (
            bool(self.queue)
            and self.deployment is not None
            and len(self.running) < self.deployment.manifest.concurrency
            and (not self._is_ordered() or self._first() is not None)
        )

    def take(self) -> Invocation:
        """The next one; only when `is_ready`."""
        if not self._is_ordered():
            return self.queue.popleft()
        index = self._first()
        assert index is not None
        invocation = self.queue[index]
        del self.queue[index]
        self._busy[invocation.key] += 1
        return invocation

    def release(self, invocation: Invocation) -> None:
        """It is through, and the next one of its key may run. Harmless where the order does not count."""
        if self._busy[invocation.key] > 1:
            self._busy[invocation.key] -= 1
        else:
            del self._busy[invocation.key]

    def put_back(self, invocation: Invocation) -> None:
        """It has not run, and is the next one again."""
        self.release(invocation)
        self.queue.appendleft(invocation)

    def _is_ordered(self) -> bool:
        return self.deployment is not None and self.deployment.manifest.policy.ordered

    def _first(self) -> int | None:
        return next((i for i, one in enumerate(self.queue) if not self._busy[one.key]), None)

    def may_tell(self, now: int) -> int | None:
        """Whether one more failure goes to the log, and how many did not since the last one that did; None: it does not.

        A handler that fails at each event must not fill a card with its log. now: monotonic ns.
        """
        self._words = min(MAX_WORDS, self._words + (now - self._worded) / WORD)
        self._worded = now
        if self._words < 1:
            self._untold += 1
            return None
        untold, self._untold = self._untold, 0
        self._words -= 1
        return untold

    def report(self) -> dict[str, Any]:
        return {
            "queue": self.waiting,
            "running": len(self.running),
            **self.meter.report(),
            **({"last_error": self.last_error} if self.last_error else {}),
        }
