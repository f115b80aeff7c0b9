"""When `@every` and `@cron` start their handlers, by the clock of a trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from zoneinfo import ZoneInfo

from edgefn import durations
from edgefn.trial.clock import ManualClock
from edgefn.triggers import Cron, Every

Owner = TypeVar("Owner")


@dataclass(slots=True)
class _Timer(Generic[Owner]):
    owner: Owner
    trigger: Every | Cron
    due: int  # of the monotonic clock for an interval, else of the time of day


class Timers(Generic[Owner]):
    """One for each `@every` and `@cron`; an interval begins now."""

    def __init__(self, owners: Iterable[tuple[Owner, Every | Cron]], clock: ManualClock) -> None:
        self._clock = clock
        self._timers: list[_Timer[Owner]] = [_Timer(owner, trigger, self._after(trigger)) for owner, trigger in owners]

    def next_due(self) -> int | None:
        """By the monotonic clock."""
        offset = self._clock.offset
        dues = [one.due if isinstance(one.trigger, Every) else one.due - offset for one in self._timers]
        return min(dues, default=None)

    def take(self) -> list[tuple[Owner, str, int]]:
        """What is due: whose, the topic that says so, and the time for which it was."""
        found = []
        for timer in self._timers:
            trigger, now = timer.trigger, self._clock.monotonic()
            due = timer.due if isinstance(trigger, Every) else timer.due - self._clock.offset
            if due > now:
                continue
            topic = (
                f"every/{durations.show(trigger.interval)}" if isinstance(trigger, Every) else f"cron/{trigger.line}"
            )
            found.append((timer.owner, topic, due + self._clock.offset))
            # What was missed, because the clock was set forward, is not made up for.
            missed = (now - due) // trigger.interval if isinstance(trigger, Every) else 0
            timer.due = due + (missed + 1) * trigger.interval if isinstance(trigger, Every) else self._after(trigger)
        return sorted(found, key=lambda one: one[2])

    def _after(self, trigger: Every | Cron) -> int:
        if isinstance(trigger, Every):
            return self._clock.monotonic() + trigger.interval
        from edgefn.functions.sources.cron import following, local_zone

        return following(trigger.line, ZoneInfo(trigger.zone) if trigger.zone else local_zone(), self._clock.now())
