"""All sources of a gateway: one task that sleeps until the next of them wants to look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgefn.clock import NS, Clock
from edgefn.functions.sources.contract import Fire, HasRoom, Save, Source
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics

EMPTY: Mapping[str, Any] = {}


class Sources:
    """`restore` once, `plan` whenever the active functions change, `run` until cancelled."""

    def __init__(
        self,
        fire: Fire,
        clock: Clock,
        metrics: Metrics,
        *,
        is_right: Callable[[], bool],
        has_room: HasRoom = lambda name: True,
        save: Save = lambda part: None,
        state: Path = Path("/"),
        sys: Path = Path("/sys"),
    ) -> None:
        self._clock = clock
        self._woken = asyncio.Event()
        self._sources: list[Source] = []

    def restore(self, saved: Mapping[str, list[bytes]]) -> None:
        """What was stored of earlier occurrences, by owner; owners of others are left alone."""

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        """These are active now. Timers of triggers that were there before go on."""
        for source in self._sources:
            source.plan(functions)
        self.wake()

    def occasion(self, name: str, data: Mapping[str, Any] = EMPTY) -> None:
        """Something that the gateway knows has happened: "start", "stop", "clock-synced"."""

    def wake(self) -> None:
        """Look again now: the clock was set, or a queue that was full has room."""
        self._woken.set()

    def step(self) -> int | None:
        """Fires what is due. Returns the monotonic time of the next look; None: nothing to wait for."""
        return min((due for source in self._sources if (due := source.step()) is not None), default=None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            due = self.step()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0, due - self._clock.monotonic()) / NS):
                    await self._woken.wait()
