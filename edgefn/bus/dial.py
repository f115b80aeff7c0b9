"""From a broker's address to a socket that is connected, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from edgefn.address import BrokerAddress


class DialledSocket:
    """A connected socket with a buffer for reading.

    paho reads a packet in three calls and TLS hands out whole records: with the buffer one system call serves many
    packets, and `pending` tells of packets that the selector cannot see.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._at = 0

    @property
    def pending(self) -> bool:
        if self._at < len(self._buffer):
            return True
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0 and self._sock.pending() > 0

    def recv(self, buffer_size: int) -> bytes:
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._sock.recv(65536), 0
        data = self._buffer[self._at : self._at + buffer_size]
        self._at += len(data)
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        return self._sock.send(buffer)

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)


async def dial(address: BrokerAddress, tls: ssl.SSLContext | None) -> DialledSocket:
    """A connected, non-blocking socket, the TLS handshake done. Raises OSError."""
    if address.unix:
        return DialledSocket(await _connect(socket.AF_UNIX, address.unix))
    trouble: OSError | None = None
    for family, target in await _look_up(address.host, address.port):
        try:
            sock = await _connect(family, target)
        except OSError as error:
            trouble = error
            continue
        # Nagle's algorithm holds a small packet back until the one before it is acknowledged, up to 40 ms later.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return DialledSocket(await _handshake(sock, tls, address.host) if tls else sock)
    raise trouble or OSError(f"no address for {address.host!r}")


async def _look_up(host: str, port: int) -> list[tuple[int, Any]]:
    loop = asyncio.get_running_loop()
    try:
        # asyncio starts a thread for any look-up, and keeps it; an address in figures needs none.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]


async def _connect(family: int, target: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


async def _handshake(plain: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    loop = asyncio.get_running_loop()
    sock = tls.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            ready = asyncio.Event()
            try:
                sock.do_handshake()
                return sock
            except ssl.SSLWantReadError:
                loop.add_reader(sock, ready.set)
                await ready.wait()
            except ssl.SSLWantWriteError:
                loop.add_writer(sock, ready.set)
                await ready.wait()
            finally:
                loop.remove_reader(sock)
                loop.remove_writer(sock)
    except BaseException:
        sock.close()
        raise
