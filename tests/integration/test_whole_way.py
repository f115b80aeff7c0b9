"""From an event on the device's broker to a summary on the cloud's, with a real gateway between two real brokers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from edgefn.demo.wire import Wire
from tests.integration.device import GATEWAY, device

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROOMS = """
from typing import NamedTuple
from edgefn import aggregate, anomaly, count, filter

@filter("rooms/{room}")
def plausible(t):
    return t < 100

class Row(NamedTuple):
    mean: float
    n: int

@aggregate(plausible, count(4))
def mean_of_four(t) -> Row:
    return Row(t.mean(), t.size)

@anomaly(plausible, threshold=50.0, clear=40.0)
def hot(t) -> float:
    return t
"""


async def test_events_become_summaries_and_alerts_here_and_in_the_cloud(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        gateway.handler("rooms.py", ROOMS)
        await gateway.start()
        await gateway.active("mean_of_four")
        await gateway.connected()
        for t in (10, 20, 30, 60, 1000):  # the last one is filtered out
            await gateway.publish("rooms/attic", {"t": t})
        alert = await gateway.local.until(f"edgefn/{GATEWAY}/alert/hot/attic")
        assert (alert["state"], alert["values"]) == ("raised", {"score": 60.0, "value": 60.0})
        summary = await gateway.local.until(f"edgefn/{GATEWAY}/summary/mean_of_four/attic")
        assert summary["values"] == {"mean": 30.0, "n": 4}
        assert summary["key"] == "attic"
        envelope = await gateway.far.until(f"edgefn/{GATEWAY}/summary/mean_of_four")
        assert (envelope["seq"], envelope["data"]) == (1, summary)
        assert (await gateway.far.until(f"edgefn/{GATEWAY}/alert/hot"))["data"]["state"] == "raised"
        assert await gateway.stop() == 0
        assert gateway.local.all(f"edgefn/{GATEWAY}/status")[-1] == b"offline"


async def test_killed_while_the_cloud_is_away_it_loses_and_doubles_nothing(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    """The gateway is killed with -9 in the middle of a stream of QoS 1 events, twice, with no cloud to be reached."""
    # The line is cut and not the broker stopped: what reached a broker before its listener is back would look lost.
    async with Wire(cloud.port) as line, device(tmp_path, local.port, cloud.port, uplink=line.port) as gateway:
        gateway.handler("rooms.py", ROOMS)
        await gateway.start()
        await gateway.active("mean_of_four")
        await gateway.connected()
        await line.cut()
        for life in range(3):
            for i in range(200):
                await gateway.publish(f"rooms/{i % 5}", {"t": life * 10 + i % 7})
            if life < 2:
                gateway.kill()
                assert gateway.process is not None
                await gateway.process.wait()
                # What is published while nobody is there waits in the broker for the engine's session.
                await gateway.publish("rooms/0", {"t": 1})
                await gateway.publish("rooms/0", {"t": 2})
                await gateway.start()
        await line.heal()
        # Room 0 has 3 × 40 + 4 events, the others 120 each: 31 + 4 × 30 windows of four.
        await gateway.far.until(f"edgefn/{GATEWAY}/summary/mean_of_four", lambda row: row["seq"] == 151)
        rows = gateway.far.all(f"edgefn/{GATEWAY}/summary/mean_of_four")
        unique = {row["seq"]: row["data"] for row in rows}
        assert sorted(unique) == list(range(1, 152))
        sums = {f"{room}": 0.0 for room in range(5)}
        for row in unique.values():
            sums[row["key"]] += row["values"]["mean"] * row["values"]["n"]
        truth = {
            f"{room}": float(sum(10 * life + i % 7 for life in range(3) for i in range(200) if i % 5 == room))
            for room in range(5)
        }
        truth["0"] += 2 * (1 + 2)
        assert sums == pytest.approx(truth)
        assert await gateway.stop() == 0


async def test_a_handler_file_is_followed_while_the_others_keep_their_windows(
    tmp_path: Path, local: PrivateBroker
) -> None:
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("rooms.py", ROOMS)
        await gateway.start()
        await gateway.active("mean_of_four")
        await gateway.connected()
        for t in (1, 2, 3):
            await gateway.publish("rooms/cellar", {"t": t})

        seen = len(gateway.local.messages)
        other = "from edgefn import filter\n@filter('other')\ndef other(x):\n    return y > 0\n"
        gateway.handler("other.py", other)
        state = await gateway.local.until(
            f"edgefn/{GATEWAY}/handler/other", lambda one: one["state"] == "failed", after=seen
        )
        assert "other.py:4" in state["error"]
        assert "'y' is not defined" in state["error"]

        gateway.handler("other.py", other.replace("y > 0", "x > 0"))
        await gateway.active("other", after=seen)

        seen = len(gateway.local.messages)
        gateway.handler("other.py", other)
        state = await gateway.local.until(
            f"edgefn/{GATEWAY}/handler/other", lambda one: one["newest"]["state"] == "failed", after=seen
        )
        assert state["state"] == "active"

        (gateway.folder / "handlers" / "other.py").unlink()
        await gateway.local.until(f"edgefn/{GATEWAY}/handler/other", lambda one: one is None, after=seen)

        await gateway.publish("rooms/cellar", {"t": 6})
        summary = await gateway.local.until(f"edgefn/{GATEWAY}/summary/mean_of_four/cellar")
        assert summary["values"] == {"mean": 3.0, "n": 4}


async def test_the_engine_comes_back_and_goes_on_where_it_was(tmp_path: Path, local: PrivateBroker) -> None:
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("rooms.py", ROOMS)
        await gateway.start()
        await gateway.active("mean_of_four")
        await gateway.connected()
        await gateway.publish("rooms/hall", {"t": 10})
        await gateway.publish("rooms/hall", {"t": 20})
        metrics = await gateway.local.until(
            f"edgefn/{GATEWAY}/metrics", lambda one: one["counters"].get("events.in", 0) >= 2
        )
        pid = metrics["processes"]["engine"]
        os.kill(pid, signal.SIGKILL)
        await gateway.publish("rooms/hall", {"t": 30})
        await gateway.publish("rooms/hall", {"t": 40})
        summary = await gateway.local.until(f"edgefn/{GATEWAY}/summary/mean_of_four/hall")
        assert summary["values"] == {"mean": 25.0, "n": 4}
        metrics = await gateway.local.until(
            f"edgefn/{GATEWAY}/metrics", lambda one: one["counters"].get("engine.restarts") == 1
        )
        assert metrics["processes"]["engine"] != pid


async def test_operators_pause_and_resume_a_handler(tmp_path: Path, local: PrivateBroker) -> None:
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("rooms.py", ROOMS)
        await gateway.start()
        await gateway.active("hot")
        await gateway.connected()
        state = f"edgefn/{GATEWAY}/handler/hot"
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/pause", {"handler": "hot"})
        await gateway.local.until(state, lambda one: one["state"] == "paused")
        seen = len(gateway.local.messages)
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/resume", {"handler": "hot"})
        await gateway.local.until(state, lambda one: one["state"] == "active", after=seen)
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/resume", {"handler": "cold"})
        await gateway.local.until(f"edgefn/{GATEWAY}/log", lambda one: "there is no handler 'cold'" in one["message"])
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/dance", {})
        await gateway.local.until(f"edgefn/{GATEWAY}/log", lambda one: "cmd/dance: it is not known" in one["message"])
        await gateway.publish("rooms/attic", {"t": 60})
        await gateway.local.until(f"edgefn/{GATEWAY}/alert/hot/attic")


async def test_a_paused_handler_takes_up_its_windows_again(tmp_path: Path, local: PrivateBroker) -> None:
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("rooms.py", ROOMS)
        await gateway.start()
        await gateway.active("mean_of_four")
        await gateway.connected()
        for t in (60, 2, 3):
            await gateway.publish("rooms/attic", {"t": t})
        await gateway.local.until(f"edgefn/{GATEWAY}/alert/hot/attic", lambda one: one["state"] == "cleared")
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/pause", {"handler": "mean_of_four"})
        await gateway.local.until(f"edgefn/{GATEWAY}/handler/mean_of_four", lambda one: one["state"] == "paused")
        await gateway.publish("rooms/attic", {"t": 50})  # nobody's
        await gateway.local.until(f"edgefn/{GATEWAY}/metrics", lambda one: one["counters"].get("events.in", 0) >= 4)
        seen = len(gateway.local.messages)
        await gateway.publish(f"edgefn/{GATEWAY}/cmd/resume", {"handler": "mean_of_four"})
        await gateway.active("mean_of_four", after=seen)
        await gateway.publish("rooms/attic", {"t": 5})
        summary = await gateway.local.until(f"edgefn/{GATEWAY}/summary/mean_of_four/attic")
        assert summary["values"] == {"mean": 17.5, "n": 4}


THINNED = """
from edgefn import summarize, tumbling

# A busy machine may hold the publisher up for longer than the usual second, and what comes then is late.
WINDOW = tumbling("1s", idle="5s")
second = summarize("rooms/{room}", WINDOW, ("n", "mean", "max", "p95"), fields="t", quota="24kB", on_full="thin")
"""


async def test_more_than_fits_while_the_cloud_is_away_arrives_in_coarser_windows_with_every_sample(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with Wire(cloud.port) as line, device(tmp_path, local.port, cloud.port, uplink=line.port) as gateway:
        gateway.handler("rooms.py", THINNED)
        await gateway.start()
        await gateway.active("second")
        await gateway.connected()
        await line.cut()
        begin = 1_780_000_000
        for i in range(800):  # two samples a second
            await gateway.publish("rooms/attic", {"t": float(i), "ts": (begin + i / 2) * 1000})
        stream = f"edgefn/{GATEWAY}/summary/second"
        await gateway.local.until(f"{stream}/attic", lambda row: row["values"]["max"] == 799.0)
        await line.heal()
        await gateway.far.until(stream, lambda row: row["data"]["values"]["max"] == 799.0)
        rows = {row["seq"]: row["data"] for row in gateway.far.all(stream)}
        assert sum(row["values"]["n"] for row in rows.values()) == 800
        assert sum(row.get("merged", 1) for row in rows.values()) == 400
        assert len(rows) < 150
        at = 0
        for _, row in sorted(rows.items()):
            n = row["values"]["n"]
            assert row["values"]["mean"] == pytest.approx(at + (n - 1) / 2)
            assert row["window_s"] == n / 2
            at += n
        assert await gateway.stop() == 0
