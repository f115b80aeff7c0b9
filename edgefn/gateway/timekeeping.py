"""Gateway time is kept: this machine's clock is followed where it can be believed, and the store learns of every change."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from edgefn import events
from edgefn.clock import EARLIEST, NS, STEP, Clock, SystemClock, is_plausible
from edgefn.errors import StoreError
from edgefn.gateway.timeservice import TimeService
from edgefn.metrics import Metrics
from edgefn.store import Era
from edgefn.timestamps import to_iso

log = logging.getLogger(__name__)

NOISE = NS // 1000  # two clocks cannot be read at the same instant
UNSETTLED, SETTLED = 1.0, 5.0  # seconds between two looks; gateway time does not depend on how soon a step is seen
CHECKPOINT = "clock"  # the engine's, written with each commit: the newest gateway time there is
MAX_SPANS = 16  # whose rows may still be on their way from the engine

State = Literal["synced", "waiting", "trusted", "wrong"]


class Service(Protocol):
    def is_synchronised(self) -> bool: ...

    def is_running(self) -> bool: ...


class SettableClock(Protocol):
    """Gateway time; edgefn.clock.SharedClock is one."""

    offset: int


class EraStore(Protocol):
    """What is asked of the store."""

    async def begin_era(self, boot: str, offset: int, synced: bool) -> None: ...

    async def newest_era(self) -> Era | None: ...

    async def load_checkpoint(self, owner: str) -> dict[str, list[bytes]]: ...


class _Span(NamedTuple):
    """A time in which gateway time ran on undisturbed."""

    offset: int
    is_right: bool


def boot_id() -> str:
    """This boot's name, as the kernel gives it; a random one where it does not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(16)


class Timekeeper:
    """`begin` before anything is stored, then `run`.

    synced   the clock is known to be right, and followed
    waiting  a time service runs and has not synchronised yet: gateway time is the clock's, or the newest time known
    trusted  nothing here synchronises the clock: it is taken as it is
    wrong    the clock says what cannot be: it is not followed, and gateway time goes on by itself
    """

    def __init__(
        self,
        clock: SettableClock,
        metrics: Metrics,
        *,
        boot: str = "",
        system: Clock | None = None,
        service: Service | None = None,
    ) -> None:
        self.state: State = "waiting"
        self.is_right = False  # gateway time, as far as can be known
        self.boot = boot or boot_id()
        self._clock = clock
        self._metrics = metrics
        self._system = system or SystemClock()
        self._service = service or TimeService()
        self._store: EraStore
        self._offset = self._floor = 0
        self._was_synced = False
        self._steps, self._last_step = 0, 0
        self._spans: deque[_Span] = deque(maxlen=MAX_SPANS)
        self._stored: _Span | None = None  # the one that the store is in
        self._is_told = False  # the store has the last one
        self._became_right = asyncio.Event()
        self.steady = asyncio.Lock()  # who holds it while rows are stamped and stored sees no other era in between

    async def begin(self, store: EraStore) -> None:
        """Sets gateway time. Without a clock to believe it goes on from what is known, so that time does not go back."""
        self._store = store
        era = await store.newest_era()
        if era is not None and era.boot == self.boot:
            self._floor, self.is_right = era.offset, era.synced
            self._was_synced = era.synced
        else:
            parts = (await store.load_checkpoint(CHECKPOINT)).get(CHECKPOINT, [])
            newest = events.unpack(parts[-1])["now"] if parts else 0
            self._floor = max(newest, EARLIEST) - self._system.monotonic()
        self._offset = self._floor
        self._judge()
        self._steps = 0
        await self._begin_span()

    async def run(self) -> None:
        """Looks at the clock now and then, until cancelled."""
        while True:
            await asyncio.sleep(SETTLED if self.is_right else UNSETTLED)
            await self.check()

    async def check(self) -> None:
        """Looks at the clock once, and lets all know of a change."""
        if self._judge() or not self._is_told:
            await self._begin_span()

    async def wait_until_right(self, patience: float) -> None:
        """Returns when gateway time is right, at the latest after `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._became_right.wait()
        except TimeoutError:
            log.warning(
                "the clock is not known to be right after %g s (%s): what is sent says so (unsynced)",
                patience,
                self.state,
            )

    @property
    def steps(self) -> int:
        """How often the clock was set."""
        return self._steps

    async def right(self) -> None:
        """Returns when gateway time is right."""
        await self._became_right.wait()

    def correction(self, offset: int) -> int | None:
        """What to add to a time stamped by gateway time of `offset`, before it is stored now; None: it stays for good.

        A row may come after the clock was set and be of before. By a wrong clock it is put right as the era of its time
        was; by a right one it stays. What an earlier boot has stamped stays too: nobody knows how to move it.
        """
        assert self._stored is not None
        if abs(offset - self._stored.offset) < STEP:
            return 0
        span = next((span for span in reversed(self._spans) if abs(span.offset - offset) < STEP), None)
        return None if span is None or span.is_right else self._stored.offset - offset

    def report(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "right": self.is_right,
            "steps": self._steps,
            "last_step_s": self._last_step / NS if self._steps else None,
        }

    def _judge(self) -> bool:
        """Whether a new era begins: the clock was set, or is known to be right from now on, or is no longer."""
        system = self._measure()
        before = self.state, self.is_right
        target = self._offset
        if not is_plausible(system + self._system.monotonic()):
            self.state = "wrong"
        elif self._service.is_synchronised():
            self.state, self.is_right, self._was_synced, target = "synced", True, True, system
        elif self._service.is_running() and self._was_synced and abs(system - self._offset) < STEP:
            self.state, target = "synced", system  # out of reach of its servers, it drifts by seconds in a day
        elif self._service.is_running():
            self.state, self.is_right, self._was_synced, target = "waiting", False, False, max(system, self._floor)
        else:
            self.state, self.is_right, self._was_synced, target = "trusted", True, False, system
        step = target - self._offset
        if abs(step) >= NOISE:
            self._offset = target
        if abs(step) < STEP:
            self._clock.offset = self._offset
        else:
            self._steps, self._last_step = self._steps + 1, step
        self._tell(before, step)
        if self.is_right:
            self._became_right.set()
        return abs(step) >= STEP or before[1] != self.is_right

    def _measure(self) -> int:
        """How far this machine's clock is ahead of its monotonic one."""
        spans = []
        for _ in range(3):
            before = self._system.monotonic()
            now = self._system.now()
            after = self._system.monotonic()
            spans.append((after - before, now - (before + after) // 2))
            if after - before < NOISE:
                break
        return min(spans)[1]

    def _tell(self, before: tuple[State, bool], step: int) -> None:
        if self.state == "wrong" and before[0] != "wrong":
            log.warning(
                "the clock of this machine says %s, which cannot be: gateway time goes on from %s without it. Set the clock, "
                "or let a time service do it; until then certificates cannot be checked",
                to_iso(self._system.now()),
                to_iso(self._offset + self._system.monotonic()),
            )
        if self._stored is None:
            return
        if abs(step) >= STEP:
            self._metrics.count("clock.steps", reason="forward" if step > 0 else "back")
            log.warning("the clock was set by %+.3f s (%s): windows begin anew", step / NS, self.state)
        if self.is_right and not before[1]:
            log.warning("the clock is right now (%s); what was stored before is stamped by it", self.state)

    async def _begin_span(self) -> None:
        span = _Span(self._offset, self.is_right)
        self._spans.append(span)
        async with self.steady:
            try:
                await self._store.begin_era(self.boot, *span)
                self._stored, self._is_told = span, True
            except StoreError as error:  # time goes on; the next look tries again
                log.error("%s; until it takes the change of the clock, rows are stored as if it had not changed", error)
                self._stored, self._is_told = self._stored or span, False
            # Only now: what is stamped by the new offset finds its era there.
            self._clock.offset = self._offset
