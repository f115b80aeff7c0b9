"""Which handler the engine is running at this moment, in memory that the gateway sees even when the engine hangs."""

from __future__ import annotations

import mmap
import os
import struct
import time

_LAYOUT = struct.Struct("<qq")  # handler's number (0: none), monotonic ns since when


class Watch:
    """A page shared by two processes: the engine writes it around each call of a kernel, the gateway reads it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, mmap.PAGESIZE)

    @classmethod
    def create(cls) -> Watch:
        fd = os.memfd_create("edgefn-watch")
        os.ftruncate(fd, mmap.PAGESIZE)
        return cls(fd)

    def enter(self, number: int) -> None:
        _LAYOUT.pack_into(self._map, 0, number, time.monotonic_ns())

    def leave(self) -> None:
        _LAYOUT.pack_into(self._map, 0, 0, 0)

    def running(self) -> tuple[int, int]:
        """The handler's number and since when; (0, 0) where none runs."""
        number, since = _LAYOUT.unpack_from(self._map, 0)
        return number, since

    def close(self) -> None:
        if not self._map.closed:
            self._map.close()
            os.close(self.fd)
