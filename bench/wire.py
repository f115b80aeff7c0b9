"""MQTT 3.1.1 by hand, for a client that must cost less than what it measures: PUBLISH frames out, PUBLISH frames in."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass

PUBLISH, PUBACK = 3, 4


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    at: int  # monotonic ns of the read that brought it
    retained: bool


def _length(n: int) -> bytes:
    out = bytearray()
    while True:
        n, low = n >> 7, n & 127
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def publish(topic: str, payload: bytes, packet_id: int = 0) -> bytes:
    """A PUBLISH frame, of QoS 1 where it has a packet id."""
    body = _text(topic) + (packet_id.to_bytes(2, "big") if packet_id else b"") + payload
    return bytes([0x32 if packet_id else 0x30]) + _length(len(body)) + body


class Connection:
    """One client on 127.0.0.1, used from one thread. Closing twice is harmless."""

    def __init__(self, port: int, client_id: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        body = _text("MQTT") + bytes([4, 2]) + (600).to_bytes(2, "big") + _text(client_id)
        self.sock.sendall(b"\x10" + _length(len(body)) + body)
        answer = self.sock.recv(4, socket.MSG_WAITALL)
        if answer != b"\x20\x02\x00\x00":
            raise RuntimeError(f"127.0.0.1:{port} does not let the benchmark in: it answers {answer!r}")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def subscribe(self, *filters: str) -> None:
        """At QoS 0, so that listening costs the broker nothing but the writing."""
        body = b"\x00\x01" + b"".join(_text(one) + b"\x00" for one in filters)
        self.send(b"\x82" + _length(len(body)) + body)

    def send(self, data: bytes | memoryview) -> None:
        self.sock.sendall(data)

    def receive(self, timeout: float) -> list[Message]:
        """What one read brings, nothing where `timeout` seconds pass first. Raises ConnectionError when it is closed."""
        if not select.select([self.sock], [], [], max(0.0, timeout))[0]:
            return []
        data = self.sock.recv(1 << 20)
        at = time.monotonic_ns()
        if not data:
            raise ConnectionError("the broker closed the benchmark's connection; see its log")
        # mosquitto waits for our ACK before it sends the next small packet (Nagle), and the kernel would hold that ACK back
        # for 40 ms: the listener's own delay must not count as the gateway's.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._buffer += data
        return self._parse(at)

    def _parse(self, at: int) -> list[Message]:
        buffer, start, found = self._buffer, 0, []
        while start + 2 <= len(buffer):
            length = shift = 0
            body = start + 1
            while body < len(buffer):
                byte = buffer[body]
                body += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            else:
                break
            if body + length > len(buffer):
                break
            head = buffer[start]
            if head >> 4 == PUBLISH:
                topic = body + 2 + (buffer[body] << 8 | buffer[body + 1])
                found.append(
                    Message(buffer[body + 2 : topic].decode(), bytes(buffer[topic : body + length]), at, bool(head & 1))
                )
            start = body + length
        del buffer[:start]
        return found
