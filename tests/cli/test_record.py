"""Recording what a broker brings: which topics, byte for byte, and a clean end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus
from edgefn.errors import NotConnectedError
from edgefn.trial import recorder as recorder_module
from edgefn.trial.recorder import Recorder, RecordError
from edgefn.trial.recording import Recorded, Recording
from tests.cli.helpers import edgefn

pytestmark = pytest.mark.integration
NOW = 1_795_586_400_000_000_000


async def record(
    broker: PrivateBroker, file: Path, *patterns: str, messages: list[tuple[str, bytes]], count: int
) -> Recorder:
    """Records until `count` messages are written."""
    address = BrokerAddress("127.0.0.1", broker.port)
    recorder = Recorder(address, patterns, now=lambda: NOW)
    begun = asyncio.Event()
    task = asyncio.create_task(recorder.run(file, count=count, seconds=20, begun=begun.set))
    await asyncio.wait({asyncio.create_task(begun.wait()), task}, return_when=asyncio.FIRST_COMPLETED)
    async with Bus(address) as bus:
        await bus.wait_connected(5)
        for topic, payload in messages:
            await bus.publish(topic, payload, qos=1)
        await task
    return recorder


def read(file: Path) -> list[Recorded]:
    with Recording(file) as recording:
        return [message for message in recording if isinstance(message, Recorded)]


async def test_what_devices_publish_is_recorded_and_what_gateways_say_is_not(
    mortal_mosquitto: PrivateBroker, tmp_path: Path
):
    file = tmp_path / "a.ndjson"
    messages = [
        ("edgefn/gw/metrics", b"{}"),
        ("edgefn/gw/summary/air/attic", b"{}"),
        ("edgefn/gw/event/door", b'{"open": true}'),
        ("sensors/attic/climate", b"21.50"),
        ("sensors/raw", b"\xff\x00"),
    ]
    recorder = await record(mortal_mosquitto, file, messages=messages, count=3)
    assert read(file) == [Recorded(NOW, topic, payload) for topic, payload in messages[2:]]
    assert (recorder.recorded, recorder.dropped) == (3, 0)


async def test_patterns_that_overlap_bring_each_message_once(mortal_mosquitto: PrivateBroker, tmp_path: Path):
    file = tmp_path / "a.ndjson"
    messages = [("a/1", b"1"), ("b/1", b"2"), ("c/1", b"3"), ("a/2", b"4")]
    await record(mortal_mosquitto, file, "a/#", "{x}/1", messages=messages, count=4)
    assert [message.payload for message in read(file)] == [b"1", b"2", b"3", b"4"]


async def test_it_ends_after_so_many_seconds_and_leaves_no_empty_file(mortal_mosquitto: PrivateBroker, tmp_path: Path):
    recorder = Recorder(BrokerAddress("127.0.0.1", mortal_mosquitto.port), ("never",))
    await recorder.run(tmp_path / "a.ndjson", seconds=0.1)
    assert recorder.recorded == 0
    assert list(tmp_path.iterdir()) == []


async def test_it_writes_over_nothing_and_says_where_it_cannot(
    mortal_mosquitto: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "a.ndjson"
    file.write_text("precious")
    recorder = Recorder(BrokerAddress("127.0.0.1", mortal_mosquitto.port), ())
    with pytest.raises(RecordError, match="there is a file of this name"):
        await recorder.run(file)
    assert file.read_text() == "precious"
    with pytest.raises(RecordError, match="No such file or directory"):
        await recorder.run(tmp_path / "none" / "a.ndjson")
    monkeypatch.setattr(recorder_module, "CONNECT", 0.2)
    with pytest.raises(NotConnectedError):
        await Recorder(BrokerAddress("127.0.0.1", 1), ()).run(tmp_path / "b.ndjson")
    assert not (tmp_path / "b.ndjson").exists()


async def test_what_comes_too_fast_is_counted(
    mortal_mosquitto: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recorder_module, "QUEUE", 2)
    address = BrokerAddress("127.0.0.1", mortal_mosquitto.port)
    async with Bus(address) as bus:
        await bus.wait_connected(5)
        for number in range(50):  # kept by the broker, so that they come all at once
            await bus.publish(f"a/{number}", b"x", qos=1, retain=True)
    recorder = Recorder(address, ("a/#",))
    await recorder.run(tmp_path / "a.ndjson", seconds=1)
    assert recorder.dropped > 0
    assert recorder.recorded + recorder.dropped == 50
    assert all(message.retain for message in read(tmp_path / "a.ndjson"))


def test_ctrl_c_ends_it_with_a_count(mortal_mosquitto: PrivateBroker, tmp_path: Path):
    (tmp_path / "edgefn.toml").write_text(f"[broker]\nport = {mortal_mosquitto.port}\n")
    command = [sys.executable, "-m", "edgefn", "record", str(tmp_path), "--to", str(tmp_path / "a.ndjson")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "Ctrl-C ends it" in line:
            break
    asyncio.run(_publish(mortal_mosquitto.port))
    file = tmp_path / "a.ndjson"
    limit = time.monotonic() + 10
    while not file.stat().st_size and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"{file}: 1 messages" in said
    assert json.loads(file.read_text())["payload"] == {"x": 1}


async def _publish(port: int) -> None:
    async with Bus(BrokerAddress("127.0.0.1", port)) as bus:
        await bus.wait_connected(5)
        await bus.publish("a", b'{"x": 1}', qos=1)


def test_a_recording_has_a_name_that_says_so(tmp_path: Path):
    result = edgefn("record", "--to", tmp_path / "a.csv")
    assert result.exit_code == 2
    assert "something.ndjson" in result.output


def test_a_pattern_that_is_none_is_refused(tmp_path: Path):
    result = edgefn("record", "--to", tmp_path / "a.ndjson", "--topic", "a/#/b")
    assert result.exit_code == 2
    assert "# can only be the last level" in result.output
