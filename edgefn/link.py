"""The messages between engine and gateway: length-prefixed msgpack over a socket pair.

Gateway to engine
    start      {broker, client_id, checkpoint, interval, gateway, boot, right}: once, first; `boot` is the id of this boot,
               `right` whether gateway time is known to be right
    plan       {manifests, forward}: the files that are active from now on, and patterns of which the gateway wants each message
    took       {n}: so many messages of QoS 0 were taken in
    committed  {number}: commit `number` is in the store
    interval   {interval}: between two commits from now on, in ns
    stop       {}: commit what there is and leave

Engine to gateway
    ready      {numbers, fresh, raised, seconds}: the plan runs; `fresh` names handlers whose state has begun anew,
               `raised` the keys whose alert is raised by the state that was taken up
    alerts     {outputs}: raised or cleared just now, and provisional until a commit holds them. Each of the outputs is
               {handler, version, labels, ts, own, offset, n, revised, values}: the rows of one handler, an array a value;
               `own` is 1 where `ts` is gateway time, which was then `offset` ahead of the monotonic clock. And
               `summaries`, a packed one a row, where the store may merge them
    commit     {number, outputs, parts, confirmed, meters, counters, gauges}: to be stored as one unit; `confirmed`
               is what it then holds of the drivers' sources, {source: sequence number}
    events     {ts, events}: messages for Python handlers that came at `ts`, each [topic, payload, retained, place, hash];
               `place` is the same when it comes again, and empty for QoS 0. The next commit covers them
    failure    {handler, row, count} or {topic, reason, detail, sample}: one example of what went wrong, now and then
    broker     {state, why}: the engine's own connection
    stopped    {}: the last message
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from edgefn import events
from edgefn.errors import LinkClosedError

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    body = events.pack(message)
    return len(body).to_bytes(4, "little") + body


class Decoder:
    """Puts messages together from whatever pieces they come in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        self._buffer += data
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "little")
            if len(self._buffer) < 4 + length:
                return
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            yield events.unpack(body, events.MAX_LINK)


class Link:
    """The engine's end: it reads when the socket is readable, and waits while the gateway is slow to read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._decoder = Decoder()

    def send(self, message: Message) -> None:
        """Raises LinkClosedError when the gateway has gone."""
        try:
            self.sock.sendall(encode(message))
        except OSError as error:
            raise LinkClosedError(f"the gateway has gone: {error}") from error

    def receive(self) -> Iterator[Message]:
        """The messages that are whole after one read. Raises LinkClosedError at the end of the stream."""
        data = self.sock.recv(1 << 20)
        if not data:
            raise LinkClosedError("the gateway has gone")
        yield from self._decoder.feed(data)
