"""A line with a rate or a budget: what may go goes, in order, and what it cost is remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgefn.clock import NS
from edgefn.store.records import HIGH
from edgefn.uplink.budget import DAY
from tests.store.helpers import TurnedClock
from tests.uplink.helpers import Bench, bench, running, settled


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def noon() -> TurnedClock:
    clock = TurnedClock()
    clock.ns = clock.ns // DAY * DAY + DAY // 2
    return clock


async def until(one: Bench, rows: int) -> None:
    """Until so many rows wait."""
    async with asyncio.timeout(10):
        while (await one.store.stats("cloud")).rows > rows:
            await asyncio.sleep(0.001)


async def test_in_the_long_run_no_more_than_the_rate_goes(path: Path) -> None:
    async with bench(path, max_rate=2000, time_passes=True) as one:
        await one.commit(*["a"] * 60)
        began = one.clock.monotonic()
        task = asyncio.create_task(one.uplink.run())
        await one.empty()
        seconds = (one.clock.monotonic() - began) / NS
        assert one.sink.bytes_sent / 2000 - 1.2 <= seconds <= one.sink.bytes_sent / 2000 + 1
        assert [message["seq"] for message in one.sink.received] == list(range(1, 61))
        task.cancel()
        await asyncio.wait({task})


async def test_an_item_larger_than_a_second_s_worth_goes_alone_and_the_next_waits_for_it(path: Path) -> None:
    async with running(path, max_rate=1000) as one:
        await one.commit("a", size=5000)
        await one.commit("a")
        seconds = await one.sleeps.ask()
        assert len(one.sink.received) == 1
        assert seconds == pytest.approx(one.sink.bytes_sent / 1000, rel=0.01)
        one.clock.turn(seconds)
        one.sleeps.go()
        await one.empty()
        assert len(one.sink.received) == 2


async def test_what_was_written_for_nothing_counts_too(path: Path) -> None:
    async with running(path, daily_bytes=1 << 20) as one:
        one.sink.lose_acknowledgement(after=1)
        await one.commit("a", "a")
        await one.sleeps.next()
        await one.empty()
        assert len(one.sink.received) == 3
        state = await one.uplink.state()
        assert state["budget"]["spent"] == one.sink.bytes_sent
        spent = await one.store.spent("cloud")
        assert spent is not None
        assert spent.bytes == one.sink.bytes_sent


async def test_used_up_it_waits_for_midnight_and_says_so(path: Path, noon: TurnedClock) -> None:
    async with running(path, daily_bytes=2000, clock=noon) as one:
        await one.commit(*["a"] * 30)
        assert await one.sleeps.ask() == 60
        state = await one.uplink.state()
        assert state["state"] == "budget"
        assert state["rows"] == 30 - len(one.sink.received) > 0
        assert state["budget"] == {
            "daily": 2000,
            "spent": one.sink.bytes_sent,
            "left": 2000 - one.sink.bytes_sent,
            "renewed_s": 12 * 3600,
        }
        assert 1500 < one.sink.bytes_sent <= 1800
        before = len(one.sink.received)
        one.clock.turn(12 * 3600)
        one.sleeps.go()
        await one.sleeps.ask()
        assert len(one.sink.received) > before
        assert [message["seq"] for message in one.sink.received] == list(range(1, len(one.sink.received) + 1))


async def test_the_last_tenth_carries_what_is_high_and_at_once(path: Path, noon: TurnedClock) -> None:
    async with running(path, daily_bytes=4000, clock=noon) as one:
        await one.commit(*["a"] * 40)
        await one.sleeps.ask()
        waiting = (await one.store.stats("cloud")).rows
        await one.commit("alert/a", priority=HIGH)
        while one.sink.received[-1]["stream"] != "alert/a":
            await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            while (await one.store.stats("cloud")).rows != waiting:  # until it is known that it was sent
                await asyncio.sleep(0.001)
        assert one.sink.bytes_sent <= 4000
        await settled()
        assert (await one.uplink.state())["state"] == "budget"


async def test_a_restart_does_not_begin_the_day_anew(path: Path, noon: TurnedClock) -> None:
    async with running(path, daily_bytes=2000, clock=noon) as one:
        await one.commit(*["a"] * 20)
        await one.sleeps.ask()
        spent = one.sink.bytes_sent
    async with running(path, daily_bytes=2000, clock=noon) as one:
        await one.sleeps.ask()
        assert one.sink.received == []
        assert (await one.uplink.state())["budget"]["spent"] == spent


async def test_an_item_that_no_day_can_carry_becomes_a_dead_letter(path: Path, noon: TurnedClock) -> None:
    async with running(path, daily_bytes=2000, clock=noon) as one:
        await one.commit("a", size=3000)
        await one.commit("a")
        await one.empty()
        assert [message["seq"] for message in one.sink.received] == [2]
        (letter,) = await one.store.dead(10)
        assert letter.reason == "over_budget"
        assert "daily_bytes leaves it 1800" in letter.detail


async def test_while_the_line_must_wait_anyway_an_acknowledgement_goes_along_with_a_commit(path: Path) -> None:
    async with running(path, max_rate=1000, patience_s=2) as one:
        patience = []
        acknowledge = one.store.acknowledge

        async def noting(*args: object, **options: object) -> None:
            patience.append(options["patience"])
            options["patience"] = 0.0
            await acknowledge(*args, **options)  # type: ignore[arg-type]

        one.store.acknowledge = noting  # type: ignore[method-assign]
        await one.commit(*["a"] * 20)
        await one.sleeps.ask()
        assert 0.2 < patience[0] <= 1
