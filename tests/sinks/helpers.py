"""Items to send, and a sink that does what a test tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from edgefn.errors import NotConnectedError, PayloadError, Trouble
from edgefn.sinks import Refusal
from edgefn.sinks.envelope import envelope
from edgefn.store import Item

EPOCH = "0a1b2c3d"


def stored(seq: int, stream: str = "summary/minute", payload: bytes | None = None, gateway: str = "gw-1") -> Item:
    data = b'{"n":%d}' % seq if payload is None else payload
    return Item(seq << 2 | 1, stream, seq, 1_750_000_000_000_000_000, 1, data, f"{gateway}/{EPOCH}/{stream}/{seq}")


def as_envelope(row: dict[str, Any]) -> dict[str, Any]:
    """What was sent, out of a row of a Parquet file: the columns again as JSON."""
    ts = row["ts"].value if hasattr(row["ts"], "value") else int(row["ts"].timestamp()) * 10**9
    members = {
        name: row[name]
        for name in ("handler", "key", "state", "samples", "window_s", "revision")
        if row[name] is not None
    }
    data = json.loads(row["data"]) if row["data"] is not None else {**members, "values": dict(row["values"])}
    names = ("id", "gateway", "epoch", "stream", "seq")
    return {**{name: row[name] for name in names}, "ts": ts, "data": data}


class FakeSink:
    """Keeps what it is sent. `lose_acknowledgement` delivers a part of the next batch and then breaks the connection."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.refuse: dict[str, str] = {}  # key → reason
        self.reachable = True
        self.connects = 0
        self.closed = False
        self.bytes_sent = 0
        self._connected = False
        self._deliver_only: list[int] = []

    def lose_acknowledgement(self, *, after: int) -> None:
        self._deliver_only.append(after)

    def lose_connection(self) -> None:
        self.reachable = self._connected = False

    def restore_connection(self) -> None:
        self.reachable = True

    def check(self, now: int) -> Iterable[Trouble]:
        return ()

    async def connect(self) -> None:
        self.connects += 1
        if not self.reachable:
            raise NotConnectedError("the fake cloud is unreachable")
        self._connected = True

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        if not self._connected:
            raise NotConnectedError("the fake cloud is not connected")
        only = self._deliver_only.pop(0) if self._deliver_only else len(items)
        refused = []
        for item in items[:only]:
            try:
                if reason := self.refuse.get(item.key):
                    raise PayloadError(reason)
                line = envelope(item)
                self.bytes_sent += len(line)
                self.received.append(json.loads(line))
            except PayloadError as error:
                refused.append(Refusal(item.id, error.reason))
        if only < len(items):
            self._connected = False
            raise NotConnectedError("the fake cloud went away before it acknowledged")
        return refused

    async def close(self) -> None:
        self.closed = True
        self._connected = False
