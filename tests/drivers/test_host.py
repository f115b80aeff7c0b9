import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefn.broker import PrivateBroker
from edgefn.bus import BrokerAddress, Bus, Message
from edgefn.drivers.host import DriverHost, HostConfig
from edgefn.errors import ConfigError
from tests.drivers.fakes import FakeBus


def config(**parts: Any) -> HostConfig:
    return HostConfig.from_json(json.dumps({"gateway": "gw", "broker": {}, **parts}).encode())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "one line of JSON"),
        (b'{"gateway": "gw", "driver": []}', "unknown field `driver`"),
        (b'{"gateway": "gw", "drivers": [{"name": "a", "qos": 2}]}', r"qos"),
        (b'{"gateway": "gw", "drivers": [{"name": "a"}, {"name": "a"}]}', "two drivers are called a"),
    ],
)
def test_a_wrong_configuration_is_named(line: bytes, message: str):
    with pytest.raises(ConfigError, match=message):
        HostConfig.from_json(line)


async def test_a_driver_that_cannot_start_stops_no_other():
    bus = FakeBus()
    async with DriverHost(config(drivers=[{"name": "nonesuch"}, {"name": "boiler"}]), bus) as host:
        await bus.until(lambda: bool(bus.events("boiler")) and bool(bus.statuses("nonesuch")))
        assert [driver.state for driver in host.drivers] == ["failed", "online"]
    assert bus.statuses("boiler")[-1]["state"] == "offline"
    assert bus.statuses("nonesuch")[-1]["state"] == "failed"


async def test_each_start_is_a_source_of_its_own():
    sources = set()
    for _ in range(2):
        bus = FakeBus()
        async with DriverHost(config(drivers=[{"name": "boiler"}, {"name": "kettle", "use": "boiler"}]), bus):
            await bus.until(lambda bus=bus: bool(bus.events("boiler") and bus.events("kettle")))  # type: ignore[misc]
        sources |= {bus.events("boiler")[0]["src"], bus.events("kettle")[0]["src"]}
    assert len(sources) == 4


@pytest.mark.integration
class TestTheProcess:
    @pytest.fixture
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            [sys.executable, "-m", "edgefn.drivers"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            yield process
            process.kill()

    async def started(
        self, process: subprocess.Popen[bytes], broker: PrivateBroker, messages: Any, folder: Path, *names: str
    ) -> None:
        document = {
            "gateway": "host-test",
            "broker": {"host": broker.host, "port": broker.port},
            "folders": [str(folder)],
            "drivers": [{"name": name} for name in names],
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(document).encode() + b"\n")
        process.stdin.flush()
        waiting = set(names)
        async with asyncio.timeout(10):
            while waiting:
                message: Message = await anext(messages)
                if "/event/" in message.topic:
                    waiting.discard(message.topic.split("/")[3])

    @pytest.mark.parametrize("end", ["sigterm", "end of input"])
    async def test_it_publishes_and_stops(
        self, process: subprocess.Popen[bytes], mosquitto: PrivateBroker, tmp_path: Path, end: str
    ):
        async with Bus(BrokerAddress(mosquitto.host, mosquitto.port)) as bus:
            await bus.wait_connected(5)
            async with bus.subscribe("edgefn/host-test/#", qos=1) as messages:
                await self.started(process, mosquitto, messages, tmp_path, "host", "boiler", "motor")
                if end == "sigterm":
                    process.send_signal(signal.SIGTERM)
                else:
                    assert process.stdin is not None
                    process.stdin.close()
                assert await asyncio.to_thread(process.wait, 2) == 0
                offline: set[str] = set()
                async with asyncio.timeout(5):
                    while len(offline) < 3:
                        message = await anext(messages)
                        if b'"offline"' in message.payload:
                            offline.add(message.topic)

    async def test_a_driver_that_blocks_everything_does_not_keep_it(
        self, process: subprocess.Popen[bytes], mosquitto: PrivateBroker, tmp_path: Path
    ):
        (tmp_path / "stuck.py").write_text(
            "import time\nfrom edgefn.drivers import driver\n"
            "@driver\nasync def stuck():\n    import asyncio\n    yield {'x': 1}\n    await asyncio.sleep(0.2)\n"
            "    while True: time.sleep(0.01)\n"
        )
        async with Bus(BrokerAddress(mosquitto.host, mosquitto.port)) as bus:
            await bus.wait_connected(5)
            async with bus.subscribe("edgefn/host-test/event/stuck", qos=1) as messages:
                await self.started(process, mosquitto, messages, tmp_path, "stuck")
                await asyncio.sleep(0.3)  # until it blocks
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 4) == -signal.SIGALRM

    def test_a_wrong_configuration_ends_it_with_a_message(self, process: subprocess.Popen[bytes]):
        _, said = process.communicate(b'{"gatway": "gw"}\n', timeout=10)
        assert process.returncode == 2
        assert b"gatway" in said
