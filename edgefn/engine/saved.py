"""What the engine has saved of itself, as the bytes of a checkpoint's part: msgpack, made small.

Every byte of a commit wears an SD card. Times, keys and window numbers are nearly the same from row to row, so integers are
written as differences and all is deflated: 100 new samples of a window shrink from 6.3 kB to between 0.6 and 1 kB.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn import events
from edgefn.errors import PayloadError

# The first byte of a zlib stream (RFC 1950, 2.2). In msgpack it is the number 120, which no part is: parts of versions that
# did not deflate are read as they are.
_DEFLATED = 0x78
_DIFFERENCES = "differences"  # names the arrays that are written so
_LEVEL = 1  # 6 takes three times as long and saves 4 %


def pack(value: Any) -> bytes:
    """The value, of plain types and one-dimensional arrays; in a mapping, arrays of integers are taken as differences."""
    if isinstance(value, dict):
        different = {name: _differences(entry) for name, entry in value.items() if _of_integers(entry)}
        if different:
            value = {**value, **different, _DIFFERENCES: list(different)}
    plain = events.pack(value)
    deflated = zlib.compress(plain, _LEVEL)
    return deflated if len(deflated) < len(plain) else plain


def unpack(data: bytes) -> Any:
    """What `pack` was given, also by a version that wrote plain msgpack. Raises PayloadError."""
    value = events.unpack(_inflate(data) if data[:1] == bytes([_DEFLATED]) else data, events.MAX_LINK)
    if isinstance(value, dict):
        for name in value.pop(_DIFFERENCES, ()):
            value[name] = np.cumsum(value[name], dtype=value[name].dtype)
    return value


def _of_integers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu"


def _differences(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Both ways it wraps around, so that the full range comes back, the smallest of all numbers included.
    return np.diff(array, prepend=array.dtype.type(0))


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, events.MAX_LINK)
    except zlib.error as error:
        raise PayloadError("bad_checkpoint", f"cannot be inflated: {error}") from error
    if not inflater.eof:
        raise PayloadError("bad_checkpoint", "cut off, or larger than any part can be")
    return plain
