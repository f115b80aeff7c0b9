"""The JSON decoder: from the payloads of a batch to rows of a table, for objects of plain numbers.

It takes a payload only where it is certain to say what the general decoder (`decode.py`) says, to the last bit; at anything
else (an escape in a string, an array, 20 digits, a duplicate, whatever is not valid) it stops, and that payload goes the
general way. So it reports no errors of its own: who is wrong, and how, is said in one place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from edgefn.engine.frames import PAYLOAD, PAYLOAD_LENGTH
from edgefn.engine.jit import compiled, inlined
from edgefn.engine.number_kernels import INTEGER, KIND, MANTISSA, NEGATIVE, REAL, UNCERTAIN, read_number

# How a decoding ends, in `status`: where in `picked` it stopped, and rows written.
STOPPED, WRITTEN = range(2)

MAX_KEYS = 256  # as events.MAX_FIELDS
MAX_DEPTH = 60  # bits of a stack

# How `ts` is written, as in edgefn.timestamps; ISO 8601 and what cannot be told go the general way.
UNITS = ("auto", "s", "ms", "us", "ns")
ARRIVAL = -1
NS_MAX = 2**63 - 1

_FACTORS = np.array([10**9, 10**6, 10**3, 1], np.int64)
_LOWS = np.array([10**9, 10**12, 10**15, 10**18], np.int64)  # as timestamps._UNITS
_HIGHS = np.array([10**10, 10**13, 10**16, NS_MAX], np.int64)

_bytes = types.uint8[::1]
_ints = types.int64[::1]
_floats = types.float64[::1]


@inlined
def _skip_space(data: Any, at: int, end: int) -> int:
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@inlined
def _skip_string(data: Any, at: int, end: int) -> int:
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
def _literal(data: Any, at: int, end: int) -> int:
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
def _skip_key(data: Any, at: int, end: int) -> Any:
    """After the key at `at` and its colon, at the value."""
    if at >= end or data[at] != 34:
        return UNCERTAIN
    at = _skip_string(data, at + 1, end)
    if at == UNCERTAIN:
        return UNCERTAIN
    at = _skip_space(data, at, end)
    if at >= end or data[at] != 58:
        return UNCERTAIN
    return _skip_space(data, at + 1, end)


@compiled(types.int64(_bytes, types.int64, types.int64, _ints, _floats))
def _skip_value(data: Any, at: int, end: int, number: Any, value: Any) -> int:
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
            at = _skip_space(data, at + 1, end)
            if at >= end:
                return UNCERTAIN
            if data[at] != byte + 2:  # not closed at once: its first member
                if byte == 91:
                    continue
                at = _skip_key(data, at, end)
                if at == UNCERTAIN:
                    return UNCERTAIN
                continue
        elif byte == 34:
            at = _skip_string(data, at + 1, end)
        elif byte == 45 or 48 <= byte <= 57:
            at = read_number(data, at, end, number, value)
        else:
            at = _literal(data, at, end)
        if at == UNCERTAIN:
            return UNCERTAIN
        # A value has ended, or stands closed at `at`; so may those around it.
        while depth:
            if not opened:
                at = _skip_space(data, at, end)
            opened = False
            if at >= end:
                return UNCERTAIN
            in_object = objects >> np.uint64(depth - 1) & one
            if data[at] == 44:
                at = _skip_space(data, at + 1, end)
                if in_object:
                    at = _skip_key(data, at, end)
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
def _nanoseconds(unit: int, number: Any, value: float) -> Any:
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
def _find(data: Any, at: int, length: int, names: Any, name_at: Any, hint: int) -> int:
    """Which of the names the bytes at `at` are: `hint` is tried first. The last name is `ts`; -1: none."""
    n = name_at.size - 1
    for step in range(n):
        i = hint + step
        if i >= n:
            i -= n
        start = name_at[i]
        if name_at[i + 1] - start != length:
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
    types.void(
        _bytes, types.int64[:, ::1], _ints, types.int64, _ints, _bytes, _ints, types.int64, types.int64, types.int64,
        _ints, types.int32[::1], _ints, types.float64[:, ::1], _bytes, types.int64, _ints,
    )
)  # fmt: skip
def decode(
    data: Any, rows: Any, picked: Any, start: int, key: Any, names: Any, name_at: Any, unit: int, arrival: int, latest: int,
    ts: Any, keys: Any, present: Any, columns: Any, by_gateway: Any, row: int, status: Any,
) -> None:  # fmt: skip
    """Writes the payloads of messages picked[start:] into a table from `row` on, up to the first uncertain one.

    rows: what `frames.scan` wrote; key: the key of each of `picked`; names: the columns' names in a row and `ts` behind them,
    from name_at[i] to name_at[i + 1]; unit: index in UNITS, or ARRIVAL; latest: the newest time that is believed;
    by_gateway: written 1 for each of `picked` that gets its time of arrival. The table has room for all of picked[start:].
    """
    number, value = np.zeros(3, np.int64), np.zeros(1)
    n_columns = name_at.size - 2
    first_row = row
    i: Any = start
    while i < picked.size:
        at = rows[picked[i], PAYLOAD]
        end = at + rows[picked[i], PAYLOAD_LENGTH]
        at = _skip_space(data, at, end)
        if at >= end:
            break
        has, seen, when = np.int64(0), np.int64(0), arrival
        timed = False
        certain = False
        if data[at] == 45 or 48 <= data[at] <= 57:  # a bare number
            at = read_number(data, at, end, number, value)
            if at != UNCERTAIN and _skip_space(data, at, end) == end:
                certain = True
                for c in range(n_columns):
                    if name_at[c + 1] - name_at[c] == 5:
                        s = name_at[c]
                        if (
                            names[s] == 118
                            and names[s + 1] == 97
                            and names[s + 2] == 108
                            and names[s + 3] == 117
                            and names[s + 4] == 101
                        ):
                            columns[c, row] = value[0]
                            has |= np.int64(1) << c
        elif data[at] == 123:
            at = _skip_space(data, at + 1, end)
            if at < end and data[at] == 125:
                certain = _skip_space(data, at + 1, end) == end
            else:
                hint, n_keys = 0, 0
                while at < end:
                    name = at + 1
                    if data[at] != 34:
                        break
                    at = _skip_string(data, name, end)
                    n_keys += 1
                    if at == UNCERTAIN or n_keys > MAX_KEYS:
                        break
                    which = _find(data, name, at - 1 - name, names, name_at, hint)
                    at = _skip_space(data, at, end)
                    if at >= end or data[at] != 58:
                        break
                    at = _skip_space(data, at + 1, end)
                    if at >= end:
                        break
                    byte = data[at]
                    if which >= 0:
                        hint = which + 1 if which < n_columns else 0
                        if seen >> which & 1:  # the last one counts
                            break
                        seen |= np.int64(1) << which
                    if byte == 45 or 48 <= byte <= 57:
                        at = read_number(data, at, end, number, value)
                        if at == UNCERTAIN:
                            break
                        if 0 <= which < n_columns:
                            columns[which, row] = value[0]
                            has |= np.int64(1) << which
                        elif which == n_columns and unit != ARRIVAL:
                            when = _nanoseconds(unit, number, value[0])
                            if when == UNCERTAIN or when > latest:
                                break
                            timed = True
                    elif byte == 34 and which < 0:
                        at = _skip_string(data, at + 1, end)
                    elif (byte == 123 or byte == 91) and which < 0:
                        at = _skip_value(data, at, end, number, value)
                    else:
                        at = _literal(data, at, end)
                        if at != UNCERTAIN and byte != 110 and which >= 0:
                            if which == n_columns:
                                break
                            columns[which, row] = 1.0 if byte == 116 else 0.0
                            has |= np.int64(1) << which
                    if at == UNCERTAIN:
                        break
                    at = _skip_space(data, at, end)
                    if at >= end:
                        break
                    if data[at] == 125:
                        certain = _skip_space(data, at + 1, end) == end
                        break
                    if data[at] != 44:
                        break
                    at = _skip_space(data, at + 1, end)
        if not certain:
            break
        ts[row] = when
        keys[row] = key[i]
        present[row] = has
        by_gateway[i] = not timed
        row += 1
        i += 1
    status[STOPPED] = i
    status[WRITTEN] = row - first_row
