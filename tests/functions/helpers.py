"""A scheduler with real workers and a sink in memory for what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefn.clock import SystemClock
from edgefn.events import from_json
from edgefn.functions.guard import Guard
from edgefn.functions.invocation import Invocation, new_id
from edgefn.functions.journal import Cut
from edgefn.functions.lane import Deployment
from edgefn.functions.protocol import Forward
from edgefn.functions.scheduler import Scheduler
from edgefn.loader import describe
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics
from edgefn.store import NewItem

PATIENCE = 20.0


@dataclass
class Memory:
    """An outlet that remembers."""

    published: list[tuple[str, bytes]] = field(default_factory=list)
    values: list[tuple[str, Any]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.published.append((topic, payload))

    def returned(self, deployment: Deployment, invocation: Invocation, value: bytes) -> Sequence[NewItem]:
        self.values.append((deployment.manifest.name, from_json(value)))
        return ()

    def forwarded(self, deployment: Deployment, invocation: Invocation, forward: Forward) -> NewItem:
        return NewItem(f"summary/{deployment.manifest.name}", forward.values, 0)


class Functions:
    """A scheduler that runs, and what came of it."""

    def __init__(self, scheduler: Scheduler, out: Memory, metrics: Metrics, folder: Path) -> None:
        self.scheduler, self.out, self.metrics, self.folder = scheduler, out, metrics, folder

    def write(self, name: str, source: str) -> None:
        """Puts a handler file there and deploys all that are there."""
        (self.folder / name).write_text(source)
        self.scheduler.deploy([one for path in sorted(self.folder.glob("*.py")) for one in deployments(path)])

    def invoke(self, function: str, payload: bytes = b"{}", **options: Any) -> Invocation:
        options = {"topic": "a/b", "id": new_id(), **options}
        invocation = Invocation(function=function, payload=payload, **options)
        self.scheduler.invoke(invocation)
        return invocation

    async def until(self, predicate: Callable[[], Any], what: str = "") -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not predicate():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{what or 'it'} does not happen: {self.scheduler.report()}") from None

    async def outcomes(self, function: str, n: int) -> dict[str, int]:
        """How the first n attempts of a function ended."""
        meter = self.scheduler.lanes[function].meter
        await self.until(lambda: meter.outcomes.total() >= n, f"attempt {n} of {function}")
        return dict(meter.outcomes)

    def commit(self) -> Cut:
        """What a commit would store, stored."""
        cut = self.scheduler.journal.cut(with_engine=True)
        self.scheduler.journal.stored(cut)
        return cut


def deployments(path: Path) -> list[Deployment]:
    _, specs = describe(path, path.read_text())
    return [Deployment(FunctionManifest.of(spec), str(path), str(path), str(path.stat().st_mtime_ns)) for spec in specs]


@asynccontextmanager
async def functions(folder: Path, *, workers: int = 4) -> AsyncIterator[Functions]:
    out, metrics = Memory(), Metrics()
    secrets = folder / "secrets"
    secrets.mkdir()
    scheduler = Scheduler(out, SystemClock(), metrics, gateway="gw", workers=workers, secrets=secrets)
    tasks = [asyncio.create_task(scheduler.pool.run()), asyncio.create_task(Guard(scheduler.pool, metrics).run())]
    try:
        yield Functions(scheduler, out, metrics, folder)
    finally:
        await scheduler.stop(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
