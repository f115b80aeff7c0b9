"""A drill takes lines away for a while, gives them back whatever happens, and its account adds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgefn.errors import StoreError
from edgefn.gateway import drill
from edgefn.gateway.commands import CommandError
from edgefn.gateway.drill import Drill
from edgefn.store import Commit, Refused, Store
from tests.store.helpers import a_store, item


class Lines:
    """Uplinks that send when a test says so. `cloud` wants all, `alerts` what its name says."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.names = ["alerts", "cloud"]
        self.up = dict.fromkeys(self.names, True)
        self.counts = dict.fromkeys(self.names, 0)
        self.on_restore: Callable[[], None] = lambda: None

    async def cut(self, name: str) -> None:
        self.up[name] = False

    def restore(self, name: str) -> None:
        self.up[name] = True
        self.on_restore()

    def settled(self, name: str) -> int:
        return self.counts[name]

    def wanted(self, name: str, stream: str) -> bool:
        return name == "cloud" or stream.startswith("alert/")

    async def send(self, name: str, n: int, *, refuse: int = 0, forget: bool = False) -> None:
        """Delivers what there is, as far as the line is up; `forget`: without the count that goes with it."""
        await asyncio.sleep(0)
        if not self.up[name]:
            return
        items = await self.store.read(name, n)
        why = {one.id: Refused("no") for one in items[:refuse]}
        await self.store.acknowledge(name, [one.id for one in items], refused=why)
        self.counts[name] += 0 if forget else len(items)


class Desk:
    def __init__(self, store: Store, patience: float = 5.0) -> None:
        self.store = store
        self.lines = Lines(store)
        self.drill = Drill(store, self.lines, patience)
        self.news: list[Any] = []
        self.heard = asyncio.Event()

    async def tell(self, news: Any) -> None:
        self.news.append(news)
        self.heard.set()

    async def summaries(self, n: int) -> None:
        await self.store.commit(Commit([item(n=i, size=100, priority=0) for i in range(n)]))

    async def alerts(self, n: int) -> None:
        await self.store.commit(Commit([item("alert/spike", n=i, size=100, priority=2) for i in range(n)]))

    async def begin(self, seconds: float = 30.0, **more: Any) -> asyncio.Task[Any]:
        """Returns once the lines are cut."""
        self.heard.clear()
        task = asyncio.create_task(self.drill.offline({"seconds": seconds, **more}, self.tell))
        await self.heard.wait()
        return task

    async def stop(self) -> None:
        await self.drill.stop({}, self.tell)

    async def deliver(self, task: asyncio.Task[Any], **more: Any) -> Any:
        """Sends as uplinks would until the drill ends."""
        while not task.done():
            for name in self.lines.names:
                await self.lines.send(name, 3, **more)
        return task.result()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "LOOK", 0.01)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_store(tmp_path / "edgefn.db", uplinks=("alerts", "cloud")) as store:
        yield Desk(store)


async def test_what_is_made_meanwhile_is_buffered_and_then_replayed(desk: Desk) -> None:
    await desk.summaries(3)
    task = await desk.begin()
    assert desk.lines.up == {"alerts": False, "cloud": False}
    assert desk.news[0]["phase"] == "offline"
    assert desk.news[0]["waiting"] == {"alerts": 3, "cloud": 3}
    await desk.summaries(5)
    await desk.alerts(2)
    await desk.stop()
    result = await desk.deliver(task)
    assert result["uplinks"]["cloud"] == {
        "before": 3, "buffered": 7, "replayed": 10, "dropped": {}, "waiting": 0, "lost": 0,
    }  # fmt: skip
    assert (result["lost"], result["waiting"], result["stopped"]) == (0, 0, True)
    assert desk.lines.up == {"alerts": True, "cloud": True}


async def test_it_ends_by_itself_when_the_time_is_over(desk: Desk) -> None:
    task = await desk.begin(0.05)
    result = await desk.deliver(task)
    assert 0.05 <= result["offline_s"] < 5
    assert result["stopped"] is False


async def test_only_the_uplink_that_was_named_is_cut(desk: Desk) -> None:
    task = await desk.begin(uplink="alerts")
    assert desk.lines.up == {"alerts": False, "cloud": True}
    await desk.alerts(2)
    await desk.stop()
    result = await desk.deliver(task)
    assert {name: one["replayed"] for name, one in result["uplinks"].items()} == {"alerts": 2}


async def test_what_is_made_while_it_drains_is_not_waited_for_and_not_lost(desk: Desk) -> None:
    await desk.summaries(4)
    task = await desk.begin()
    await desk.stop()
    while desk.news[-1]["phase"] == "offline":
        await asyncio.sleep(0)
    await desk.summaries(50)
    await desk.lines.send("cloud", 4)
    await desk.lines.send("alerts", 4)
    result = await task
    assert (await desk.store.stats("cloud")).rows == 50
    cloud = result["uplinks"]["cloud"]
    assert (cloud["replayed"], cloud["waiting"], cloud["lost"]) == (4, 0, 0)


async def test_what_makes_room_and_what_is_refused_is_not_lost(tmp_path: Path) -> None:
    async with a_store(tmp_path / "edgefn.db", uplinks=("alerts", "cloud"), max_bytes=2000) as store:
        desk = Desk(store)
        await desk.summaries(10)
        task = await desk.begin(uplink="cloud")
        await desk.summaries(15)
        await desk.stop()
        await desk.lines.send("cloud", 2, refuse=2)
        while not task.done():
            await desk.lines.send("cloud", 3)
        cloud = task.result()["uplinks"]["cloud"]
    given_up = sum(cloud["dropped"].values())
    assert given_up == 5
    assert cloud["before"] + cloud["buffered"] == cloud["replayed"] + given_up == 25
    assert cloud["lost"] == 0


async def test_what_left_the_store_and_was_never_sent_is_lost(desk: Desk) -> None:
    await desk.summaries(3)
    task = await desk.begin(uplink="cloud")
    await desk.summaries(4)
    await desk.stop()
    while not task.done():
        await desk.lines.send("cloud", 3, forget=True)
    assert task.result()["lost"] == 7


async def test_stopped_a_second_time_it_waits_no_longer(desk: Desk) -> None:
    await desk.summaries(3)
    task = await desk.begin(uplink="cloud")
    await desk.stop()
    while desk.news[-1]["phase"] == "offline":
        await asyncio.sleep(0)
    await desk.stop()
    result = await task
    assert (result["waiting"], result["lost"], result["uplinks"]["cloud"]["replayed"]) == (3, 0, 0)
    with pytest.raises(CommandError, match="no drill is under way"):
        await desk.stop()


async def test_a_cloud_that_stays_away_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with a_store(tmp_path / "edgefn.db", uplinks=("alerts", "cloud")) as store:
        desk = Desk(store, patience=0.05)
        await desk.summaries(3)
        task = await desk.begin(0.01)
        assert (await task)["waiting"] == 6


async def test_cancelled_it_gives_the_lines_back(desk: Desk) -> None:
    task = await desk.begin()
    task.cancel()
    await asyncio.wait({task})
    assert desk.lines.up == {"alerts": True, "cloud": True}
    assert (await desk.deliver(await desk.begin(0.01)))["lost"] == 0


async def test_a_store_that_fails_meanwhile_gives_the_lines_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> Any:
        raise StoreError("edgefn.db: disk I/O error")

    task = await desk.begin(0.05)
    monkeypatch.setattr(desk.store, "totals", fail)
    with pytest.raises(StoreError, match="disk I/O error"):
        await task
    assert desk.lines.up == {"alerts": True, "cloud": True}


async def test_a_new_epoch_meanwhile_leaves_no_account(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    totals = desk.store.totals

    async def renumbered() -> Any:
        return replace(await totals(), epoch="other", made={})

    task = await desk.begin()
    await desk.summaries(2)
    monkeypatch.setattr(desk.store, "totals", renumbered)
    await desk.stop()
    with pytest.raises(CommandError, match="the store began a new epoch meanwhile"):
        await desk.deliver(task)


async def test_a_broker_that_hangs_does_not_keep_the_lines_cut(desk: Desk) -> None:
    async def hang(news: Any) -> None:
        desk.heard.set()
        if news["phase"] == "offline":
            await asyncio.Event().wait()

    desk.tell = hang  # type: ignore[method-assign]
    task = await desk.begin(0.05)
    assert (await desk.deliver(task))["lost"] == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "missing required field `seconds`"),
        ({"seconds": 0}, "`float` > 0"),
        ({"seconds": 86_401}, "<= 86400"),
        ({"seconds": 1, "uplink": "clowd"}, "there is no uplink 'clowd'; there are alerts, cloud"),
        ({"seconds": 1, "uplinks": "cloud"}, "unknown field `uplinks`"),
    ],
)
async def test_what_is_not_meant_clearly_is_refused(desk: Desk, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(CommandError) as caught:
        await desk.drill.offline(arguments, desk.tell)
    assert error in str(caught.value)


async def test_without_an_uplink_there_is_nothing_to_cut(desk: Desk) -> None:
    desk.lines.names = []
    with pytest.raises(CommandError, match="there is no uplink to cut"):
        await desk.drill.offline({"seconds": 1}, desk.tell)
