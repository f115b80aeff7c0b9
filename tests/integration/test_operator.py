"""An operator asks a gateway that runs, over MQTT and with `edgefn outbox` and `edgefn drill`, between two real brokers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgefn.broker import PrivateBroker
from edgefn.demo.wire import Wire
from tests.cli.helpers import edgefn
from tests.integration.device import GATEWAY, Device, device

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

REPLY = f"edgefn/{GATEWAY}/reply/test"
ECHO = """
from edgefn import aggregate, count

@aggregate("in", count(1))
def echo(x) -> float:
    return x[0]
"""


async def started(gateway: Device) -> None:
    gateway.handler("echo.py", ECHO)
    await gateway.start()
    await gateway.active("echo")
    await gateway.connected()


async def ask(gateway: Device, verb: str, **arguments: Any) -> Any:
    seen = len(gateway.local.messages)
    await gateway.publish(f"edgefn/{GATEWAY}/cmd/{verb}", {**arguments, "reply_to": REPLY, "id": seen})
    return await gateway.local.until(REPLY, lambda answer: answer["id"] == seen and answer["done"], after=seen)


async def drilling(gateway: Device, seconds: float, *more: str) -> asyncio.subprocess.Process:
    """In a process of its own, which signals can reach."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgefn", "drill", "offline", str(seconds), str(gateway.folder), *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def outbox(gateway: Device, verb: str, *more: object) -> tuple[int, str, str]:
    result = await asyncio.to_thread(edgefn, "outbox", verb, gateway.folder, *more)
    return result.exit_code, result.stdout, result.stderr


@asynccontextmanager
async def traffic(gateway: Device) -> AsyncIterator[list[int]]:
    """An event every few milliseconds; yields a list whose only number says how many there were."""
    made = [0]
    over = False

    async def work() -> None:
        while not over:
            await gateway.publish("in", {"x": made[0]})
            made[0] += 1
            await asyncio.sleep(0.01)

    task = asyncio.create_task(work())
    try:
        yield made
    finally:
        over = True
        await task


async def all_arrived(gateway: Device, n: int) -> None:
    await gateway.far.until(f"edgefn/{GATEWAY}/summary/echo", lambda row: row["seq"] == n)
    rows = gateway.far.all(f"edgefn/{GATEWAY}/summary/echo")
    assert {row["seq"]: row["data"]["values"]["value"] for row in rows} == {i + 1: i for i in range(n)}


async def test_a_drill_loses_nothing_and_ends_whatever_becomes_of_who_asked(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        await started(gateway)
        async with traffic(gateway) as made:
            process = await drilling(gateway, 1, "--json")
            output, error = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0, error
            told = json.loads(output)
            account = told["uplinks"]["cloud"]
            assert account["buffered"] > 20
            assert account["replayed"] == account["before"] + account["buffered"]
            assert (account["lost"], account["dropped"], told["waiting"]) == (0, {}, 0)
            assert 1 <= told["offline_s"] < 5

            # Ctrl-C restores the line at once, and tells the account all the same.
            seen = len(gateway.local.messages)
            process = await drilling(gateway, 60)
            metrics = f"edgefn/{GATEWAY}/metrics"
            await gateway.local.until(metrics, lambda one: one["uplinks"]["cloud"]["state"] == "cut", after=seen)
            process.send_signal(signal.SIGINT)
            output, _ = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0
            assert b"(stopped early)" in output

            # Nobody waits for the end of this one: the gateway restores the line by itself.
            seen = len(gateway.local.messages)
            await gateway.publish(f"edgefn/{GATEWAY}/cmd/drill-offline", {"seconds": 1.5})
            await gateway.local.until(metrics, lambda one: one["uplinks"]["cloud"]["state"] == "cut", after=seen)
            refused = await ask(gateway, "drill-offline", seconds=1)
            assert (refused["ok"], refused["error"]) == (False, "one is under way; wait for its end, or stop it")
        await all_arrived(gateway, made[0])


async def test_what_waits_is_seen_exported_and_given_up_while_the_gateway_runs(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with Wire(cloud.port) as line, device(tmp_path, local.port, cloud.port, uplink=line.port) as gateway:
        await started(gateway)
        await line.cut()
        for x in range(50):
            await gateway.publish("in", {"x": x})
        await gateway.local.until(f"edgefn/{GATEWAY}/summary/echo/in", lambda row: row["values"]["value"] == 49)

        answer = await ask(gateway, "outbox-peek", limit=1)
        assert answer["result"]["items"][0]["item"]["data"]["values"] == {"value": 0}
        status, output, _ = await outbox(gateway, "status", "--json")
        told = json.loads(output)
        assert (status, told["running"], told["uplinks"]["cloud"]["rows"]) == (0, True, 50)
        assert [(one["name"], one["rows"]) for one in told["streams"]] == [("summary/echo", 50)]
        status, _, error = await outbox(gateway, "export", "--to", tmp_path / "all.ndjson")
        assert (status, error) == (0, f"50 rows written to {tmp_path}/all.ndjson\n")
        lines = [json.loads(one) for one in (tmp_path / "all.ndjson").read_text().splitlines()]
        assert [one["data"]["values"]["value"] for one in lines] == list(range(50))
        status, output, _ = await outbox(gateway, "peek", "--limit", 2)
        assert (status, output.count("summary/echo")) == (0, 2)
        status, output, _ = await outbox(gateway, "purge", "--stream", "summary/echo", "--yes")
        assert (status, output) == (0, "50 purged\n")
        status, output, error = await outbox(gateway, "requeue", "--all")
        assert (status, output) == (1, "0 requeued\n")
        status, output, error = await outbox(gateway, "peek", "--uplink", "clowd")
        assert (status, error) == (1, "edgefn: there is no uplink 'clowd'; there are cloud\n")

        # The cloud sees the gap, and the drops say why.
        await line.heal()
        await gateway.publish("in", {"x": 50})
        await gateway.far.until(f"edgefn/{GATEWAY}/summary/echo", lambda row: row["seq"] == 51)
        answer = await ask(gateway, "outbox-status")
        assert answer["result"]["streams"][0]["dropped"] == {"purged": 50}

        # With its broker away, the gateway cannot be asked, and that is said.
        local.stop()
        status, _, error = await outbox(gateway, "status")
        assert status == 2
        assert "a gateway runs there, but its broker cannot be reached" in error
