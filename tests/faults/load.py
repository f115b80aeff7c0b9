"""The load: QoS 1 events of many machines at a steady rate, each a function of its number, each acknowledged by the broker.

What the broker has acknowledged it delivers once, so the number of the last event says all that the engine must have counted.
"""

from __future__ import annotations

import asyncio
import json
import time

from edgefn.engine import packets

KEYS = 20
RATE = 2000  # events a second
WINDOW = 500  # unacknowledged events; the broker takes 1000
TICK = 0.01  # seconds between two writes
STEP = 1_000_000_000 // RATE  # ns of event time from one event to the next
SHUFFLE = 20_300_000  # ns, times 0 to 4: by so much the events of one machine are out of order, and no two at one time
PATIENCE = 30.0


class Truth:
    """Event number i: whose it is, when it was measured, what it says."""

    def __init__(self, start: int) -> None:
        self.start = start  # ns since the epoch

    @staticmethod
    def key(i: int) -> str:
        return f"m{i % KEYS:02}"

    def ts(self, i: int) -> int:
        return self.start + i * STEP - i // KEYS * 3 % 5 * SHUFFLE

    @staticmethod
    def value(i: int) -> int:
        """0 to 999 as if at random; the handlers' filter lets 900 of the 1000 pass."""
        return i * 2_654_435_761 % 1_000_003 % 1000

    def frame(self, i: int, qos: int = 1) -> bytes:
        """A PUBLISH packet."""
        payload = json.dumps({"ts": self.ts(i), "v": self.value(i)}).encode()
        topic = f"machines/{self.key(i)}".encode()
        packet_id = (i % 65535 + 1).to_bytes(2, "big") if qos else b""
        body = len(topic).to_bytes(2, "big") + topic + packet_id + payload
        assert len(body) < 128  # one byte of length
        return bytes([0x30 | qos << 1, len(body)]) + body


class Load:
    """`async with Load(port) as load` sends until the block ends; `pause` and `resume` while the broker is away.

    A connection that breaks with events under way ends the load with ConnectionError: the broker may or may not have them,
    and a truth that is not known proves nothing.
    """

    def __init__(self, port: int) -> None:
        self.truth = Truth(time.time_ns())
        self.sent = 0  # events 0 to sent - 1
        self.acknowledged = 0
        self._port = port
        self._answered = asyncio.Event()
        self._running = False
        self._task: asyncio.Task[None] | None = None

    @property
    def now(self) -> int:
        """Event time of what is being sent."""
        return self.truth.start + self.sent * STEP

    async def __aenter__(self) -> Load:
        await self.resume()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pause()

    async def resume(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            packets.connect("load", v5=False, keepalive=0, username=None, password=None, expiry=0, receive=WINDOW)
        )
        connack = packets.parse_connack((await reader.readexactly(4))[2:], v5=False)
        assert not connack.reason, connack.refused
        self._running = True
        self._task = asyncio.create_task(self._run(reader, writer))

    async def pause(self) -> None:
        """Stops when all that was sent is acknowledged. Twice is harmless."""
        self._running = False
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait_for(task, PATIENCE)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                counting = tasks.create_task(self._count(reader))
                await self._send(writer)
                counting.cancel()
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        started, first = time.monotonic(), self.sent
        while self._running:
            due = min(first + int((time.monotonic() - started) * RATE), self.acknowledged + WINDOW)
            writer.write(b"".join(map(self.truth.frame, range(self.sent, due))))
            self.sent = max(self.sent, due)
            await writer.drain()
            await asyncio.sleep(TICK)
        while self.acknowledged < self.sent:
            self._answered.clear()
            await self._answered.wait()

    async def _count(self, reader: asyncio.StreamReader) -> None:
        """The PUBACKs come in the order of the events."""
        while True:
            try:
                frame = await reader.readexactly(4)
            except asyncio.IncompleteReadError as error:
                lost = self.sent - self.acknowledged
                raise ConnectionError(
                    f"the broker closed the load's connection with {lost} events under way"
                ) from error
            assert frame == b"\x40\x02" + (self.acknowledged % 65535 + 1).to_bytes(2, "big"), frame
            self.acknowledged += 1
            self._answered.set()
