"""What reached the cloud, taken apart by stream: each item once, in the order of its sequence number, or it is a finding."""

from __future__ import annotations

import asyncio
import zlib
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edgefn import events
from edgefn.address import BrokerAddress
from edgefn.bus import Bus, Message
from tests.integration.device import GATEWAY

PREFIX = f"edgefn/{GATEWAY}/"
Row = tuple[int | bool, ...]


@dataclass
class Cloud:
    """The reference consumer: it knows duplicates by their sequence number and finds gaps, reordering and changed content.

    A new epoch is a finding, too, unless `epochs_end`: after a power cut a store may begin one. Then what has come is
    counted the same.
    """

    epochs_end: bool = False

    rows: dict[str, dict[tuple[str, int], Row]] = field(default_factory=lambda: defaultdict(dict))
    findings: list[str] = field(default_factory=list)
    duplicates: int = 0
    newest: int = 0  # event time of the newest window's end, ns
    epochs: set[str] = field(default_factory=set)
    _content: dict[tuple[str, str], array[int]] = field(default_factory=lambda: defaultdict(lambda: array("L")))
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def count(self) -> int:
        return sum(map(len, self.rows.values()))

    def take(self, message: Message) -> None:
        item = events.from_json(message.payload)
        stream, seq, data = item["stream"], item["seq"], item["data"]
        self.epochs.add(item["epoch"])
        if len(self.epochs) > 1 and not self.epochs_end:
            self.findings.append(f"{stream} {seq}: another epoch: {self.epochs}")
        content, digest = (
            self._content[item["epoch"], stream],
            zlib.crc32(events.to_json([item["id"], item["ts"], data])),
        )
        if seq <= len(content):
            self.duplicates += 1
            if content[seq - 1] != digest:
                self.findings.append(f"{stream} {seq}: sent again with other content: {data}")
            return
        if seq != len(content) + 1:
            self.findings.append(f"{stream} {seq}: came after {len(content)}")
            content.extend([0] * (seq - 1 - len(content)))
        content.append(digest)
        key = data["key"], item["ts"]
        values = data["values"]
        row = (data["state"] == "raised",) if "state" in data else (values["n"], round(values["total"]))
        if key in self.rows[stream]:
            self.findings.append(f"{stream} {seq}: a second row for {key}: {self.rows[stream][key]}, {row}")
        self.rows[stream][key] = row
        if stream == "summary/tenth":
            self.newest = max(self.newest, item["ts"])
        self._grown.set()

    async def grown(self, timeout: float) -> None:
        """Waits for one new item. Raises TimeoutError."""
        self._grown.clear()
        await asyncio.wait_for(self._grown.wait(), timeout)


@asynccontextmanager
async def consuming(cloud: Cloud, port: int, *, qos: int = 1) -> AsyncIterator[Bus]:
    """Inside, all that the broker gets from the gateway is taken; the subscription stands when the block begins."""
    async with Bus(BrokerAddress("127.0.0.1", port), client_id="reference-consumer") as bus:
        await bus.wait_connected(10)
        async with bus.subscribe(f"{PREFIX}#", qos=qos, max_queue=1_000_000) as messages:

            async def take() -> None:
                async for message in messages:
                    cloud.take(message)

            taking = asyncio.create_task(take())
            try:
                yield bus
            finally:
                await bus.close()  # the iteration ends when all that came is taken
                await taking
