"""All sources together, as the gateway uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from edgefn.durations import UNITS
from edgefn.functions.sources import Sources, owner
from edgefn.metrics import Metrics
from edgefn.testing import ManualClock
from edgefn.triggers import Cron, Every, OnFile, OnOccasion
from tests.functions.sources.helpers import Fired, function

S = UNITS["s"]


class Bench:
    def __init__(self, tmp_path: Path, before: Fired | None = None) -> None:
        self.fired, self.clock = Fired(), ManualClock()
        self.sources = Sources(
            self.fired,
            self.clock,
            Metrics(),
            is_right=lambda: True,
            has_room=self.fired.has_room,
            save=self.fired.save,
            state=tmp_path,
            sys=tmp_path / "sys",
        )
        if before is not None:
            self.sources.restore(before.saved() | {"handler x": [b"not of a trigger"]})

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                await asyncio.sleep(0.005)


async def test_one_task_wakes_for_all_of_them(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("1")
    bench = Bench(tmp_path)
    fired = bench.fired
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.sources.run())
        bench.sources.occasion("start")
        bench.sources.plan(
            [
                function("f", Every(5 * S), OnFile(f"{tmp_path}/in", "*"), OnOccasion("start"), OnOccasion("stop")),
                function("c", Cron("* * * * *", "UTC", catch_up=True)),
            ]
        )
        await bench.until(lambda: len(fired.all) == 2)
        bench.clock.advance("5s")
        bench.sources.wake()
        await bench.until(lambda: len(fired.all) == 3)
        bench.clock.advance("55s")
        bench.sources.wake()
        await bench.until(lambda: len(fired.all) == 5)
        bench.sources.occasion("stop")
        task.cancel()
    assert sorted(fired.topics) == [
        "cron/* * * * *",
        "every/5s",
        "every/5s",
        f"file/{tmp_path}/in/a.csv",
        "system/start",
        "system/stop",
    ]
    assert {part.owner for part in fired.parts} == {owner("f 1"), owner("c 1")}
    assert len({(name, one.identity) for name, one in fired.all}) == 6


async def test_the_next_life_goes_on_where_this_one_was(tmp_path: Path):
    functions = [function("f", OnFile(str(tmp_path), "*.csv"), Cron("* * * * *", "UTC", catch_up=True))]
    (tmp_path / "a.csv").write_text("1")
    first = Bench(tmp_path)
    first.sources.plan(functions)
    await first.sources._files.look()
    await first.sources._files.offer()
    first.sources.step()
    assert len(first.fired.all) == 1
    second = Bench(tmp_path, before=first.fired)
    second.clock.advance("1h")
    second.sources.plan(functions)
    await second.sources._files.look()
    await second.sources._files.offer()
    second.sources.step()
    assert second.fired.topics == ["cron/* * * * *"]  # made up for, and the file is no news
    assert {part.owner for part in first.fired.parts} <= {part.owner for part in first.sources.forget("f")}


def test_nothing_wanted_is_nothing_to_wait_for(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.sources.plan([function("f")])
    assert bench.sources.step() is None
