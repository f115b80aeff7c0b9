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


MANY = """
import pathlib
from dataclasses import dataclass
from edgefn import anomaly, every, on, system, watch

@dataclass
class Seen:
    n: float = 0.0

@anomaly("level/{tank}", threshold=10, clear=5)
def high(level) -> float:
    return level

@on(high)
def pump(event, ctx):
    ctx.publish(f"pump/{event.key}/set", {"on": event["state"] == "raised"}, qos=1)

@every("100ms")
def beats(event, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1

@watch("FOLDER/*.csv")
def imports(event, ctx):
    rows = pathlib.Path(event["path"]).read_text().splitlines()
    ctx.publish("imported", {"file": event.key, "rows": len(rows)}, qos=1)

@system("start", "stop")
def lives(event, ctx):
    ctx.publish("lives", {"what": event.topic}, qos=1)
"""


async def test_alerts_time_files_and_the_machine_itself_start_handlers(tmp_path: Path, local: PrivateBroker) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("many.py", MANY.replace("FOLDER", str(inbox)))
        await gateway.start()
        await gateway.connected()
        await gateway.local.until("lives", lambda said: said["what"] == "system/start")
        await gateway.publish("level/oil", {"level": 12})
        await gateway.local.until("pump/oil/set", lambda said: said["on"] is True)
        await gateway.publish("level/oil", {"level": 2})
        await gateway.local.until("pump/oil/set", lambda said: said["on"] is False)
        (inbox / "a.csv").write_text("1,2\n3,4\n")
        await gateway.local.until("imported", lambda said: said == {"file": "a.csv", "rows": 2})
        await gateway.local.until(
            f"edgefn/{GATEWAY}/handler/beats", lambda state: state.get("meter", {}).get("done", 0) > 3
        )
        assert await gateway.stop() == 0
        await gateway.local.until("lives", lambda said: said["what"] == "system/stop")
        heard = len(gateway.local.messages)
        (inbox / "b.csv").write_text("1,2\n")
        await gateway.start()
        await gateway.local.until("imported", lambda said: said == {"file": "b.csv", "rows": 1}, after=heard)
        assert [said["file"] for said in gateway.local.all("imported")] == ["a.csv", "b.csv"]


LETTERS = """
import pathlib
from edgefn import on

@on("work", retries=0)
def works(event, ctx):
    if not pathlib.Path("FLAG").exists():
        raise RuntimeError("the flag is down")
    ctx.publish("done", event["n"], qos=1)
"""


async def test_a_dead_letter_can_be_looked_at_and_put_back(tmp_path: Path, local: PrivateBroker) -> None:
    flag = tmp_path / "flag"
    reply = f"edgefn/{GATEWAY}/reply/test"
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("works.py", LETTERS.replace("FLAG", str(flag)))
        await gateway.start()
        await gateway.connected()
        await gateway.publish("work", {"n": 1})
        await gateway.publish("work", b"no json")
        await gateway.local.until(
            f"edgefn/{GATEWAY}/handler/works", lambda state: state.get("meter", {}).get("failed") == 2
        )
        gateway.kill()  # what is among the dead letters has been committed, or comes again
        await gateway.local.until(f"edgefn/{GATEWAY}/status", lambda status: status == b"offline")
        heard = len(gateway.local.messages)
        await gateway.start()
        await gateway.local.until(
            f"edgefn/{GATEWAY}/metrics", lambda metrics: metrics["engine"]["state"] == "connected", after=heard
        )

        async def letters() -> list[dict[str, object]]:
            heard = len(gateway.local.messages)
            await gateway.publish(f"edgefn/{GATEWAY}/cmd/dead-peek", {"reply_to": reply})
            answer = await gateway.local.until(reply, lambda answer: answer["ok"], after=heard)
            found: list[dict[str, object]] = answer["result"]["letters"]
            return found

        while len(found := await letters()) < 2:
            pass
        assert {(one["kind"], one["uplink"], one["reason"]) for one in found} == {("invocation", "works", "failed")}
        assert "RuntimeError: the flag is down" in str(found[0]["detail"])
        assert {one["data"]["payload"] for one in found} == {'{"n": 1}', "no json"}  # type: ignore[index]
        flag.touch()
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/dead-requeue", {"all": True})
        await gateway.local.until("done", lambda n: n == 1)
        while len(found := await letters()) != 1:
            pass
        assert "'n' is not in the event on work, which has no fields" in str(found[0]["detail"])
