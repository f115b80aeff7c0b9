"""All sources of a gateway: one task that sleeps until the next of them wants to look, and one for the folders."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgefn.clock import NS, Clock
from edgefn.functions.sources.conditions import Disk, Network, Supply
from edgefn.functions.sources.contract import Fire, HasRoom, Save, Source
from edgefn.functions.sources.cron import Crons
from edgefn.functions.sources.every import Intervals
from edgefn.functions.sources.files import Files
from edgefn.functions.sources.memory import Memories
from edgefn.functions.sources.occasions import Occasions
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics
from edgefn.store.records import CheckpointPart

EMPTY: Mapping[str, Any] = {}


class Sources:
    """`restore` once, `plan` whenever the active functions change, `run` until cancelled.

    state: a folder of the file system whose room is looked after. sys: where the kernel tells of network and voltage.
    """

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
        life = os.urandom(8).hex().encode()
        self._clock = clock
        self._memories = Memories(clock, save)
        self._occasions = Occasions(fire, clock, metrics, life, (Network(sys), Disk(state), Supply(sys)))
        self._files = Files(fire, clock, metrics, self._memories, has_room)
        self._sources: tuple[Source, ...] = (
            Intervals(fire, clock, metrics, life),
            Crons(fire, clock, metrics, self._memories, is_right, save),
            self._occasions,
        )
        self._woken = asyncio.Event()

    def restore(self, saved: Mapping[str, list[bytes]]) -> None:
        """What was stored of earlier occurrences, by owner; owners of others are left alone. Before the first plan."""
        self._memories.restore(saved)

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        """These are active now. Timers of triggers that were there before go on."""
        for source in self._sources:
            source.plan(functions)
        self._files.plan(functions)
        self._woken.set()

    def occasion(self, name: str, data: Mapping[str, Any] = EMPTY) -> None:
        """Something that the gateway knows has happened: "start", "stop", "clock-synced"."""
        self._occasions.occasion(name, data)
        self._woken.set()

    def wake(self) -> None:
        """Look again now: the clock was set, or a queue that was full has room."""
        self._files.wake()
        self._woken.set()

    def forget(self, function: str) -> list[CheckpointPart]:
        """Returns what takes the memory of a function that is gone for good out of the store. Back again, it is a new one."""
        return self._memories.forget(function)

    def step(self) -> int | None:
        """Fires what is due. Returns the monotonic time of the next look; None: nothing to wait for."""
        return min((due for source in self._sources if (due := source.step()) is not None), default=None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._files.run())
            while True:
                self._woken.clear()
                due = self.step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due is None else max(0, due - self._clock.monotonic()) / NS):
                        await self._woken.wait()
