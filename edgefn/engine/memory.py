"""What handlers may allocate. A kernel that wants more gets a MemoryError, before the system looks for somebody to kill."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


def limit(megabytes: int) -> None:
    """On top of what is loaded by now."""
    _set(_data() + (megabytes << 20))


@contextmanager
def uncounted() -> Iterator[None]:
    """What is loaded inside is not taken from the handlers, numba least of all."""
    allowed, before = resource.getrlimit(resource.RLIMIT_DATA)[0], _data()
    if allowed == resource.RLIM_INFINITY:
        yield
        return
    _set(resource.RLIM_INFINITY)
    try:
        yield
    finally:
        _set(allowed + max(_data() - before, 0))


def _set(allowed: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, resource.RLIM_INFINITY))


def _data() -> int:
    """Bytes of data that the process has."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmData")) << 10
