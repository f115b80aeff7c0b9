"""A recording on its way through handlers, by its own clock: at once, in real time, or some times as fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from edgefn.clock import NS
from edgefn.manifest import Manifest
from edgefn.trial.calls import Caller
from edgefn.trial.clock import ManualClock
from edgefn.trial.recording import BadLine, Recorded
from edgefn.trial.rows import Told
from edgefn.trial.trial import Trial

Problem = Callable[[str], None]


@dataclass(slots=True)
class Counts:
    """What became of a recording."""

    events: int = 0
    bad_lines: int = 0
    earlier: int = 0  # than one before them
    first: int = 0  # ns since the epoch
    last: int = 0
    handlers: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)  # payloads, by their reason
    late: int = 0
    unheard: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "bad_lines": self.bad_lines,
            "earlier": self.earlier,
            "unheard": self.unheard,
            "late": self.late,
            "failed": self.failed,
            "handlers": self.handlers,
        }


class Replay:
    """Made once for each recording: `take` its messages in their order, then `finish`.

    Each message sets the clock to its time before it is published, and what is due until then happens first. A message that
    is earlier than one before it does not set the clock back: it comes late, with its own time.
    """

    def __init__(
        self, manifests: Iterable[Manifest], make_caller: Callable[[ManualClock], Caller], told: Callable[[Told], None],
        *, gateway: str = "gw", speed: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """`speed`: how many times as fast as it was recorded; 0: without waiting."""
        self.counts = Counts()
        self._manifests = list(manifests)
        self._make_caller = make_caller
        self._told = told
        self._gateway = gateway
        self._speed = speed
        self._monotonic = monotonic
        self._sleep = sleep
        self._trial: Trial | None = None
        self._caller: Caller | None = None
        self._started = 0.0

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Twice is harmless."""
        if self._caller is not None:
            self._caller.close()

    def take(self, message: Recorded | BadLine, problem: Problem = lambda text: None) -> None:
        """`problem` hears what is wrong with the recording."""
        counts = self.counts
        if isinstance(message, BadLine):
            counts.bad_lines += 1
            problem(str(message))
            return
        trial = self._trial or self._begin(message.ts)
        behind = trial.clock.now() - message.ts
        if behind > 0:
            counts.earlier += 1
            if counts.earlier == 1:
                problem(
                    f"a message is {behind / NS:.3f} s earlier than one before it; such come late, the clock goes on"
                )
        else:
            trial.go_on_to(trial.clock.monotonic() - behind)
            counts.last = message.ts
        counts.events += 1
        trial.publish(message.topic, message.payload, arrival=message.ts, retained=message.retain)

    def _begin(self, now: int) -> Trial:
        clock = ManualClock(now)
        self._caller = self._make_caller(clock)
        trial = self._trial = Trial(self._manifests, self._caller, clock, self._told, gateway=self._gateway)
        self._started = self._monotonic()
        if self._speed:
            trial.before = self._wait
        self.counts.first = now
        return trial

    def _wait(self, then: int) -> None:
        left = self._started + then / NS / self._speed - self._monotonic()
        if left > 0:
            self._sleep(left)

    def finish(self) -> Counts:
        """The sensors have fallen silent: what time closes is closed, without waiting for it."""
        if self._trial is not None:
            self._trial.before = lambda then: None
            self._trial.finish()
        return self.count()

    def count(self) -> Counts:
        """What has been so far."""
        trial, counts = self._trial, self.counts
        if trial is None:
            return counts
        if trial.compiled is not None:
            for name, node in trial.compiled.plan.nodes.items():
                meter = node.meter
                counts.handlers[name] = _line(meter.events, meter.rows, meter.skipped, meter.raised)
            counts.late = trial.compiled.late()
        for name, one in trial.functions.items():
            counts.handlers[name] = _line(one.calls, one.rows, 0, one.raised)
        prefix = "events.failed."
        counted = trial.metrics.counters
        counts.failed = {name.removeprefix(prefix): n for name, n in counted.items() if name.startswith(prefix)}
        counts.unheard = trial.unheard
        return counts


def _line(events: int, rows: int, skipped: int, raised: int) -> dict[str, int]:
    return {"events": events, "rows": rows, "skipped": skipped, "raised": raised}
