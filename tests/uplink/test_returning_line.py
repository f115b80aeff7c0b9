"""A line that comes back to a backlog: new rows have their share, each lane keeps its order, nobody starves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgefn.sinks import Refusal
from edgefn.store import Commit, Item
from edgefn.store.records import HIGH, LOW
from tests.store.helpers import item
from tests.uplink.helpers import Bench, bench

BACKLOG = 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def drained(one: Bench, *, new: int, priority: int = 1, high: int = 0) -> list[dict[str, Any]]:
    """Drains a backlog of stream "a" in batches of 10, while `new` rows of "a" and `high` of "alert" come before each."""
    send, coming = one.sink.send, BACKLOG

    async def receiving(batch: Sequence[Item]) -> Sequence[Refusal]:
        nonlocal coming
        if coming > 0:
            coming -= 10
            await one.store.commit(
                Commit(
                    [item("a", priority=priority) for _ in range(new)]
                    + [item("alert", priority=HIGH) for _ in range(high)]
                )
            )
            one.uplink.kick()
        return await send(batch)

    one.sink.send = receiving  # type: ignore[method-assign]
    await one.store.commit(Commit([item("a", priority=priority) for _ in range(BACKLOG)]))
    task = asyncio.create_task(one.uplink.run())
    await one.empty()
    task.cancel()
    await asyncio.wait({task})
    return one.sink.received


def lanes(received: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    seqs = [message["seq"] for message in received if message["stream"] == "a"]
    return [seq for seq in seqs if seq <= BACKLOG], [seq for seq in seqs if seq > BACKLOG]


async def test_without_a_share_the_backlog_goes_first(path: Path) -> None:
    async with bench(path, batch_size=10) as one:
        received = await drained(one, new=5)
    assert [message["seq"] for message in received] == list(range(1, len(received) + 1))


async def test_with_a_share_new_rows_go_first_and_both_lanes_keep_their_order(path: Path) -> None:
    async with bench(path, batch_size=10, live_share=0.5) as one:
        received = await drained(one, new=10)
    old, new = lanes(received)
    assert old == list(range(1, BACKLOG + 1))
    assert new == sorted(new)
    assert len(new) == 200
    # The first batch was read before anything new was there, for which the second pays.
    first = [message["seq"] for message in received[:200]]
    assert sum(seq > BACKLOG for seq in first) == 100


async def test_a_little_that_is_new_does_not_slow_the_backlog_down(path: Path) -> None:
    async with bench(path, batch_size=10, live_share=0.5, patience_s=1000) as one:
        received = await drained(one, new=1)
    assert len(received) == BACKLOG + 20


async def test_low_priorities_starve_in_neither_lane(path: Path) -> None:
    """High rows fill every batch; those of low priority, old and new, arrive all the same before the last high one."""
    async with bench(path, batch_size=10, live_share=0.5) as one:
        received = await drained(one, new=1, priority=LOW, high=20)
    streams = [message["stream"] for message in received]
    last_alert = len(streams) - 1 - streams[::-1].index("alert")
    before = [message["seq"] for message in received[:last_alert] if message["stream"] == "a"]
    assert sum(seq <= BACKLOG for seq in before) >= 30
    assert sum(seq > BACKLOG for seq in before) >= 5
    old, new = lanes(received)
    assert (old, new) == (sorted(old), sorted(new))
