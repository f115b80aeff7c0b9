"""The buffer between socket and scanner: what has come and is not read yet, and what of it is thrown away as it comes."""

from __future__ import annotations

import socket
import ssl

import numpy as np

from edgefn.engine import frames

SIZE = 4 << 20
SAMPLE = 32  # bytes that are shown of a frame that is wrong


class Inbox:
    """Where frames arrive. `rows` are the messages of the last scan, in `bytes`, both valid until the next `receive`."""

    def __init__(self, limit: int) -> None:
        """limit: the largest frame that is taken."""
        self._limit = limit
        self._memory = bytearray(SIZE)
        self.bytes = np.frombuffer(self._memory, np.uint8)  # the same memory, for the scanner
        self._start = self._end = 0
        self._skip = 0  # bytes of an oversized frame still to be thrown away
        self._rows = np.empty((frames.BATCH, frames.WORDS), np.int64)
        self._status = np.zeros(3, np.int64)
        self.rows = self._rows[:0]

    def clear(self) -> None:
        self._start = self._end = self._skip = 0

    def receive(self, sock: socket.socket | ssl.SSLSocket) -> int:
        """Reads once; returns how many bytes came. Raises what the socket raises."""
        if self._end == SIZE:
            self._compact()
        got = sock.recv_into(memoryview(self._memory)[self._end :])
        self._end += got
        return got

    def tidy(self) -> None:
        """Makes room, where all that is whole has been read."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start > SIZE // 2:
            self._compact()

    def _compact(self) -> None:
        rest = self._end - self._start
        self._memory[:rest] = self._memory[self._start : self._end]
        self._start, self._end = 0, rest

    def scan(self, *, v5: bool) -> int:
        """Passes over the messages that are whole, which are `rows` then; returns why it stopped (`frames.WHY`)."""
        taken = min(self._skip, self._end - self._start)
        self._start += taken
        self._skip -= taken
        frames.scan(self.bytes, self._start, self._end, v5, self._limit, self._rows, self._status)
        used, found, why = (int(value) for value in self._status)
        self._start += used
        self.rows = self._rows[:found]
        return why

    def head(self) -> tuple[int, int, int]:
        """First byte, size of the head and length of the body of the frame that the scan stopped at."""
        length = size = 0
        while True:
            size += 1
            byte = self._memory[self._start + size]
            length |= (byte & 127) << 7 * (size - 1)
            if byte < 128:
                return self._memory[self._start], size + 1, length

    def peek(self, at: int, n: int) -> bytes | None:
        """n bytes from `at` on of the frame that the scan stopped at, None where they are not here yet."""
        at += self._start
        return bytes(self._memory[at : at + n]) if at + n <= self._end else None

    def sample(self) -> bytes:
        """How the frame begins that the scan stopped at."""
        return bytes(self._memory[self._start : min(self._end, self._start + SAMPLE)])

    def take(self, n: int) -> bytes:
        """Passes over n bytes, which are here."""
        self._start += n
        return bytes(self._memory[self._start - n : self._start])

    def skip(self, n: int) -> None:
        """Passes over n bytes, as they come."""
        self._skip = n
