"""Taking uplinks off their lines for a while, with an account of what waited, what went and what did not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from edgefn.gateway.commands import CommandError, Tell, Verb
from edgefn.gateway.operations import checked
from edgefn.store import Store, Totals

NEWS = 1.0  # seconds between two messages of how far it is
LOOK = 0.2  # seconds between two looks at what still waits, while it drains
STALLED = 90.0  # seconds without anything that leaves, until the end is not waited for; a back-off is 60 s at most
SECOND_LOOKS = 10  # at what seems lost: an acknowledgement may be between the far side and the store


class Lines(Protocol):
    """What a drill asks of the uplinks; `edgefn.gateway.uplinks.Uplinks` is it."""

    @property
    def names(self) -> list[str]: ...

    async def cut(self, name: str) -> None: ...

    def restore(self, name: str) -> None: ...

    def settled(self, name: str) -> int:
        """How many rows the uplink has told the store that the far side has, or refused, since the start."""

    def wanted(self, name: str, stream: str) -> bool:
        """Whether rows of that stream are made for this uplink."""


class _Offline(msgspec.Struct, forbid_unknown_fields=True):
    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    uplink: str | None = None


class _Stop(msgspec.Struct, forbid_unknown_fields=True):
    pass


@dataclass(frozen=True, slots=True)
class Look:
    """The counts about one uplink at one moment."""

    totals: Totals
    made: int  # rows of the streams that it wants
    waiting: int
    settled: int
    dropped: Counter[str]  # by reason

    def lost_since(self, start: Look) -> int:
        """What waited at the start or was made since, and neither went, nor waits, nor was counted as given up.

        A row that is given up after this uplink had it, because another one had not, counts as both: never too many
        are lost, but with several uplinks and a full store it may be too few.
        """
        there = start.waiting + self.made - start.made
        gone = self.settled - start.settled + (self.dropped - start.dropped).total()
        return max(0, there - gone - self.waiting)


class Drill:
    """The verbs `drill-offline` and `drill-stop`. However the drill ends, the lines are restored."""

    def __init__(self, store: Store, lines: Lines, patience: float = STALLED) -> None:
        self._store = store
        self._lines = lines
        self._patience = patience
        self._now = asyncio.get_running_loop().time
        self._stop = asyncio.Event()
        self._under_way = False

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"drill-offline": self.offline, "drill-stop": self.stop}

    async def stop(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        """Ends the cut at once; asked again, it ends the waiting for what was buffered."""
        checked(arguments, _Stop)
        if not self._under_way:
            raise CommandError("no drill is under way")
        self._stop.set()
        return {"stopping": True}

    async def offline(self, arguments: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Cuts, waits, restores, waits until what had gathered is gone, and tells what became of it."""
        asked = checked(arguments, _Offline)
        names = self._lines.names
        if asked.uplink is not None and asked.uplink not in names:
            raise CommandError(f"there is no uplink {asked.uplink!r}; there are {', '.join(names) or 'none'}")
        if not names:
            raise CommandError("there is no uplink to cut; give edgefn.toml an [[uplink]]")
        chosen = names if asked.uplink is None else [asked.uplink]
        self._under_way = True
        self._stop.clear()
        try:
            try:
                await asyncio.gather(*(self._lines.cut(name) for name in chosen))
                # With the lines cut nothing is between the far side and the store: these counts are exact.
                starts = await self._looks(chosen)
                offline = await self._sit_out(asked.seconds, chosen, tell)
                restored = await self._looks(chosen)
            finally:
                for name in chosen:
                    self._lines.restore(name)
            stopped = self._stop.is_set()
            self._stop.clear()
            began = self._now()
            await self._drain(restored, tell)
            told = {name: await self._account(name, starts[name], restored[name]) for name in chosen}
            return {
                "offline_s": round(offline, 1),
                "drain_s": round(self._now() - began, 1),
                "stopped": stopped,
                "lost": sum(one["lost"] for one in told.values()),
                "waiting": sum(one["waiting"] for one in told.values()),
                "uplinks": told,
            }
        finally:
            self._under_way = False

    async def _sit_out(self, seconds: float, names: Collection[str], tell: Tell) -> float:
        """Returns after how many seconds, which are fewer where it was stopped."""
        began = self._now()
        with suppress(TimeoutError):
            # Around everything: neither a broker that hangs nor a slow disk may keep the lines cut.
            async with asyncio.timeout(seconds):
                while not self._stop.is_set():
                    waiting = (await self._store.totals()).waiting
                    left = max(0.0, began + seconds - self._now())
                    rows = {name: waiting.get(name, 0) for name in names}
                    await tell({"phase": "offline", "left_s": round(left, 1), "waiting": rows})
                    await self._pause(NEWS)
        return self._now() - began

    async def _drain(self, restored: Mapping[str, Look], tell: Tell) -> None:
        """Returns when nothing waits that was stored before the lines were restored; or when nothing moves any more."""
        oldest = dict.fromkeys(restored, 0)
        settled, moved = -1, self._now()
        last_news = moved - NEWS
        while not self._stop.is_set():
            left = {name: await self._left(name, restored[name], oldest) for name in oldest}
            for name, rows in left.items():
                if not rows:
                    del oldest[name]
            now = self._now()
            if (total := sum(self._lines.settled(name) for name in restored)) != settled:
                settled, moved = total, now
            if not oldest or now - moved > self._patience:
                return
            if now - last_news >= NEWS:
                last_news = now
                await tell({"phase": "draining", "waiting": left})
            await self._pause(LOOK)

    async def _left(self, name: str, restored: Look, oldest: dict[str, int]) -> int:
        """How many rows wait for the uplink, 0 where none of them is of before the restoration."""
        waiting = (await self._store.totals()).waiting.get(name, 0)
        if not waiting:
            return 0
        # What waits longest only grows younger: rows that were passed need no second look.
        first = await self._store.peek(1, after=max(0, oldest[name] - 1), uplink=name)
        if not first or first[0].id > restored.totals.position:
            return 0
        oldest[name] = first[0].id
        return waiting

    async def _account(self, name: str, start: Look, restored: Look) -> dict[str, Any]:
        end = await self._look(name)
        for _ in range(SECOND_LOOKS):
            if not end.lost_since(start):
                break
            await asyncio.sleep(LOOK)
            end = await self._look(name)
        if end.totals.epoch != start.totals.epoch:
            raise CommandError("the store began a new epoch meanwhile, so this drill has no account; see the log")
        dropped, late = end.dropped - start.dropped, end.dropped - restored.dropped
        first = await self._store.peek(1, uplink=name)
        done = not first or first[0].id > restored.totals.position
        return {
            "before": start.waiting,
            "buffered": restored.made - start.made,
            "replayed": max(0, min(end.settled - restored.settled, restored.waiting - late.total())),
            "dropped": dict(dropped),
            "waiting": 0 if done else end.waiting,
            "lost": end.lost_since(start),
        }

    async def _looks(self, names: Collection[str]) -> dict[str, Look]:
        return {name: await self._look(name) for name in names}

    async def _look(self, name: str) -> Look:
        settled = self._lines.settled(name)
        totals = await self._store.totals()
        dropped: Counter[str] = Counter()
        for (stream, uplink, reason), n in totals.dropped.items():
            # "refused": a dead letter that made room for others; it was settled when it was refused.
            if uplink in ("", name) and reason != "refused" and self._lines.wanted(name, stream):
                dropped[reason] += n
        made = sum(n for stream, n in totals.made.items() if self._lines.wanted(name, stream))
        return Look(totals, made, totals.waiting.get(name, 0), settled, dropped)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
