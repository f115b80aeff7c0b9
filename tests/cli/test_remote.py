"""Asking a gateway that runs: what is said where it does not answer, or not as one hopes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgefn import config
from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.bus import Bus
from edgefn.cli import remote
from edgefn.cli.remote import Operator, UnreachableError, operator
from edgefn.config import Config
from edgefn.errors import StoreError
from edgefn.gateway.commands import CommandError, Commands, Tell
from edgefn.metrics import Metrics
from edgefn.monitor import Topics
from tests.store.helpers import a_store

pytestmark = pytest.mark.integration
TOPICS = Topics("gw-remote")


@pytest.fixture
def settings(tmp_path: Path, mosquitto: PrivateBroker, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(remote, "CONNECT", 0.5)
    monkeypatch.setattr(remote, "SILENCE", 0.2)
    gateway = {"id": TOPICS.gateway, "state": str(tmp_path / "state")}
    return config.read({"gateway": gateway, "broker": {"port": mosquitto.port}}, "")


@asynccontextmanager
async def gateway(settings: Config, status: bytes) -> AsyncIterator[Bus]:
    """Something that holds the store, and is heard on the broker as a gateway is."""

    async def count(arguments: dict[str, Any], tell: Tell) -> int:
        for n in range(arguments["to"]):
            await tell(n)
        return int(arguments["to"])

    async def refuse(arguments: dict[str, Any], tell: Tell) -> None:
        raise CommandError("not today")

    async def hang(arguments: dict[str, Any], tell: Tell) -> None:
        await asyncio.Event().wait()

    address = BrokerAddress("127.0.0.1", settings.broker.port)
    async with a_store(Path(settings.gateway.state) / "edgefn.db"), Bus(address) as bus:
        await bus.wait_connected(5)
        if status:
            await bus.publish(TOPICS.status, status, qos=1, retain=True)
        verbs = {"count": count, "refuse": refuse, "hang": hang}
        task = asyncio.create_task(Commands(bus, TOPICS, Metrics(), verbs).run())
        try:
            yield bus
        finally:
            task.cancel()
            await asyncio.wait({task})
            await bus.publish(TOPICS.status, b"", qos=1, retain=True)


@asynccontextmanager
async def asking(settings: Config, status: bytes = b"online") -> AsyncIterator[tuple[Operator, Bus]]:
    async with gateway(settings, status) as bus, operator(settings) as one:
        yield one, bus


async def test_news_come_before_the_result(settings: Config) -> None:
    news: list[Any] = []
    async with asking(settings) as (one, _):
        assert one.running
        assert await one.ask("count", {"to": 3}, news.append) == 3
        assert await one.ask("count", {"to": 0}, news.append) == 0
    assert news == [0, 1, 2]


async def test_what_is_refused_is_told_as_the_gateway_says_it(settings: Config) -> None:
    async with asking(settings) as (one, _):
        with pytest.raises(CommandError, match=r"^not today$"):
            await one.ask("refuse", {})


async def test_a_gateway_that_falls_silent(settings: Config) -> None:
    async with asking(settings) as (one, _):
        with pytest.raises(UnreachableError, match=r"no gateway 'gw-remote' has answered cmd/hang within 0.2 s"):
            await one.ask("hang", {})


async def test_a_gateway_that_goes_away_while_it_is_asked(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE", 10.0)
    async with asking(settings) as (one, bus):
        asked = asyncio.create_task(one.ask("hang", {}))
        await asyncio.sleep(0)
        await bus.publish(TOPICS.status, b"offline", qos=1, retain=True)
        with pytest.raises(UnreachableError, match="is connected to the broker at"):
            await asked


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            b"",
            "in use by process .*no gateway 'gw-remote' has ever been heard at .*were gateway.id or the broker changed",
        ),
        (b"offline", "in use by process .*no gateway 'gw-remote' is connected to the broker at .* now"),
    ],
)
async def test_a_gateway_that_is_not_there(settings: Config, status: bytes, error: str) -> None:
    with pytest.raises(UnreachableError, match=error):
        async with asking(settings, status):
            pass


async def test_a_folder_that_may_not_be_read_is_named(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(
        StoreError, match=r"edgefn.db: Permission denied; run this as root or as the user of the service"
    ):
        async with operator(settings):
            pass
