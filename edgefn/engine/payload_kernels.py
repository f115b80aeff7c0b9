"""From the payloads of many messages to rows of a table: JSON objects, bare numbers, msgpack maps and batch events.

A payload is taken only where it is certain that the general decoder (`decode.py`) would say the same, to the last bit; at any
other it stops, and that one goes the general way. So no errors are reported here: who is wrong, and how, is said in one place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn import events
from edgefn.engine import types
from edgefn.engine.copying import fill
from edgefn.engine.frames import PAYLOAD, PAYLOAD_LENGTH
from edgefn.engine.jit import compiled, inlined
from edgefn.engine.json_kernels import (
    ROOM,
    find,
    literal,
    nanoseconds,
    read_list,
    read_object,
    skip_space,
    skip_string,
    skip_value,
)  # fmt: skip
from edgefn.engine.msgpack_kernels import read_map, step
from edgefn.engine.names import (
    AT,
    DOUBTFUL,
    FOUND,
    HAS,
    LENGTH,
    LISTS,
    NEEDED,
    ROOM_FOUND,
    SCOPE,
    SEEN,
    STAMPED,
    STEP,
    TIMED,
    WHEN,
)  # fmt: skip
from edgefn.engine.number_kernels import UNCERTAIN, read_number

# How a decoding ends, in `status`: where in `picked` it stopped, rows written, rows that the table is short of (0: the
# payload it stopped at is not certain), and samples of arrays that are not finite.
STOPPED, WRITTEN, SHORT, NOT_FINITE = range(4)

# How `ts` is written, as in edgefn.timestamps; ISO 8601 and what cannot be told go the general way.
UNITS = ("auto", "s", "ms", "us", "ns")
ARRIVAL = -1

MAX_KEYS, MAX_ARRAY, MAX_PAYLOAD = events.MAX_FIELDS, events.MAX_ARRAY, events.MAX_PAYLOAD
MAX_LENGTH = 366 * 86400 * 10**9  # ns between the first and the last sample of a batch event

_bytes, _ints, _rows = types.uint8[::1], types.int64[::1], types.int64[:, ::1]


@inlined
def _is_value(names: Any, start: int, stop: int) -> bool:
    """Whether a name is `value`, which is what a bare number is called."""
    return (
        stop - start == 5
        and names[start] == 118
        and names[start + 1] == 97
        and names[start + 2] == 108
        and names[start + 3] == 117
        and names[start + 4] == 101
    )


@compiled(
    types.void(
        _bytes, _rows, _ints, types.int64, _ints, _bytes, _rows, types.int64, types.int64, types.int64,
        _ints, types.int32[::1], _ints, types.float64[:, ::1], _bytes, types.int64, types.int64, _ints,
    )
)  # fmt: skip
def decode(
    data: Any, rows: Any, picked: Any, start: int, key: Any, names: Any, where: Any, unit: int, arrival: Any, latest: int,
    ts: Any, keys: Any, present: Any, columns: Any, by_gateway: Any, row: Any, enough: int, status: Any,
) -> None:  # fmt: skip
    """Writes the payloads of messages picked[start:] into a table from `row` on, up to the first uncertain one, or until the
    table holds `enough` rows.

    rows: what `frames.scan` wrote; key: the key of each of `picked`; names, where: the arrays of `Names`; unit: index in
    UNITS, or ARRIVAL; latest: the newest time that is believed; by_gateway: written 1 for each of `picked` that gets its
    time of arrival.
    """
    number, value, count = np.zeros(3, np.int64), np.zeros(1), np.zeros(1, np.int64)
    found = np.zeros(ROOM_FOUND, np.int64)
    n_columns = columns.shape[0]
    n_names = where[SCOPE, 1]
    objects = n_columns + 2  # of what names mean: from there on, objects that lead to columns
    first_row = row
    status[SHORT] = status[NOT_FINITE] = 0
    i: Any = start
    while i < picked.size:
        if row == ts.size or row >= enough:
            status[SHORT] = picked.size - i
            break
        at: Any = rows[picked[i], PAYLOAD]
        end = at + rows[picked[i], PAYLOAD_LENGTH]
        at = skip_space(data, at, end)
        if at >= end or rows[picked[i], PAYLOAD_LENGTH] > MAX_PAYLOAD:
            break
        has, lists, doubtful, seen, when, length = (
            np.int64(0), np.int64(0), np.int64(0), np.int64(0), arrival, np.int64(-1),
        )  # fmt: skip
        timed, stamped, dt = False, False, np.int64(0)
        certain = False
        if data[at] == 45 or 48 <= data[at] <= 57 or data[at] == 116 or data[at] == 102:  # a bare number or boolean
            byte = data[at]
            if byte <= 57:
                at = read_number(data, at, end, number, value)
            else:
                at = literal(data, at, end)
                value[0] = 1.0 if byte == 116 else 0.0
            if at != UNCERTAIN and skip_space(data, at, end) == end:
                certain = True
                for c in range(n_columns):
                    if _is_value(names, where[AT, c], where[AT, c + 1]):
                        columns[c, row] = value[0]
                        has |= np.int64(1) << c
        elif data[at] == 123:
            at = skip_space(data, at + 1, end)
            if at < end and data[at] == 125:
                certain = skip_space(data, at + 1, end) == end
            else:
                hint, n_keys = 0, 0
                while at < end:
                    name = at + 1
                    if data[at] != 34:
                        break
                    at = skip_string(data, name, end)
                    n_keys += 1
                    if at == UNCERTAIN or n_keys > MAX_KEYS:
                        break
                    which = find(data, name, at - 1 - name, names, where, 0, n_names, hint)
                    at = skip_space(data, at, end)
                    if at >= end or data[at] != 58:
                        break
                    at = skip_space(data, at + 1, end)
                    if at >= end:
                        break
                    byte = data[at]
                    if which >= 0:
                        hint = which + 1 if which < n_columns else 0
                        if seen >> which & 1:  # the last one counts
                            break
                        seen |= np.int64(1) << which
                        stamped |= which == n_columns
                    if byte == 45 or 48 <= byte <= 57:
                        at = read_number(data, at, end, number, value)
                        if at == UNCERTAIN:
                            break
                        if 0 <= which < n_columns:
                            columns[which, row] = value[0]
                            has |= np.int64(1) << which
                        elif which == n_columns and unit != ARRIVAL:
                            when = nanoseconds(unit, number, value[0])
                            if when == UNCERTAIN:
                                break
                            timed = True
                        elif which == n_columns + 1:
                            dt = step(value[0])
                    elif byte == 91 and 0 <= which < n_columns:
                        most = min((end - at) // 2, MAX_ARRAY)
                        at = read_list(data, at, end, columns, which, row, number, value, count)
                        if at == ROOM:
                            status[SHORT] = most
                        if at < 0 or 0 <= length != count[0]:
                            break
                        length = count[0]
                        lists |= np.int64(1) << which
                    elif byte == 34 and (which < 0 or which > n_columns):
                        at = skip_string(data, at + 1, end)
                        dt = np.int64(-1) if which == n_columns + 1 else dt
                    elif (byte == 123 or byte == 91) and (which < 0 or which > n_columns):
                        if byte == 123 and which >= objects:
                            found[HAS], found[LISTS], found[LENGTH], found[SEEN] = has, lists, length, seen
                            at = read_object(
                                data,
                                at,
                                end,
                                which - objects + 1,
                                names,
                                where,
                                columns,
                                row,
                                number,
                                value,
                                count,
                                found,
                            )
                            has, lists, length, seen = found[HAS], found[LISTS], found[LENGTH], found[SEEN]
                            if at == ROOM:
                                status[SHORT] = found[NEEDED]
                            if at < 0:
                                break
                        else:
                            at = skip_value(data, at, end, number, value)
                        dt = np.int64(-1) if which == n_columns + 1 else dt
                    else:
                        at = literal(data, at, end)
                        if which == n_columns + 1:
                            dt = np.int64(-1)
                        elif at != UNCERTAIN and byte != 110 and 0 <= which < objects:
                            if which == n_columns:
                                break
                            columns[which, row] = 1.0 if byte == 116 else 0.0
                            has |= np.int64(1) << which
                    if at == UNCERTAIN:
                        break
                    at = skip_space(data, at, end)
                    if at >= end:
                        break
                    if data[at] == 125:
                        certain = skip_space(data, at + 1, end) == end
                        break
                    if data[at] != 44:
                        break
                    at = skip_space(data, at + 1, end)
        elif at == rows[picked[i], PAYLOAD] and (128 <= data[at] <= 143 or data[at] == 222 or data[at] == 223):
            found[:FOUND] = 0
            found[LENGTH] = -1
            told = read_map(data, at, end, names, where, unit, columns, row, number, value, found)
            if told == ROOM:
                status[SHORT] = found[NEEDED]
            certain = told == 0
            has, lists, doubtful, length = found[HAS], found[LISTS], found[DOUBTFUL], found[LENGTH]
            timed, stamped, dt = found[TIMED] != 0, found[STAMPED] != 0, found[STEP]
            when = found[WHEN] if timed else arrival
        if not certain or when > latest:
            break
        if length < 0:
            ts[row] = when
            keys[row] = key[i]
            present[row] = has
            row += 1
        else:  # one row a sample; a scalar beside the arrays holds for each
            if dt < 0 or length * (dt + 1) > MAX_LENGTH:
                break
            if not stamped:
                when = arrival - length * dt
            if when + length * dt > latest:
                break
            for q in range(np.uint64(length)):
                ts[np.uint64(row) + q] = when + np.int64(q) * dt
            fill(keys, row, np.int32(key[i]), length)
            fill(present, row, has | lists & ~doubtful, length)
            for c in range(n_columns):
                if has >> c & 1:
                    fill(columns[c], row, columns[c, row], length)
                elif doubtful >> c & 1:
                    for q in range(row, row + length):
                        if np.isfinite(columns[c, q]):
                            present[q] |= np.int64(1) << c
                        else:
                            status[NOT_FINITE] += 1
            row += length
        by_gateway[i] = not timed
        i += 1
    status[STOPPED] = i
    status[WRITTEN] = row - first_row
