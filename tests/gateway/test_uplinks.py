"""A gateway's uplinks each get what their filter lets through, at their own speed, and nobody waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgefn.config import Config, GatewaySettings, UplinkSettings
from edgefn.errors import ConfigError
from edgefn.fields import Field
from edgefn.gateway.results import Row
from edgefn.gateway.uplinks import Uplinks
from edgefn.manifest import HandlerManifest
from edgefn.metrics import Metrics
from edgefn.options import Options
from edgefn.store import Commit, Store
from tests.store.helpers import START, TurnedClock, a_store

MINUTE = HandlerManifest(
    name="minute",
    kind="aggregate",
    pattern="rooms/+",
    parent=None,
    inputs=(Field("t"),),
    outputs=(Field("mean"),),
    options=Options(("local", "uplink")),
    line=1,
)
SPIKE = HandlerManifest(
    name="spike",
    kind="anomaly",
    pattern="rooms/+",
    parent=None,
    inputs=(Field("t"),),
    outputs=(Field("score"),),
    options=Options(("uplink",)),
    line=2,
)


def row(handler: HandlerManifest, n: int = 0) -> Row:
    return Row(handler, "attic", START, b'{"n":%d}' % n)


def archive(folder: Path, name: str, **options: Any) -> UplinkSettings:
    return UplinkSettings(name, "file", {"folder": str(folder / name), "batch_age_ms": 0, "patience_s": 0, **options})


def uplinks(*entries: UplinkSettings) -> Uplinks:
    return Uplinks(Config(GatewaySettings("gw-1"), uplink=entries), clock=TurnedClock(), metrics=Metrics())


@contextlib.asynccontextmanager
async def running(path: Path, all_of_them: Uplinks) -> AsyncIterator[Store]:
    async with a_store(path / "store.db", uplinks=tuple(all_of_them.names)) as store:
        all_of_them.open(store)
        task = asyncio.create_task(all_of_them.run())
        yield store
        task.cancel()
        await asyncio.wait({task})


def arrived(folder: Path) -> list[tuple[str, int]]:
    """Stream and number of each line, in the order of the files."""
    lines = [line for file in sorted(folder.glob("*.ndjson")) for line in file.read_text().splitlines()]
    return [(one["stream"], one["seq"]) for one in map(json.loads, lines)]


def test_an_item_is_made_for_those_that_want_it(tmp_path: Path) -> None:
    both = uplinks(archive(tmp_path, "all"), archive(tmp_path, "alerts", streams=["alert/*"]))
    minute, spike = both.items([row(MINUTE).item(), row(SPIKE).item()])
    assert (minute.stream, minute.uplinks) == ("summary/minute", frozenset({"all"}))
    assert (spike.stream, spike.uplinks) == ("alert/spike", None)


def test_what_nobody_wants_is_not_stored_and_takes_no_number(tmp_path: Path) -> None:
    assert uplinks(archive(tmp_path, "alerts", streams=["alert/*"])).items([row(MINUTE).item()]) == []
    assert uplinks().items([row(MINUTE).item()]) == []


def test_settings_that_no_uplink_can_be_made_of_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_rate = 'fast'"):
        uplinks(archive(tmp_path, "all", max_rate="fast"))


async def test_a_slow_uplink_holds_up_no_other_and_gets_everything_in_the_end(tmp_path: Path) -> None:
    both = uplinks(archive(tmp_path, "all"), archive(tmp_path, "alerts", streams=["alert/*"]))
    async with running(tmp_path, both) as store:
        await both.cut("alerts")
        for n in range(20):
            await store.commit(Commit(both.items([row(MINUTE, n).item(), row(SPIKE, n).item()])))
            both.kick()
        async with asyncio.timeout(10):
            while (await both.states())["all"]["rows"]:
                await asyncio.sleep(0.001)
        states = await both.states()
        assert (states["alerts"]["state"], states["alerts"]["rows"]) == ("cut", 20)
        assert states["all"]["sent"] == 40
        both.restore("alerts")
        async with asyncio.timeout(10):
            while (await both.states())["alerts"]["rows"]:
                await asyncio.sleep(0.001)
        assert await store.drops() == []
    alerts = [("alert/spike", n) for n in range(1, 21)]
    assert arrived(tmp_path / "alerts") == alerts
    assert [one for one in arrived(tmp_path / "all") if one[0] == "alert/spike"] == alerts
    assert len(arrived(tmp_path / "all")) == 40


async def test_stopping_gives_those_that_are_connected_a_moment(tmp_path: Path) -> None:
    both = uplinks(archive(tmp_path, "all"), archive(tmp_path, "other"))
    async with running(tmp_path, both) as store:
        await both.cut("other")
        async with asyncio.timeout(10):
            while (await both.states())["all"]["state"] != "connected":
                await asyncio.sleep(0.001)
        await store.commit(Commit(both.items([row(MINUTE).item()])))
        both.kick()
        await both.drain()
        states = await both.states()
        assert (states["all"]["rows"], states["other"]["rows"]) == (0, 1)
