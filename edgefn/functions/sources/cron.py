"""Lines of cron: by gateway time, once that is right, and no moment twice."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim

from edgefn import durations
from edgefn.clock import NS, STEP, Clock
from edgefn.events import to_json
from edgefn.functions.sources.contract import Fire, Occurrence, Save, wanted
from edgefn.functions.sources.memory import Memories
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics
from edgefn.triggers import Cron

log = logging.getLogger(__name__)

HOUR, DAY = durations.UNITS["h"], durations.UNITS["d"]
LOOK = 30 * NS  # how late a step of the clock is seen where nobody tells it
UNRIGHT = 5 * NS  # between two looks at whether the clock is right
JUMPED_OVER = 3 * HOUR  # a moment that a step forward of less jumps over still counts; cron has the same number
NEVER = 2**62

LOCALTIME = Path("/etc/localtime")


def local_zone(localtime: Path = LOCALTIME) -> tzinfo:
    """That of this machine, with its rules for summer: what the C library takes, TZ first."""
    named = os.environ.get("TZ", "").removeprefix(":")
    target = str(localtime.resolve())
    for name in (named, target.partition("zoneinfo/")[2]):
        try:
            if name:
                return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            log.debug("there is no time zone %r", name)
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return ZoneInfo("UTC")


def following(line: str, zone: tzinfo, after: int) -> int:
    """The next moment after `after` at which the line comes, ns since the epoch; NEVER where it does not."""
    for moment in CronSim(line, datetime.fromtimestamp(after // NS, zone)):
        # In the hour that comes twice in autumn the library counts by the hands of the clock, and may answer with a
        # moment of the first that has passed.
        if (ns := round(moment.timestamp()) * NS) > after:
            return ns
    return NEVER


def newest(line: str, zone: tzinfo, after: int, until: int) -> int | None:
    """The last moment after `after` and not after `until`; None: there was none."""
    span = HOUR
    while True:
        start = max(after, until - span)
        found, moment = None, following(line, zone, start)
        while moment <= until:
            found, moment = moment, following(line, zone, moment)
        if found is not None or start == after:
            return found
        span *= 4


@dataclass(slots=True)
class _Timer:
    zone: tzinfo
    due: int | None = None  # the next moment; None: not looked for yet
    last: int | None = None  # the last moment that was fired
    is_new: bool = True


class Crons:
    """The lines of all functions."""

    def __init__(
        self,
        fire: Fire,
        clock: Clock,
        metrics: Metrics,
        memories: Memories,
        is_right: Callable[[], bool],
        save: Save,
        local: Callable[[], tzinfo] = local_zone,
    ) -> None:
        self._fire = fire
        self._clock = clock
        self._metrics = metrics
        self._memories = memories
        self._is_right = is_right
        self._save = save
        self._local = local
        self._offset = 0
        self._timers: dict[tuple[str, Cron], _Timer] = {}

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        before, self._timers = self._timers, {}
        lines: dict[str, set[str]] = {}
        for name, trigger in wanted(functions, Cron):
            lines.setdefault(name, set()).add(_label(trigger))
            if (known := before.get((name, trigger))) is not None:
                self._timers[name, trigger] = known
                continue
            zone = ZoneInfo(trigger.zone) if trigger.zone else self._local()
            self._timers[name, trigger] = _Timer(zone, last=self._memories[name].moments.get(_label(trigger)))
        for name, those in lines.items():
            self._memories[name].keep_lines(those)

    def step(self) -> int | None:
        if not self._timers:
            return None
        self._memories.tidy()
        mono, now = self._clock.monotonic(), self._clock.now()
        if not self._is_right():
            return mono + UNRIGHT
        stepped = (now - mono) - self._offset
        self._offset = now - mono
        for (name, trigger), timer in self._timers.items():
            if timer.is_new:
                self._begin(name, trigger, timer, now)
            elif not -STEP < stepped < JUMPED_OVER:
                if timer.due is not None and timer.due <= now:
                    self._metrics.count("triggers.missed", reason="cron")
                timer.due = self._next(trigger, timer, now)
            if timer.due is not None and timer.due <= now:
                self._come(name, trigger, timer, timer.due, now)
                timer.due = self._next(trigger, timer, now)
        due = min(timer.due for timer in self._timers.values() if timer.due is not None)
        return mono + min(due - now, LOOK)

    def _begin(self, name: str, trigger: Cron, timer: _Timer, now: int) -> None:
        """The clock is right for the first time since the line is there."""
        timer.is_new = False
        if trigger.catch_up:
            if timer.last is None:
                # From here on a run may be missed, also before there was a first one.
                self._save(self._memories[name].reached(_label(trigger), now))
            elif timer.last < now and (missed := newest(trigger.line, timer.zone, timer.last, now)) is not None:
                log.info("%s: @cron(%r) came while the gateway was off, and is made up for now", name, trigger.line)
                self._come(name, trigger, timer, missed, now)
        timer.due = self._next(trigger, timer, now)

    def _next(self, trigger: Cron, timer: _Timer, now: int) -> int:
        # After a step back the moments that were fired come again. One that is further away than a day was fired by a
        # clock that was wrong, and must not keep the line silent until then.
        after = max(now, timer.last) if timer.last is not None and timer.last < now + DAY else now
        due = following(trigger.line, timer.zone, after)
        return following(trigger.line, timer.zone, due) if due == timer.last else due

    def _come(self, name: str, trigger: Cron, timer: _Timer, moment: int, now: int) -> None:
        timer.last = moment
        parts = (self._memories[name].reached(_label(trigger), moment),) if trigger.catch_up else ()
        self._metrics.count("triggers.fired", reason="cron")
        occurrence = Occurrence(
            topic=f"cron/{trigger.line}",
            key="",
            payload=to_json({"scheduled": datetime.fromtimestamp(moment // NS, timer.zone).isoformat()}),
            ts=now,
            identity=f"cron {_label(trigger)} {moment}".encode(),
            parts=parts,
        )
        self._fire(name, occurrence)


def _label(trigger: Cron) -> str:
    return f"{trigger.line} {trigger.zone}".strip()
