"""A cloud that takes everything and does not say so, says so late, or hangs up in the middle of a word: each row once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker
from edgefn.demo.wire import Wire
from tests.faults import LONG, SEED
from tests.faults.cloud import Cloud, consuming
from tests.faults.load import Load
from tests.faults.plant import plant
from tests.faults.workload import caught_up, exact

SECONDS = 30.0 if LONG else 1.5
PUBACK = 4
BAD = (("lose", 0.02), ("delay", 0.005), ("hang_up", 0.02))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS * 6 + 120)]


class BadLine(Wire):
    """A line on which the answers of the cloud suffer."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.lose = 0.0  # of the PUBACKs
        self.delay = 0.0  # seconds, for each piece of an answer
        self.hang_up = 0.0  # of the pieces are cut in half, and the connection with them
        self.suffered = 0
        self._chance = random.Random(SEED)

    async def _carry_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while frame := await _frame(reader):
            if frame[0] >> 4 == PUBACK and self._chance.random() < self.lose:
                self.suffered += 1
                continue
            if self.delay:
                self.suffered += 1
                await asyncio.sleep(self.delay)
            if self._chance.random() < self.hang_up:
                self.suffered += 1
                writer.write(frame[: len(frame) // 2])
                await writer.drain()
                return
            writer.write(frame)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One MQTT packet; what a broker says to a publisher is shorter than 128 bytes."""
    try:
        head = await reader.readexactly(2)
        return head + await reader.readexactly(head[1])
    except asyncio.IncompleteReadError:
        return b""


async def test_a_cloud_whose_answers_suffer_gets_every_row_once(
    tmp_path: Path, local: PrivateBroker, cloud_broker: PrivateBroker
) -> None:
    """It has what it did not confirm, so that comes again: under the same key."""
    cloud = Cloud()
    async with BadLine(cloud_broker.port) as line:
        uplink = f'name = "cloud"\nhost = "127.0.0.1"\nport = {line.port}\nbackoff_cap_s = 0.2\ntimeout_s = 1.0'
        async with (
            plant(tmp_path, local.port, uplink=uplink),
            consuming(cloud, cloud_broker.port),
            Load(local.port) as load,
        ):
            for name, how_bad in BAD if LONG else BAD[:1]:
                await caught_up(cloud, load)
                before, again = line.suffered, cloud.duplicates
                setattr(line, name, how_bad)
                await asyncio.sleep(SECONDS)
                setattr(line, name, 0.0)
                await caught_up(cloud, load)
                if name != "delay":  # the cloud has all; that it did not say so is noticed later
                    async with asyncio.timeout(20):
                        while cloud.duplicates == again:
                            await asyncio.sleep(0.05)
                again = cloud.duplicates - again
                print(f"{name} {how_bad}: {line.suffered - before} answers suffered, {again} rows came again")  # noqa: T201
                assert line.suffered > before
            await load.pause()
            await exact(cloud, load)
