"""Attempts that failed, in words: for the log, for the state of the handler, and for the dead letter."""

from __future__ import annotations

import signal
from typing import Any

from edgefn.functions.invocation import Invocation
from edgefn.functions.protocol import Outcome, Result
from edgefn.functions.workers import Worker
from edgefn.store import Letter
from edgefn.timestamps import to_iso
from edgefn.triggers import Policy

MAX_TOLD = 300  # characters of an error in the log
MAX_DETAIL = 1000  # of a dead letter


def obituary(worker: Worker, id: str, wall: int) -> Outcome:
    """The outcome of a call whose worker is gone. wall: ns."""
    if worker.broken is not None:
        return Outcome(id, "failed", f"its file cannot be imported: {worker.broken.error}", worker.broken.traceback)
    results: dict[str, Result] = {"timeout": "timeout", "memory": "memory"}
    why = worker.why
    if not why:
        status = worker.status or 0
        died = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        why = f"its worker {died} while it ran"
    return Outcome(id, results.get(worker.cause, "failed"), why, wall=wall)


def told(invocation: Invocation, outcome: Outcome, policy: Policy, *, again: bool, untold: int) -> str:
    """A line for the log. untold: failures of its handler that were not told before."""
    attempt = f"attempt {invocation.attempt} of {policy.retries + 1}"
    how = "is tried again" if again else "goes to the dead letters"
    more = f"; {untold} more failures since the last one that was told" if untold else ""
    return f"{invocation.function} on {invocation.topic}: {outcome.error[:MAX_TOLD]} ({attempt}); it {how}{more}"


def last_error(invocation: Invocation, outcome: Outcome, now: int) -> dict[str, Any]:
    """For the state of the handler. now: ns since the epoch."""
    return {
        "ts": to_iso(now),
        "result": outcome.result,
        "error": outcome.error,
        "topic": invocation.topic,
        **({"traceback": outcome.traceback} if outcome.traceback else {}),
    }


def letter(invocation: Invocation, reason: str, detail: str, now: int) -> Letter:
    """now: ns since the epoch."""
    return Letter(
        invocation.function, now, invocation.ts, invocation.attempt, reason, _shortened(detail), invocation.letter()
    )


def _shortened(detail: str) -> str:
    """The error itself, and the end of the traceback."""
    if len(detail) <= MAX_DETAIL:
        return detail
    first = detail.partition("\n")[0][:MAX_TOLD]
    return f"{first}\n…\n{detail[len(first) + 3 - MAX_DETAIL :]}"
