"""The msgpack decoder: from a map of numbers and typed arrays to rows of a table.

As with JSON, it takes only what it is certain about: at a text that is not ASCII, an unknown extension, a duplicate, or
whatever is not valid, it says so, and the payload goes the general way (`decode.py`). A declared length is held against what
is there before anything is read or reserved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn import events
from edgefn.engine import types
from edgefn.engine.jit import compiled, inlined
from edgefn.engine.json_kernels import find, nanoseconds
from edgefn.engine.names import (
    DOUBTFUL,
    HAS,
    LEFT,
    LENGTH,
    LISTS,
    MAX_NESTED,
    MEANS,
    NEEDED,
    OUTER,
    OUTER_LEFT,
    SCOPE,
    STAMPED,
    STEP,
    TIMED,
    WHEN,
)  # fmt: skip
from edgefn.engine.number_kernels import INT_MAX, INTEGER, KIND, MANTISSA, NEGATIVE, REAL, UNCERTAIN

ROOM = -2  # the table is too short for an array

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
def _skip_text(data: Any, at: int, end: int, head: int) -> Any:
    """After the text or the bytes whose first byte, before `at`, is `head`."""
    size: Any
    is_text = head < 0xC0 or head >= 0xD9
    if head < 0xC0:
        size = np.int64(head & 31)
    else:
        prefix = 1 << (head - (0xD9 if is_text else 0xC4))
        size = _length(data, at, end, prefix)
        if size == UNCERTAIN:
            return UNCERTAIN
        at += prefix
    if at + size > end or (is_text and not _is_ascii(data, at, size)):
        return UNCERTAIN
    return at + size


@inlined
def _open(data: Any, at: int, end: int, head: int) -> Any:
    """How many members the array or map has whose first byte is `head` (UNCERTAIN: too many), and where they begin."""
    n = np.int64(head & 15)
    if head >= 0xDC:
        size = 4 if head & 1 else 2
        n = _length(data, at, end, size)
        at += size
    most = _MAX_FIELDS if head <= 0x8F or head >= 0xDE else _MAX_ARRAY
    return n if n <= most else np.int64(UNCERTAIN), at


@compiled(_i64(_bytes, _i64, _i64, _ints))
def _skip(data: Any, at: Any, end: int, found: Any) -> int:
    """After the array or map at `at`, which nobody wants but which has to be valid."""
    left = found[LEFT:]  # of each level: what it still has
    depth, maps = 0, np.int64(0)  # bit d: level d is a map
    left[0] = 1
    while True:
        while left[depth] == 0:
            if depth == 0:
                return at  # type: ignore[no-any-return]
            depth -= 1
        is_name = maps >> depth & 1 and left[depth] % 2 == 0
        left[depth] -= 1
        if at >= end:
            return UNCERTAIN
        head = data[at]
        at += 1
        if is_name and not (0xA0 <= head <= 0xBF or head == 0xD9):
            return UNCERTAIN
        if 0x80 <= head <= 0x9F or 0xDC <= head <= 0xDF:
            n, at = _open(data, at, end, head)
            if n == UNCERTAIN or depth == MAX_NESTED:
                return UNCERTAIN
            depth += 1
            bit = np.int64(1) << depth
            if head <= 0x8F or head >= 0xDE:
                maps |= bit
                n *= 2
            else:
                maps &= ~bit
            left[depth] = n
        elif 0xA0 <= head <= 0xBF or 0xC4 <= head <= 0xC6 or 0xD9 <= head <= 0xDB:
            at = _skip_text(data, at, end, head)
            if at == UNCERTAIN:
                return UNCERTAIN
        elif 0xCA <= head <= 0xD3:
            at += (4 if head == 0xCA else 8) if head <= 0xCB else 1 << ((head - 0xCC) & 3)
        elif 0x7F < head < 0xE0 and head != 0xC0 and head != 0xC2 and head != 0xC3:
            return UNCERTAIN
        if at > end:
            return UNCERTAIN


@inlined
def step(dt: float) -> Any:
    """Nanoseconds between two samples, -1 where `dt` is not to be believed."""
    return np.int64(np.rint(dt)) if 0.0 <= dt <= MAX_STEP else np.int64(-1)


@compiled(
    _i64(
        _bytes, _i64, _i64, _bytes, types.int64[:, ::1], _i64, _columns, _i64, _ints, _floats, _ints
    )
)  # fmt: skip
def read_map(
    data: Any, at: Any, end: int, names: Any, where: Any, unit: int, columns: Any, row: int,
    number: Any, value: Any, found: Any,
) -> int:  # fmt: skip
    """Reads the map in data[at:end] into `row` of the columns, arrays into the rows from there on, and says more in `found`.

    names, where: the arrays of `Names`. Returns 0, UNCERTAIN or ROOM. `number` and `value` are scratch.
    """
    size: Any
    n_columns = columns.shape[0]
    objects = n_columns + 2  # of what names mean: from there on, objects that lead to columns
    head = data[at]
    n, at = _open(data, at + 1, end, head)
    if n == UNCERTAIN:
        return UNCERTAIN
    hint: Any = 0
    scope: Any = 0
    seen, depth = np.int64(0), 0
    first, last = np.int64(0), where[SCOPE, 1]
    while True:
        while n == 0 and depth:
            depth -= 1
            scope, n = found[OUTER + depth], found[OUTER_LEFT + depth]
            first, last, hint = where[SCOPE, scope], where[SCOPE, scope + 1], where[SCOPE, scope]
        if n == 0:
            return 0 if at == end else UNCERTAIN
        n -= 1
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
        which = find(data, at, size, names, where, first, last, hint)
        at += size
        bit = np.int64(0)
        if which >= 0:
            hint = which + 1
            which = where[MEANS, which]
            if which >= n_columns:
                hint = first
            bit = np.int64(1) << which
            if seen & bit:  # the last one counts
                return UNCERTAIN
            seen |= bit
            if which == n_columns:
                found[STAMPED] = 1

        head = data[at]
        at += 1
        is_container = 0x80 <= head <= 0x9F or 0xDC <= head <= 0xDF
        if which >= objects and not (is_container and (head <= 0x8F or head >= 0xDE)):
            which = -1  # no object: it leads nowhere
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
                value.view(np.uint32)[0] = np.uint32(bits)
                value[0] = value.view(np.float32)[0]
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
            at = _skip_text(data, at, end, head)
            if at == UNCERTAIN or which >= 0:
                return UNCERTAIN
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
        elif is_container and which >= objects:
            found[OUTER + depth], found[OUTER_LEFT + depth] = scope, n
            depth += 1
            scope = which - objects + 1
            first, last, hint = where[SCOPE, scope], where[SCOPE, scope + 1], where[SCOPE, scope]
            n, at = _open(data, at, end, head)
            if n == UNCERTAIN:
                return UNCERTAIN
        elif is_container and which < 0:
            at = _skip(data, at - 1, end, found)
            if at == UNCERTAIN:
                return UNCERTAIN
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
