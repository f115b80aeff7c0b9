"""What machine code depends on besides its source: compiler, Python and processor."""

from __future__ import annotations

import platform
import sys
from functools import cache
from hashlib import blake2b
from importlib.metadata import version


@cache
def fingerprint() -> bytes:
    """The same wherever the same machine code runs. Loads neither numba nor LLVM to ask them."""
    return b"\0".join((version("numba").encode(), sys.version.encode(), _cpu()))


def _cpu() -> bytes:
    lines = set()
    try:
        with open("/proc/cpuinfo", "rb") as file:
            lines = {line for line in file if line.startswith((b"model name", b"flags", b"Features", b"CPU part"))}
    except OSError:
        lines.add(platform.processor().encode())
    return platform.machine().encode() + b"".join(sorted(lines))


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits that name all parts in their order."""
    whole = blake2b(digest_size=8)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()
