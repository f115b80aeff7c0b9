"""The msgpack decoder: from a map of numbers and typed arrays to rows of a table.

As with JSON, it takes only what it is certain about: at a nested value, a text that is not ASCII, an unknown extension, a
duplicate, or whatever is not valid, it says so, and the payload goes the general way (`decode.py`). A declared length is held
against what is there before anything is read or reserved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn import events
from edgefn.engine import types
from edgefn.engine.jit import compiled, inlined
from edgefn.engine.json_kernels import find, nanoseconds
from edgefn.engine.number_kernels import INT_MAX, INTEGER, KIND, MANTISSA, NEGATIVE, REAL, UNCERTAIN

ROOM = -2  # the table is too short for an array

# What is found in a map or an object, in `found`. Bits are columns. LENGTH: of the arrays, -1 where there is none;
# STEP: nanoseconds between two samples, -1 where they are not such; STAMPED: there is a `ts`; TIMED: it is a time.
HAS, LISTS, DOUBTFUL, LENGTH, WHEN, TIMED, STAMPED, STEP, NEEDED = range(9)
FOUND = 9

MAX_STEP = 10**15  # ns; a float is exact up to there

_ARRAY, _MAX_ARRAY, _MAX_FIELDS = events.ARRAY, events.MAX_ARRAY, events.MAX_FIELDS

_i64 = types.int64
_bytes, _ints, _floats = types.uint8[::1], types.int64[::1], types.float64[::1]
_columns = types.float64[:, ::1]


@inlined
def _big_endian(data: Any, at: int, n: int) -> Any:
    """The unsigned integer in n bytes at `at`."""
    made = np.uint64(0)
    for i in range(n):
        made = made << np.uint64(8) | np.uint64(data[at + i])
    return made


@inlined
def _is_ascii(data: Any, at: int, n: int) -> Any:
    together = np.uint8(0)
    for i in range(np.uint64(at), np.uint64(at + n)):
        together |= data[i]
    return together < 128


@inlined
def _element_size(letter: int) -> int:
    """Bytes of an element, by struct's letter; 0 where it is none."""
    if letter == 98 or letter == 66:  # b B
        return 1
    if letter == 104 or letter == 72:  # h H
        return 2
    if letter == 105 or letter == 73 or letter == 102:  # i I f
        return 4
    if letter == 113 or letter == 81 or letter == 100:  # q Q d
        return 8
    return 0


@compiled(types.boolean(_bytes, _i64, _i64, types.uint8, _columns, _i64, _i64))
def _read_array(data: Any, at: int, n: int, letter: int, columns: Any, c: int, row: int) -> Any:
    """Converts n little-endian elements at `at` into column c from `row` on; returns whether all are finite."""
    out = columns[c, row : row + n]
    count = np.uint64(n)
    if letter == 102:
        singles = data[at : at + 4 * n].view(np.float32)
        doubt = np.float32(0.0)
        for i in range(count):
            out[i] = singles[i]
            doubt += singles[i] * np.float32(0.0)  # NaN where one is not finite
        return doubt == 0.0
    if letter == 100:
        doubles = data[at : at + 8 * n].view(np.float64)
        doubt_ = 0.0
        for i in range(count):
            out[i] = doubles[i]
            doubt_ += doubles[i] * 0.0
        return doubt_ == 0.0
    if letter == 98:
        bytes_ = data[at : at + n].view(np.int8)
        for i in range(count):
            out[i] = bytes_[i]
    elif letter == 66:
        for i in range(count):
            out[i] = data[np.uint64(at) + i]
    elif letter == 104:
        shorts = data[at : at + 2 * n].view(np.int16)
        for i in range(count):
            out[i] = shorts[i]
    elif letter == 72:
        unsigned_shorts = data[at : at + 2 * n].view(np.uint16)
        for i in range(count):
            out[i] = unsigned_shorts[i]
    elif letter == 105:
        integers = data[at : at + 4 * n].view(np.int32)
        for i in range(count):
            out[i] = integers[i]
    elif letter == 73:
        unsigned = data[at : at + 4 * n].view(np.uint32)
        for i in range(count):
            out[i] = unsigned[i]
    elif letter == 113:
        longs = data[at : at + 8 * n].view(np.int64)
        for i in range(count):
            out[i] = longs[i]
    else:
        unsigned_longs = data[at : at + 8 * n].view(np.uint64)
        for i in range(count):
            out[i] = unsigned_longs[i]
    return True


@inlined
def _length(data: Any, at: int, end: int, size: int) -> Any:
    """The length in `size` bytes at `at`, or UNCERTAIN where they are not all there."""
    return UNCERTAIN if at + size > end else np.int64(_big_endian(data, at, size))


@inlined
def step(dt: float) -> Any:
    """Nanoseconds between two samples, -1 where `dt` is not to be believed."""
    return np.int64(np.rint(dt)) if 0.0 <= dt <= MAX_STEP else np.int64(-1)


@compiled(_i64(_bytes, _i64, _i64, _bytes, _ints, _i64, _columns, _i64, _ints, _floats, _ints))
def read_map(
    data: Any, at: Any, end: int, names: Any, name_at: Any, unit: int, columns: Any, row: int,
    number: Any, value: Any, found: Any,
) -> int:  # fmt: skip
    """Reads the map in data[at:end] into `row` of the columns, arrays into the rows from there on, and says more in `found`.

    Returns 0, UNCERTAIN or ROOM. `number` and `value` are scratch.
    """
    size: Any
    n_columns = name_at.size - 3
    word = np.zeros(1, np.uint32)
    head = data[at]
    at += 1
    n = np.int64(head & 15)
    if head == 0xDE or head == 0xDF:
        size = 2 if head == 0xDE else 4
        n = _length(data, at, end, size)
        at += size
    if n < 0 or n > _MAX_FIELDS:
        return UNCERTAIN
    hint: Any = 0
    seen = np.int64(0)
    for _ in range(n):
        if at >= end:
            return UNCERTAIN
        head = data[at]
        at += 1
        if 0xA0 <= head <= 0xBF:
            size = np.int64(head & 31)
        elif head == 0xD9 and at < end:
            size = np.int64(data[at])
            at += 1
        else:
            return UNCERTAIN
        if at + size >= end or not _is_ascii(data, at, size):
            return UNCERTAIN
        which = find(data, at, size, names, name_at, hint)
        at += size
        bit = np.int64(0)
        if which >= 0:
            hint = which + 1 if which < n_columns else 0
            bit = np.int64(1) << which
            if seen & bit:  # the last one counts
                return UNCERTAIN
            seen |= bit
            if which == n_columns:
                found[STAMPED] = 1

        head = data[at]
        at += 1
        is_number = False
        if head <= 0x7F or head >= 0xE0 or 0xCC <= head <= 0xD3:
            is_number = True
            negative = head >= 0xE0
            if head <= 0x7F:
                bits = np.uint64(head)
            elif negative:
                bits = np.uint64(256 - np.int64(head))
            else:
                size = 1 << ((head - 0xCC) & 3)
                if at + size > end:
                    return UNCERTAIN
                bits = _big_endian(data, at, size)
                at += size
                if head >= 0xD0 and bits >> np.uint64(8 * size - 1):  # the sign
                    negative = True
                    bits = (~bits + np.uint64(1)) & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * size))
            if bits > np.uint64(INT_MAX):
                return UNCERTAIN
            number[KIND], number[NEGATIVE], number[MANTISSA] = INTEGER, negative, np.int64(bits)
            value[0] = -float(bits) if negative else float(bits)
        elif head == 0xCA or head == 0xCB:
            is_number = True
            size = 4 if head == 0xCA else 8
            if at + size > end:
                return UNCERTAIN
            bits = _big_endian(data, at, size)
            at += size
            if size == 4:
                word[0] = np.uint32(bits)
                value[0] = word.view(np.float32)[0]
            else:
                value.view(np.uint64)[0] = bits
            if which >= 0 and not np.isfinite(value[0]):
                return UNCERTAIN
            number[KIND], number[NEGATIVE] = REAL, value[0] < 0
        elif head == 0xC0:
            if which == n_columns + 1:
                found[STEP] = -1
        elif head == 0xC2 or head == 0xC3:
            if which == n_columns:
                return UNCERTAIN
            if which == n_columns + 1:
                found[STEP] = -1
            elif which >= 0:
                columns[which, row] = np.float64(head & 1)
                found[HAS] |= bit
        elif 0xA0 <= head <= 0xBF or 0xC4 <= head <= 0xC6 or 0xD9 <= head <= 0xDB:
            is_text = head < 0xC0 or head >= 0xD9
            if head < 0xC0:
                size = np.int64(head & 31)
            else:
                prefix = 1 << (head - (0xD9 if is_text else 0xC4))
                size = _length(data, at, end, prefix)
                if size == UNCERTAIN:
                    return UNCERTAIN
                at += prefix
            if at + size > end or which >= 0 or (is_text and not _is_ascii(data, at, size)):
                return UNCERTAIN
            at += size
        elif 0xC7 <= head <= 0xC9 or 0xD4 <= head <= 0xD8:
            if head >= 0xD4:
                size = np.int64(1) << (head - 0xD4)
            else:
                prefix = 1 << (head - 0xC7)
                size = _length(data, at, end, prefix)
                if size == UNCERTAIN:
                    return UNCERTAIN
                at += prefix
            if size < 1 or at + 1 + size > end or data[at] != _ARRAY or which >= n_columns:
                return UNCERTAIN
            letter = data[at + 1]
            width = _element_size(letter)
            if width == 0 or (size - 1) % width:
                return UNCERTAIN
            elements = (size - 1) // width
            if elements > _MAX_ARRAY:
                return UNCERTAIN
            if which >= 0:
                if elements == 0 or (found[LENGTH] >= 0 and found[LENGTH] != elements):
                    return UNCERTAIN
                if row + elements > columns.shape[1]:
                    found[NEEDED] = elements
                    return ROOM
                if not _read_array(data, at + 2, elements, letter, columns, which, row):
                    found[DOUBTFUL] |= bit
                found[LENGTH] = elements
                found[LISTS] |= bit
            at += 1 + size
        else:
            return UNCERTAIN
        if is_number and which >= 0:
            if which < n_columns:
                columns[which, row] = value[0]
                found[HAS] |= bit
            elif which == n_columns:
                if unit >= 0:
                    when = nanoseconds(unit, number, value[0])
                    if when == UNCERTAIN:
                        return UNCERTAIN
                    found[WHEN], found[TIMED] = when, 1
            else:
                found[STEP] = step(value[0])
    return 0 if at == end else UNCERTAIN
