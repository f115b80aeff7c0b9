"""The parts of JSON: names, texts, numbers, arrays of numbers, and values that nobody wants.

Each is taken only where it is certain to be what the general decoder (`decode.py`) takes it for, to the last bit; anything
else (an escape in a string, 20 digits, whatever is not valid) is UNCERTAIN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn import events
from edgefn.engine import types
from edgefn.engine.jit import compiled, inlined
from edgefn.engine.names import AT, HAS, LENGTH, LISTS, MEANS, NEEDED, OUTER, SCOPE, SEEN
from edgefn.engine.number_kernels import INTEGER, KIND, MANTISSA, NEGATIVE, REAL, UNCERTAIN, read_number

ROOM = -2  # the table is too short for an array
MAX_LIST = events.MAX_ARRAY
MAX_DEPTH = 60  # bits of a stack

NS_MAX = 2**63 - 1

_FACTORS = np.array([10**9, 10**6, 10**3, 1], np.int64)
_LOWS = np.array([10**9, 10**12, 10**15, 10**18], np.int64)  # as timestamps._UNITS
_HIGHS = np.array([10**10, 10**13, 10**16, NS_MAX], np.int64)

_bytes = types.uint8[::1]
_ints = types.int64[::1]
_floats = types.float64[::1]


@inlined
def skip_space(data: Any, at: int, end: int) -> int:
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@inlined
def skip_string(data: Any, at: int, end: int) -> int:
    """After the quote that ends the string which begins at `at`, behind its opening quote. UTF-8: RFC 3629, 4."""
    while at < end:
        byte = data[at]
        if byte == 34:
            return at + 1
        if byte < 32 or byte == 92:
            return UNCERTAIN
        at += 1
        if byte < 128:
            continue
        low, high = 128, 191
        if 194 <= byte <= 223:
            more = 1
        elif 224 <= byte <= 239:
            more = 2
            if byte == 224:
                low = 160
            elif byte == 237:
                high = 159
        elif 240 <= byte <= 244:
            more = 3
            if byte == 240:
                low = 144
            elif byte == 244:
                high = 143
        else:
            return UNCERTAIN
        if at + more > end:
            return UNCERTAIN
        for _ in range(more):
            if data[at] < low or data[at] > high:
                return UNCERTAIN
            low, high = 128, 191
            at += 1
    return UNCERTAIN


@inlined
def literal(data: Any, at: int, end: int) -> int:
    """After true, false or null."""
    if at + 4 <= end and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101 and data[at] == 116:
        return at + 4
    if at + 4 <= end and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108 and data[at] == 110:
        return at + 4
    if (
        at + 5 <= end
        and data[at] == 102
        and data[at + 1] == 97
        and data[at + 2] == 108
        and data[at + 3] == 115
        and data[at + 4] == 101
    ):
        return at + 5
    return UNCERTAIN


@inlined
def skip_key(data: Any, at: int, end: int) -> Any:
    """After the key at `at` and its colon, at the value."""
    if at >= end or data[at] != 34:
        return UNCERTAIN
    at = skip_string(data, at + 1, end)
    if at == UNCERTAIN:
        return UNCERTAIN
    at = skip_space(data, at, end)
    if at >= end or data[at] != 58:
        return UNCERTAIN
    return skip_space(data, at + 1, end)


@compiled(types.int64(_bytes, types.int64, types.int64, _ints, _floats))
def skip_value(data: Any, at: int, end: int, number: Any, value: Any) -> int:
    """After the value at `at`, which nobody wants but which has to be valid."""
    depth, objects = 0, np.uint64(0)  # bit d: level d is an object
    one = np.uint64(1)
    while True:
        if at >= end:
            return UNCERTAIN
        byte = data[at]
        opened = byte == 123 or byte == 91
        if opened:
            if depth == MAX_DEPTH:
                return UNCERTAIN
            bit = one << np.uint64(depth)
            objects = objects | bit if byte == 123 else objects & ~bit
            depth += 1
            at = skip_space(data, at + 1, end)
            if at >= end:
                return UNCERTAIN
            if data[at] != byte + 2:  # not closed at once: its first member
                if byte == 91:
                    continue
                at = skip_key(data, at, end)
                if at == UNCERTAIN:
                    return UNCERTAIN
                continue
        elif byte == 34:
            at = skip_string(data, at + 1, end)
        elif byte == 45 or 48 <= byte <= 57:
            at = read_number(data, at, end, number, value)
        else:
            at = literal(data, at, end)
        if at == UNCERTAIN:
            return UNCERTAIN
        # A value has ended, or stands closed at `at`; so may those around it.
        while depth:
            if not opened:
                at = skip_space(data, at, end)
            opened = False
            if at >= end:
                return UNCERTAIN
            in_object = objects >> np.uint64(depth - 1) & one
            if data[at] == 44:
                at = skip_space(data, at + 1, end)
                if in_object:
                    at = skip_key(data, at, end)
                    if at == UNCERTAIN:
                        return UNCERTAIN
                break
            if data[at] != (125 if in_object else 93):
                return UNCERTAIN
            at += 1
            depth -= 1
        else:
            return at


@inlined
def nanoseconds(unit: int, number: Any, value: float) -> Any:
    """`timestamps.to_ns`, or UNCERTAIN."""
    if number[NEGATIVE]:
        return UNCERTAIN
    whole = number[MANTISSA] if number[KIND] == INTEGER else np.int64(np.floor(value)) if value < 9e18 else np.int64(-1)
    if whole < 0:
        return UNCERTAIN
    which = unit - 1
    if unit == 0:
        which = 4
        for i in range(4):
            if _LOWS[i] <= whole < _HIGHS[i]:
                which = i
        if which == 4:
            return UNCERTAIN
    factor = _FACTORS[which]
    if whole >= NS_MAX // factor - 1:
        return UNCERTAIN
    ns = whole * factor
    if number[KIND] == REAL:
        ns += np.int64(np.rint((value - float(whole)) * float(factor)))
    return ns


@inlined
def find(data: Any, at: int, length: int, names: Any, where: Any, first: int, last: int, hint: int) -> int:
    """Which of the names from `first` to before `last` the bytes at `at` are: `hint` is tried first. -1: none."""
    for step in range(last - first):
        i = hint + step
        if i >= last:
            i -= last - first
        start = where[AT, i]
        if where[AT, i + 1] - start != length:
            continue
        same = True
        for k in range(length):
            if names[start + k] != data[at + k]:
                same = False
                break
        if same:
            return i
    return -1


@compiled(
    types.int64(
        _bytes, types.int64, types.int64, types.float64[:, ::1], types.int64, types.int64, _ints, _floats, _ints
    )
)
def read_list(data: Any, at: Any, end: int, columns: Any, c: int, row: int, number: Any, value: Any, count: Any) -> Any:
    """Reads the array of numbers at `at` into column c from `row` on, and its length into `count[0]`.

    Returns where it ends, UNCERTAIN, or ROOM where the column is too short.
    """
    n = 0
    at = skip_space(data, at + 1, end)
    while at < end:
        if n == MAX_LIST:
            return UNCERTAIN
        if row + n == columns.shape[1]:
            return ROOM
        byte = data[at]
        if byte == 45 or 48 <= byte <= 57:
            at = read_number(data, at, end, number, value)
            if at == UNCERTAIN:
                return UNCERTAIN
            columns[c, row + n] = value[0]
        elif byte == 116 or byte == 102:
            at = literal(data, at, end)
            if at == UNCERTAIN:
                return UNCERTAIN
            columns[c, row + n] = 1.0 if byte == 116 else 0.0
        else:
            return UNCERTAIN
        n += 1
        at = skip_space(data, at, end)
        if at >= end:
            return UNCERTAIN
        if data[at] == 93:
            count[0] = n
            return at + 1
        if data[at] != 44:
            return UNCERTAIN
        at = skip_space(data, at + 1, end)
    return UNCERTAIN


@compiled(
    types.int64(
        _bytes, types.int64, types.int64, types.int64, _bytes, types.int64[:, ::1], types.float64[:, ::1], types.int64,
        _ints, _floats, _ints, _ints,
    )
)  # fmt: skip
def read_object(
    data: Any, at: Any, end: int, scope: Any, names: Any, where: Any, columns: Any, row: int,
    number: Any, value: Any, count: Any, found: Any,
) -> Any:  # fmt: skip
    """Reads the object at `at`, whose names are those of `scope`, as `payload_kernels.decode` reads the one around it.

    Takes HAS, LISTS, LENGTH and SEEN from `found`, and goes on with them. Returns where it ends, UNCERTAIN, or ROOM.
    """
    n_columns = columns.shape[0]
    objects = n_columns + 2
    depth = 0
    hint = where[SCOPE, scope]
    at = skip_space(data, at + 1, end)
    is_member = at < end and data[at] != 125
    while at < end:
        if is_member:
            name = at + 1
            at = skip_key(data, at, end)
            if at == UNCERTAIN or at >= end:
                return UNCERTAIN
            stop = name
            while data[stop] != 34:
                stop += 1
            which = find(data, name, stop - name, names, where, where[SCOPE, scope], where[SCOPE, scope + 1], hint)
            bit = np.int64(0)
            if which >= 0:
                hint = which + 1
                which = where[MEANS, which]
                bit = np.int64(1) << which
                if found[SEEN] & bit:  # the last one counts
                    return UNCERTAIN
                found[SEEN] |= bit
            byte = data[at]
            is_column = 0 <= which < n_columns
            if byte == 123 and which >= objects:
                found[OUTER + depth] = scope
                depth += 1
                scope = which - objects + 1
                hint = where[SCOPE, scope]
                at = skip_space(data, at + 1, end)
                is_member = at < end and data[at] != 125
                continue
            if byte == 45 or 48 <= byte <= 57:
                at = read_number(data, at, end, number, value)
                if at != UNCERTAIN and is_column:
                    columns[which, row] = value[0]
                    found[HAS] |= bit
            elif byte == 91 and is_column:
                found[NEEDED] = min((end - at) // 2, MAX_LIST)
                at = read_list(data, at, end, columns, which, row, number, value, count)
                if at >= 0 and 0 <= found[LENGTH] != count[0]:
                    return UNCERTAIN
                found[LENGTH] = count[0]
                found[LISTS] |= bit
            elif byte == 34 and not is_column:
                at = skip_string(data, at + 1, end)
            elif (byte == 123 or byte == 91) and not is_column:
                at = skip_value(data, at, end, number, value)
            else:
                at = literal(data, at, end)
                if at != UNCERTAIN and byte != 110 and is_column:
                    columns[which, row] = 1.0 if byte == 116 else 0.0
                    found[HAS] |= bit
            if at < 0:
                return at
            at = skip_space(data, at, end)
        if at >= end:
            return UNCERTAIN
        is_member = data[at] == 44
        if is_member:
            at = skip_space(data, at + 1, end)
        elif data[at] != 125:
            return UNCERTAIN
        elif depth == 0:
            return at + 1
        else:
            depth -= 1
            scope = found[OUTER + depth]
            hint = where[SCOPE, scope]
            at = skip_space(data, at + 1, end)
    return UNCERTAIN
