"""The life of a handler file on a gateway that runs, told over MQTT and with `edgefn handlers`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edgefn.broker import PrivateBroker
from tests.cli.helpers import edgefn
from tests.integration.device import GATEWAY, PATIENCE, Device, device

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOPIC = f"edgefn/{GATEWAY}/handler/light"


def light(value: int) -> str:
    return (
        f"from edgefn import on\n\n@on('door')\ndef light(event):\n    return {{'value': {value}, 'n': event['n']}}\n"
    )


async def handlers(gateway: Device, verb: str, *more: object) -> Any:
    result = await asyncio.to_thread(edgefn, "handlers", verb, *more, gateway.folder, "--json")
    assert result.exit_code == 0, f"{result.output}\n{gateway.log}"
    return json.loads(result.stdout)


async def values(gateway: Device) -> int:
    """What the version that runs now gives back."""
    sent: list[int] = []

    def answers() -> list[int]:
        rows = gateway.local.all(f"edgefn/{GATEWAY}/summary/light/door")
        return [int(row["values"]["value"]) for row in rows if row["values"]["n"] in sent]

    async with asyncio.timeout(PATIENCE):
        while not answers():
            sent.append(len(gateway.local.messages))
            await gateway.publish("door", {"n": sent[-1]})  # again, where the engine did not listen to it yet
            await asyncio.sleep(0.2)
    return answers()[0]


async def test_a_file_s_life_from_its_first_byte_to_its_last(tmp_path: Path, local: PrivateBroker):
    async with device(tmp_path, local.port, None) as gateway:
        gateway.handler("house.py", light(1))
        await gateway.start()
        first = (await gateway.active("light"))["version"]
        await gateway.connected()
        assert await values(gateway) == 1

        # A writer that takes its time: nothing is loaded, and nothing is said of an error.
        seen = len(gateway.local.messages)
        with (tmp_path / "handlers" / "house.py").open("w") as writer:
            writer.write(light(2)[:40])
            writer.flush()
            await gateway.local.until(TOPIC, lambda state: state["newest"] == {"state": "new"}, after=seen)
            assert await values(gateway) == 1
            writer.write(light(2)[40:])
        second = await gateway.local.until(TOPIC, lambda state: state["version"] != first, after=seen)
        assert "newest" not in second
        assert "failed" not in [state.get("newest", {}).get("state") for state in gateway.local.all(TOPIC)]
        assert await values(gateway) == 2

        told = await handlers(gateway, "show", "light")
        assert [one["version"] for one in told["versions"]] == [second["version"], first]
        assert (await handlers(gateway, "rollback", "light"))["to"] == first
        assert await values(gateway) == 1
        await handlers(gateway, "pause", "light")

        # Both hold over a restart.
        assert await gateway.stop() == 0
        told = await handlers(gateway, "show", "light")
        assert (told["running"], told["state"], told["version"]) == (False, "paused", first)
        seen = len(gateway.local.messages)
        await gateway.start()
        told = await gateway.local.until(TOPIC, lambda state: state["state"] == "paused", after=seen)
        assert told["rolled_back"]
        await gateway.local.until(f"edgefn/{GATEWAY}/status", lambda status: status == b"online", after=seen)
        await handlers(gateway, "resume", "light")
        assert await values(gateway) == 1

        seen = len(gateway.local.messages)
        (tmp_path / "handlers" / "house.py").unlink()
        await gateway.local.until(TOPIC, lambda state: state["state"] == "retired", after=seen)
        await gateway.local.until(TOPIC, lambda state: state is None, after=seen)
        assert (await handlers(gateway, "list"))["handlers"] == []
