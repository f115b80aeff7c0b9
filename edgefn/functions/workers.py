"""A worker as the gateway sees it, and what it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import Literal

from edgefn.functions import protocol
from edgefn.functions.printed import Printed
from edgefn.functions.protocol import Broken

Cause = Literal[
    "", "timeout", "memory", "processes", "connection", "template", "idle", "recycled", "stop"
]  # why one is killed


@dataclass(frozen=True, slots=True)
class Program:
    """What a worker runs: one version of one file, its plain or its async functions."""

    file: str
    source: str
    version: str
    is_async: bool
    memory: int


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process as the gateway sees it."""

    number: int
    program: Program
    transport: asyncio.Transport | None = None
    printed: Printed | None = None
    asked: bool = False  # the template was asked for it
    pid: int = 0
    status: int | None = None
    cause: Cause = ""  # it is killed
    why: str = ""
    broken: Broken | None = None
    is_ready: bool = False
    leaving: bool = False
    calls: dict[str, str] = field(default_factory=dict)  # id → handler
    begun: dict[str, float] = field(default_factory=dict)  # id → monotonic seconds
    knows: dict[str, int] = field(default_factory=dict)  # handler → the version of its state that it has
    idle_since: float = 0.0
    waiting: list[bytes] = field(default_factory=list)  # frames for a worker that is not connected yet
    ended: bool = False

    def send(self, message: protocol.ToWorker) -> None:
        data = protocol.frame(message)
        if self.transport is None:
            self.waiting.append(data)
        else:
            self.transport.write(data)

    def kill(self, cause: Cause, why: str) -> None:
        """With all the processes that it has started. Nothing else ends a loop."""
        if not self.why:
            self.cause, self.why = cause, why
        if self.pid and self.status is None:
            # PermissionError: nothing is left of it but what has another user's rights, such as a sudo.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # before it has become the leader of a group
                os.kill(self.pid, signal.SIGKILL)
