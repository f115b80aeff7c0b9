"""kill -9 of gateway, engine, template or worker: each QoS 1 event has the effects of its Python handler once, none is lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

import psutil
import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Backoff, Bus
from edgefn.errors import EdgefnError
from tests.faults import LONG, SEED
from tests.faults.plant import Plant, plant
from tests.integration.device import GATEWAY, decoded

KILLS = 120 if LONG else 8
RATE = 150  # events a second

pytestmark = [pytest.mark.faults, pytest.mark.timeout(KILLS * 10 + 120)]

HANDLERS = """
import time
from edgefn import on

@on("work/{who}", retries=20, backoff="20ms", timeout="2s", max_queue=20000)
def adds(event, ctx):
    n = event["n"]
    ctx.state["count"] = ctx.state.get("count", 0) + 1
    ctx.state["sum"] = ctx.state.get("sum", 0) + n
    if n % 50 == 7 and event.attempt == 1:
        raise RuntimeError("at the first attempt")
    ctx.forward({"n": n, "count": ctx.state["count"], "sum": ctx.state["sum"]})
    if n % 10 == 0:
        ctx.invoke("echoes", {"n": n})

@on("nothing", retries=20, backoff="20ms", max_queue=20000)
async def echoes(event, ctx):
    ctx.forward({"n": event["n"]})
"""


async def kill(plant: Plant, what: str) -> None:
    if what == "gateway":
        await plant.kill_gateway()
    elif what == "engine":
        await plant.kill_engine()
    else:
        children = plant.gateway.children()
        template = [one for one in children if "edgefn.functions.template" in one.cmdline()]
        victims = template if what == "template" else [one for parent in template for one in parent.children()]
        for victim in victims[:1]:
            victim.kill()


async def test_killed_at_any_moment_every_event_has_its_effects_once(
    tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    moments = random.Random(SEED)
    rows: dict[str, dict[int, dict[str, int]]] = {"adds": {}, "echoes": {}}
    findings: list[str] = []
    sent = 0
    over = asyncio.Event()

    async def consume() -> None:
        async with (
            Bus(BrokerAddress("127.0.0.1", cloud_broker.port), client_id="consumer") as bus,
            bus.subscribe(f"edgefn/{GATEWAY}/summary/#", qos=1, max_queue=1_000_000) as messages,
        ):
            async for message in messages:
                item = decoded(message.payload)
                stream = rows[message.topic.split("/")[-1]]
                values = item["data"]["values"]
                if stream.setdefault(item["seq"], values) != values:
                    findings.append(f"{item['key']} was {stream[item['seq']]} and is {values}")

    async def produce() -> None:
        nonlocal sent
        async with Bus(BrokerAddress("127.0.0.1", local.port), client_id="producer", backoff=Backoff(0.1, 0.5)) as bus:
            await bus.wait_connected(5)
            while not over.is_set():
                await bus.publish(f"work/{sent % 5}", json.dumps({"n": sent}).encode(), qos=1)
                sent += 1
                await asyncio.sleep(1 / RATE)

    consumer = asyncio.create_task(consume())
    try:
        async with plant(tmp_path, local.port, cloud_broker.port, handlers=HANDLERS) as running:
            producer = asyncio.create_task(produce())
            for number in range(KILLS):
                await asyncio.sleep(moments.uniform(0.2, 2.0))
                try:
                    await kill(running, ("worker", "gateway", "engine", "template")[number % 4])
                except (psutil.NoSuchProcess, EdgefnError):
                    continue
            over.set()
            await producer
            async with asyncio.timeout(60):
                while len(rows["adds"]) < sent or len(rows["echoes"]) < (sent + 9) // 10:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)  # for what would come too often
            assert await running.device.stop() == 0
            told = [line for line in running.device.log.splitlines() if " ERROR " in line and "afresh" in line]
            findings += told
    except TimeoutError:
        findings.append("not all of them came")
    finally:
        consumer.cancel()
    adds = [rows["adds"][seq] for seq in sorted(rows["adds"])]
    counted = Counter(row["n"] for row in adds)
    print(f"{KILLS} kills, {sent} events, {len(adds)} and {len(rows['echoes'])} rows")  # noqa: T201 - of a long run
    assert not findings
    assert sorted(rows["adds"]) == list(range(1, sent + 1))
    assert {n: times for n, times in counted.items() if times != 1} == {}
    assert set(counted) == set(range(sent))
    assert [(at, row) for at, row in enumerate(adds, 1) if row["count"] != at][:3] == []
    assert adds[-1]["sum"] == sum(range(sent))
    assert sorted(row["n"] for row in rows["echoes"].values()) == list(range(0, sent, 10))
