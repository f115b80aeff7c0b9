"""A socket that only reads: what the load generator reaches without a broker is the margin of every rate that it measures."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from statistics import median

from bench.load import Generator, Spec

CONNACK, PUBACK = b"\x20\x02\x00\x00", b"\x40\x02\x00\x00"


class NullReader:
    """Lets one client in and reads what it sends, in a thread; at QoS 1 it acknowledges, without looking.

    All frames have to be of one length then, as those of `workload.json_frames` are: only the first one is looked at.
    """

    def __init__(self, qos: int = 0) -> None:
        self.ended = 0  # monotonic ns of the last read
        self.bytes = 0  # of PUBLISH frames
        self._qos = qos
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> NullReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.join()

    def join(self) -> None:
        """Waits until the client has gone."""
        self._thread.join(10)

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            sock.recv(1 << 16)  # CONNECT: it waits for the answer
            sock.sendall(CONNACK)
            buffer = memoryview(bytearray(1 << 20))
            length = acknowledged = 0
            while n := _read(sock, buffer):
                self.ended = time.monotonic_ns()
                if self._qos and not length:
                    length = frame_length(bytes(buffer[:n]))
                self.bytes += n
                if self._qos:
                    complete = self.bytes // length
                    sock.sendall(PUBACK * (complete - acknowledged))
                    acknowledged = complete


def _read(sock: socket.socket, buffer: memoryview) -> int:
    try:
        return sock.recv_into(buffer)
    except ConnectionResetError:  # a killed generator leaves acknowledgements unread
        return 0


def frame_length(data: bytes) -> int:
    """Of the MQTT packet that begins here, with its header."""
    length = shift = 0
    for at, byte in enumerate(data[1:5], 2):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return at + length
    raise ValueError(f"no MQTT packet begins with {data[:5].hex()}")


def null_rate(spec: Spec, repeats: int) -> float:
    """Messages a second from the generator into a null reader, the median of so many runs."""
    rates = []
    for _ in range(repeats):
        with NullReader(spec.qos) as reader:
            with Generator(replace(spec, port=reader.port, mark=0)) as generator:
                generator.go()
                sent = generator.result()
            reader.join()
        if reader.bytes != sent.bytes:
            raise RuntimeError(f"the null reader has got {reader.bytes:,} of {sent.bytes:,} bytes")
        rates.append(spec.n / (reader.ended - sent.started) * 1e9)
    return median(rates)
