"""What every sink promises to the uplink, over each kind of destination."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from pyarrow import parquet

from edgefn.broker import PrivateBroker
from edgefn.bus import BrokerAddress, Bus
from edgefn.errors import NotConnectedError
from edgefn.sinks import Sink, load_sink
from tests.broker import make_broker
from tests.sinks.helpers import EPOCH, FakeSink, as_envelope, stored
from tests.sinks.service import Service


class Far(Protocol):
    """A sink and its far side, which can be looked at, lost and restored."""

    sink: Sink

    async def received(self, n: int) -> list[dict[str, Any]]: ...
    async def lose(self) -> None: ...
    async def restore(self) -> None: ...


class FarFake:
    def __init__(self) -> None:
        self.sink = self.fake = FakeSink()

    async def received(self, n: int) -> list[dict[str, Any]]:
        return self.fake.received

    async def lose(self) -> None:
        self.fake.lose_connection()

    async def restore(self) -> None:
        self.fake.restore_connection()


class FarFolder:
    """The far side is a folder that is in the way of a file once it is lost."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.sink = load_sink("file", {"folder": str(folder), "rotate_bytes": 150, **options}, gateway="gw-1")

    async def received(self, n: int) -> list[dict[str, Any]]:
        files = sorted(self.folder.iterdir(), key=lambda file: int(file.name.split("-")[3].split(".")[0]))
        return [item for file in files for item in self.read(file)]

    def read(self, file: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in file.read_text().splitlines()]

    async def lose(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.write_text("in the way")

    async def restore(self) -> None:
        self.folder.unlink()


class FarParquet(FarFolder):
    """Complete files are Parquet; what is delivered and not complete yet is a line each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, format="parquet", rotate_bytes=10_000)

    async def received(self, n: int) -> list[dict[str, Any]]:
        await self.sink.close()
        found = await super().received(n)
        await self.sink.connect()
        return found

    def read(self, file: Path) -> list[dict[str, Any]]:
        assert file.suffix == ".parquet"
        return [as_envelope(row) for row in parquet.read_table(file).to_pylist()]


class FarService:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.sink = load_sink("http", {"url": service.url, "timeout_s": 1.0}, gateway="gw-1")

    async def received(self, n: int) -> list[dict[str, Any]]:
        return list(self.service.received.values())

    async def lose(self) -> None:
        await self.service.stop()

    async def restore(self) -> None:
        await self.service.start()


class FarBroker:
    """The far side is a subscriber with a session of its own at a broker that can be stopped."""

    def __init__(self, broker: PrivateBroker, listener: Bus) -> None:
        self.broker = broker
        self.sink = load_sink(
            "mqtt", {"host": broker.host, "port": broker.port, "window": 4, "timeout_s": 1.0}, gateway="gw-1"
        )
        self._listener = listener
        self._messages: list[dict[str, Any]] = []
        self._arrived = asyncio.Condition()

    async def listen(self, ready: asyncio.Event) -> None:
        async with self._listener.subscribe("edgefn/gw-1/#", qos=1) as messages:
            ready.set()
            async for message in messages:
                async with self._arrived:
                    self._messages.append(json.loads(message.payload))
                    self._arrived.notify_all()

    async def received(self, n: int) -> list[dict[str, Any]]:
        async with self._arrived:
            await asyncio.wait_for(self._arrived.wait_for(lambda: len(self._messages) >= n), 10)
        return self._messages

    async def lose(self) -> None:
        self.broker.kill()

    async def restore(self) -> None:
        self.broker.restart()


@pytest.fixture(params=["fake", "file", "parquet", "http", pytest.param("mqtt", marks=pytest.mark.integration)])
async def far(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Far]:
    if request.param == "fake":
        fake = FarFake()
        yield fake
        await fake.sink.close()
    elif request.param in ("file", "parquet"):
        folder = (FarFolder if request.param == "file" else FarParquet)(tmp_path / "out")
        yield folder
        await folder.sink.close()
    elif request.param == "http":
        async with Service() as service:
            far_service = FarService(service)
            yield far_service
            await far_service.sink.close()
    else:
        with make_broker() as broker:
            async with Bus(BrokerAddress(broker.host, broker.port), client_id="far") as listener:
                await listener.wait_connected(10)
                far_broker = FarBroker(broker, listener)
                ready = asyncio.Event()
                listening = asyncio.create_task(far_broker.listen(ready))
                await ready.wait()
                yield far_broker
                await far_broker.sink.close()
                listening.cancel()
                await asyncio.wait({listening})


async def test_an_item_arrives_with_its_key_and_its_data(far: Far) -> None:
    await far.sink.connect()
    assert await far.sink.send([stored(7, payload=b'{ "mean" : 1.50 }')]) == []
    assert await far.received(1) == [
        {
            "id": f"gw-1/{EPOCH}/summary/minute/7",
            "gateway": "gw-1",
            "epoch": EPOCH,
            "stream": "summary/minute",
            "seq": 7,
            "ts": 1_750_000_000_000_000_000,
            "data": {"mean": 1.5},
        }
    ]


async def test_items_arrive_in_the_order_given_over_several_batches(far: Far) -> None:
    await far.sink.connect()
    for start in (1, 11, 21):
        assert await far.sink.send([stored(n) for n in range(start, start + 10)]) == []
    assert [message["seq"] for message in await far.received(30)] == list(range(1, 31))


async def test_a_payload_that_is_not_json_is_refused_and_the_others_arrive(far: Far) -> None:
    await far.sink.connect()
    bad, worse = stored(2, payload=b"{oops"), stored(4, payload=b'"\xff"')
    refused = await far.sink.send([stored(1), bad, stored(3), worse])
    assert [(refusal.item_id, refusal.reason) for refusal in refused] == [(bad.id, "bad_json"), (worse.id, "not_utf8")]
    assert [message["seq"] for message in await far.received(2)] == [1, 3]


async def test_what_is_sent_is_counted_in_bytes(far: Far) -> None:
    await far.sink.connect()
    assert far.sink.bytes_sent == 0
    counted = []
    for size in (10, 1000, 1000):
        await far.sink.send([stored(size, payload=b'"%s"' % random.Random(size).randbytes(size).hex().encode())])
        counted.append(far.sink.bytes_sent)
    once, twice, again = counted
    assert 10 < once < 1000 < twice < 4000
    assert again - twice == twice - once


async def test_nothing_is_wrong_with_settings_that_work(far: Far) -> None:
    assert list(far.sink.check(1_750_000_000_000_000_000)) == []


async def test_nothing_is_sent_for_an_empty_batch(far: Far) -> None:
    await far.sink.connect()
    assert await far.sink.send([]) == []


async def test_sending_before_connecting_says_so(far: Far) -> None:
    with pytest.raises(NotConnectedError):
        await far.sink.send([stored(1)])


async def test_connecting_twice_and_closing_twice_is_harmless(far: Far) -> None:
    await far.sink.connect()
    await far.sink.connect()
    await far.sink.close()
    await far.sink.close()


async def test_closing_what_was_never_connected_is_harmless(far: Far) -> None:
    await far.sink.close()


async def test_a_lost_far_side_is_named_and_the_same_batch_goes_through_later(far: Far) -> None:
    await far.sink.connect()
    await far.sink.send([stored(1)])
    await far.lose()
    batch = [stored(n) for n in range(2, 11)]
    with pytest.raises(NotConnectedError):
        await far.sink.send(batch)
    with pytest.raises(NotConnectedError):
        await far.sink.connect()
    await far.restore()
    async with asyncio.timeout(20):
        while True:
            try:
                await far.sink.connect()
                assert await far.sink.send(batch) == []
                break
            except NotConnectedError:
                continue


async def test_an_unreachable_far_side_is_a_not_connected_error(far: Far) -> None:
    await far.lose()
    with pytest.raises(NotConnectedError):
        await far.sink.connect()
    await far.restore()
