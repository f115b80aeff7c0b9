"""Python handlers in a whole gateway: from an event on the broker to their effects there and in the cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from tests.integration.device import GATEWAY, device

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

COUNTS = """
from edgefn import on

@on("count/{what}", to=("local", "uplink"), retries=2, backoff="10ms")
def counts(event, ctx):
    seen = ctx.state.get(event.key.what, []) + [event["n"]]
    ctx.state[event.key.what] = seen
    ctx.publish(f"seen/{event.key.what}", {"n": event["n"], "attempt": event.attempt})
    if event.get("fail") and event.attempt <= event["fail"]:
        raise RuntimeError("not yet")
    return {"n": event["n"], "seen": len(seen)}
"""


async def test_an_event_starts_a_handler_whose_effects_reach_the_broker_and_the_cloud(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        gateway.handler("counts.py", COUNTS)
        await gateway.start()
        await gateway.connected()
        await gateway.publish("count/doors", {"n": 1, "fail": 1})
        row = await gateway.local.until(f"edgefn/{GATEWAY}/summary/counts/doors", lambda row: row["values"]["n"] == 1)
        assert row["values"] == {"n": 1, "seen": 1}
        # The failed attempt has left nothing behind but what it published, and that came once.
        assert gateway.local.all("seen/doors") == [{"n": 1, "attempt": 1}, {"n": 1, "attempt": 2}]
        await gateway.publish("count/doors", {"n": 2}, qos=0)
        item = await gateway.far.until(f"edgefn/{GATEWAY}/summary/counts", lambda row: row["data"]["values"]["n"] == 2)
        assert item["data"]["values"] == {"n": 2, "seen": 2}
        state = await gateway.local.until(
            f"edgefn/{GATEWAY}/handler/counts", lambda state: state.get("meter", {}).get("done") == 2
        )
        assert state["meter"]["failed"] == 1
