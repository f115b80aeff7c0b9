"""kill -9 of gateway or engine, at any moment: no QoS 1 event is lost, none is counted twice, no summary is lost or invented."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from edgefn.broker import PrivateBroker
from tests.faults import LONG, SEED
from tests.faults.cloud import Cloud, consuming
from tests.faults.load import KEYS, RATE, Load, Truth
from tests.faults.plant import Plant
from tests.faults.workload import LATENESS, SECOND, differences, expected, settled

KILLS = 200 if LONG else 6
BEHIND = 3 * SECOND  # a gateway that is further behind than this is left to catch up: the broker's queue is bounded
EARLY = 0.3  # of the kills come while what was killed before is still coming back

pytestmark = [pytest.mark.faults, pytest.mark.timeout(KILLS * 10 + 120)]


async def test_killed_at_any_moment_every_event_is_counted_once(
    running: Plant, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    moments = random.Random(SEED)
    cloud = Cloud()
    async with consuming(cloud, cloud_broker.port):
        async with Load(local.port) as load:
            await cloud.grown(10)
            for number in range(KILLS):
                if moments.random() >= EARLY:
                    while load.now - cloud.newest > BEHIND:
                        await cloud.grown(60)
                await asyncio.sleep(moments.uniform(0.0, 2.0))
                if number % 6 >= 4:
                    await running.commit_unheard()
                if number % 2:
                    await running.kill_gateway()
                else:
                    await running.kill_engine()
        want = await settled(cloud, load)
        assert await running.device.stop() == 0  # nor does it put out anything on its way out
    print(  # noqa: T201 - the account of a long run
        f"{KILLS} kills, {load.sent} events, {cloud.count} rows, {cloud.duplicates} came again: "
        f"{cloud.findings or 'in order and dense'}, {differences(want, cloud.rows) or 'exact'}"
    )
    assert not cloud.findings
    assert not differences(want, cloud.rows)


async def test_an_engine_killed_before_it_has_read_a_word_is_started_again(running: Plant) -> None:
    """What the gateway told it is unread, which makes the socket between them report a reset instead of its end."""
    await running.kill_engine()
    for _ in range(3):
        (await running.engine()).suspend()
        await asyncio.sleep(0.2)  # the gateway has written, and the engine cannot read
        await running.kill_engine()
    await running.engine()
    assert await running.device.stop() == 0


def test_every_event_that_the_filter_lets_pass_is_in_one_window() -> None:
    truth, n = Truth(1_800_000_000 * SECOND), 5 * RATE
    rows = expected(truth, n)
    for first in range(KEYS):
        key = f"m{first:02}"
        times = [truth.ts(i) for i in range(first, n, KEYS) if truth.value(i) < 900]
        tenths = {end: row for (of, end), row in rows["summary/tenth"].items() if of == key}
        still_open = sum(ts >= max(tenths) for ts in times)
        assert sum(row[0] for row in tenths.values()) + still_open == len(times)
        assert sum(of == key for of, _ in rows["summary/ten"]) == len(times) // 10
        raised = sum(row == (True,) for (of, _), row in rows["alert/fiftieth"].items() if of == key)
        assert raised == len(times) // 50


def test_the_load_is_out_of_order_but_never_late() -> None:
    truth = Truth(0)
    times = [truth.ts(i) for i in range(0, 20_000, KEYS)]
    assert times != sorted(times)
    assert len(times) == len(set(times))
    assert max(earlier - later for earlier, later in pairwise(times)) < LATENESS
