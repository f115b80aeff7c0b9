"""A gateway under load between two brokers of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from tests.broker import make_broker
from tests.faults.plant import Plant, plant


@pytest.fixture
def local(tmp_path: Path) -> Iterator[PrivateBroker]:
    with make_broker(persistence=tmp_path / "local") as broker:
        yield broker


@pytest.fixture
def cloud_broker() -> Iterator[PrivateBroker]:
    with make_broker() as broker:
        yield broker


@pytest.fixture
async def running(tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker) -> AsyncIterator[Plant]:
    async with plant(tmp_path, local.port, cloud_broker.port) as one:
        yield one
