"""Events and their payloads: JSON objects, bare numbers, msgpack maps, and msgpack maps of arrays (batch events)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import numpy as np
import numpy.typing as npt

from edgefn.errors import PayloadError

MAX_PAYLOAD = 1 << 20
MAX_ARRAY = 1 << 18  # elements of one array of a batch event
MAX_FIELDS = 256
MAX_LINK = 1 << 28  # of what edgefn's own processes tell one another
ARRAY = 1  # the msgpack ext type of a numeric array: one byte of element type, then little-endian elements

# Element types of arrays in batch events: struct's letters, which numpy understands as well.
ELEMENTS = frozenset(b"bBhHiIqQfd")

Fields = Mapping[str, Any]

_json = msgspec.json.Decoder()
_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Event:
    """What a driver or any MQTT device publishes. `ts` is in nanoseconds since the epoch."""

    topic: str
    ts: int
    fields: Fields


def encode(fields: Fields) -> bytes:
    """Writes JSON where all fields are scalars, and a msgpack batch event where one is an array.

    Raises PayloadError for what neither can hold (an object, an array of strings).
    """
    try:
        if any(isinstance(value, np.ndarray) for value in fields.values()):
            return pack({name: value for name, value in fields.items()})
        return _encode_json(fields)
    except (TypeError, OverflowError) as error:
        raise PayloadError("not_encodable", str(error)) from error


def to_json(value: Any) -> bytes:
    """Any plain value as JSON; NaN and infinities become null, since JSON has no word for them."""
    return _encode_json(value)


def from_json(data: bytes) -> Any:
    """Strict JSON. Raises PayloadError("bad_json") for anything else, NaN and Infinity included."""
    try:
        return _json.decode(data)
    except RecursionError as error:
        raise PayloadError("too_deep", "nested too deeply") from error
    except UnicodeDecodeError as error:
        raise PayloadError("not_utf8", str(error)) from error
    except msgspec.DecodeError as error:
        raise PayloadError("bad_json", str(error)) from error


def _pack_default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(ARRAY, pack_array(value))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be put into a payload")


def pack_array(array: npt.NDArray[Any]) -> bytes:
    """One byte of element type and the elements in little-endian order."""
    if array.ndim != 1:
        raise TypeError(f"an array of a payload has one dimension, not {array.ndim}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    letter = array.dtype.char.replace("l", "q").replace("L", "Q")
    if letter.encode() not in {bytes([element]) for element in ELEMENTS}:
        raise TypeError(f"arrays of {array.dtype} cannot be put into a payload")
    return letter.encode() + array.astype(array.dtype.newbyteorder("<")).tobytes()


def unpack_array(data: bytes, limit: int = MAX_ARRAY) -> npt.NDArray[Any]:
    """A read-only view of the elements. Raises PayloadError for an unknown type, a torn or an oversized buffer."""
    if not data or data[0] not in ELEMENTS:
        raise PayloadError("bad_array", f"unknown element type {data[:1]!r}")
    dtype = np.dtype(chr(data[0])).newbyteorder("<")
    if (len(data) - 1) % dtype.itemsize:
        raise PayloadError("bad_array", f"{len(data) - 1} bytes are no whole number of {dtype} elements")
    if (len(data) - 1) // dtype.itemsize > limit:
        raise PayloadError("array_too_long", f"more than {limit} elements")
    return np.frombuffer(data, dtype, offset=1)


def pack(value: Any) -> bytes:
    """msgpack, with one-dimensional numpy arrays as the ARRAY extension."""
    packed: bytes = msgpack.packb(value, default=_pack_default, use_bin_type=True)
    return packed


def _ext_hook(code: int, data: bytes) -> Any:
    if code != ARRAY:
        raise PayloadError("bad_msgpack", f"unknown extension type {code}")
    return unpack_array(data)


def _ext_hook_link(code: int, data: bytes) -> Any:
    return unpack_array(data, MAX_LINK)


def unpack(data: bytes, limit: int = MAX_PAYLOAD) -> Any:
    """What `pack` wrote, or what a device claims is msgpack: every declared length is held against a limit."""
    try:
        return msgpack.unpackb(
            data,
            ext_hook=_ext_hook if limit <= MAX_PAYLOAD else _ext_hook_link,
            max_str_len=limit,
            max_bin_len=limit,
            max_ext_len=limit,
            max_array_len=MAX_ARRAY if limit <= MAX_PAYLOAD else limit,
            max_map_len=MAX_FIELDS if limit <= MAX_PAYLOAD else limit,
            strict_map_key=True,
        )
    except PayloadError:
        raise
    except (msgpack.StackError, RecursionError) as error:
        raise PayloadError("too_deep", "nested too deeply") from error
    except UnicodeDecodeError as error:
        raise PayloadError("not_utf8", str(error)) from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise PayloadError("bad_msgpack", f"{type(error).__name__}: {error}") from error
