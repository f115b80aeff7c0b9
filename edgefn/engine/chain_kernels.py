"""The chains of blocks that hold the samples of open windows: one more row goes in, and all rows of a key come out."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn.engine import types
from edgefn.engine.copying import copy
from edgefn.engine.jit import compiled

BLOCK = 32  # samples in one block: small enough for 100,000 keys with few samples, large enough to be read in one go
NEVER = np.iinfo(np.int64).max
BEGINNING = np.iinfo(np.int64).min

KEY = np.dtype(
    [
        ("watermark", "i8"),  # largest position seen; for time, goes on with the clock when the key falls silent
        ("seen", "i8"),  # monotonic time of the last sample
        ("due", "i8"),  # the watermark that closes the earliest open window; NEVER where none is open
        ("done", "i8"),  # windows below this number are closed: what comes for them is late
        ("fired", "i8"),  # windows below this number have been put out
        ("count", "i8"),  # samples so far: the position of the next one in windows of a count
        ("rows", "i8"),  # samples held
        ("head", "i4"),
        ("tail", "i4"),
        ("flagged", "i4"),  # already on the list of keys with a window to close
        ("dirty", "i4"),  # changed since the last checkpoint: TOUCHED or CLOSED
    ],
    align=True,
)

# Indices into the store's `spec` (what the window is) and `free` (the list of free blocks).
KIND, SIZE, STEP, LATENESS, IDLE, REVISE = range(6)
TIME, COUNT, SESSION, SLIDING = range(4)
FREE_HEAD, FREE_COUNT, LONGEST, LATE, SKIPPED = range(5)
TOUCHED, CLOSED = 1, 2
# What `fresh` says of a row: no checkpoint has it; it came for a window that had been put out already.
UNSAVED, REVISES = 1, 2

_i64 = types.int64
_KEYS = types.records(KEY)
_I32S, _I64S, _U8S = types.int32[::1], types.int64[::1], types.uint8[::1]
_F64SS = types.float64[:, ::1]
_BLOCKS = types.Tuple(
    (types.float64[:, :, ::1], types.int64[:, ::1], types.int64[:, ::1], types.uint8[:, ::1], _I32S, _I32S, _I64S)
)


# The rows of one key: values, times, lows, fresh.
_ROWS = types.Tuple((_F64SS, _I64S, _I64S, _U8S))
# spec, keys, blocks, n, sel, ts, key, present, columns, idx, need, now, closable
INSERT = (_I64S, _KEYS, _BLOCKS, _i64, _I32S, _I64S, _I32S, _I64S, _F64SS, _I64S, _i64, _i64, _I32S)
# spec, keys, blocks, closable, n_closable, progress, one key's rows, segments
CLOSE = types.void(
    *(_I64S, _KEYS, _BLOCKS, _I32S, _i64, _I64S),
    _ROWS,
    types.Tuple((_F64SS, _I64S, _I64S, _I64S, _I32S, _I64S, _U8S)),
)


@compiled(_i64(_i64, _KEYS, _BLOCKS))
def place(key: int, keys: Any, blocks: Any) -> int:
    """Makes room for one more row at the end of the key's chain; returns its place as block * BLOCK + index."""
    values, times, lows, fresh, nexts, fills, free = blocks
    k = keys[key]
    tail = k.tail
    if tail < 0 or fills[tail] == BLOCK:
        block = free[FREE_HEAD]
        free[FREE_HEAD] = nexts[block]
        free[FREE_COUNT] -= 1
        nexts[block] = -1
        fills[block] = 0
        if tail < 0:
            k.head = block
        else:
            nexts[tail] = block
        k.tail = block
        tail = block
    at = fills[tail]
    fills[tail] = at + 1
    k.rows += 1
    free[LONGEST] = max(free[LONGEST], k.rows)
    spot: int = tail * BLOCK + at
    return spot


@compiled(types.void(_ROWS, _i64, _i64))
def _merge_rows(rows: Any, at: int, n: int) -> None:
    """The same by merging runs of 1, 2, 4 … rows."""
    row_values, row_times, row_lows, row_fresh = rows
    order, merged = np.arange(n), np.empty(n, np.int64)
    width = 1
    while width < n:
        for begin in range(0, n, 2 * width):
            middle, end = min(begin + width, n), min(begin + 2 * width, n)
            i, j = begin, middle
            for q in range(begin, end):
                if j == end or (i < middle and row_times[order[i]] <= row_times[order[j]]):
                    merged[q] = order[i]
                    i += 1
                else:
                    merged[q] = order[j]
                    j += 1
        order, merged = merged, order
        width *= 2
    row_times[:n] = row_times[:n][order]
    row_lows[:n] = row_lows[:n][order]
    row_fresh[:n] = row_fresh[:n][order]
    for f in range(row_values.shape[0]):
        row_values[f, at : at + n] = row_values[f, at : at + n][order]


@compiled(types.void(_ROWS, _i64, _i64))
def sort_rows(rows: Any, at: int, n: int) -> None:
    """Puts n rows in the order of time; those of one time keep theirs. The values begin at column `at`."""
    row_values, row_times, row_lows, row_fresh = rows
    # Insertion costs nothing for what comes in order already, and little for what is a few places off. But a device that
    # sends times at random would keep it busy for seconds: past a bound the rest is merged.
    moves = 8 * n + 64
    for i in range(1, n):
        t = row_times[i]
        if row_times[i - 1] <= t:
            continue
        if moves < 0:
            _merge_rows(rows, at, n)
            return
        low, mark, to = row_lows[i], row_fresh[i], i
        while to > 0 and row_times[to - 1] > t:
            row_times[to], row_lows[to], row_fresh[to] = row_times[to - 1], row_lows[to - 1], row_fresh[to - 1]
            to -= 1
        row_times[to], row_lows[to], row_fresh[to] = t, low, mark
        for f in range(row_values.shape[0]):
            value = row_values[f, at + i]
            for q in range(at + i, at + to, -1):
                row_values[f, q] = row_values[f, q - 1]
            row_values[f, at + to] = value
        moves -= i - to


@compiled(types.void(types.int32, _BLOCKS, _ROWS))
def gather_marks(head: int, blocks: Any, rows: Any) -> None:
    """Copies the first windows of a chain's rows, and what is fresh of them, in the order of the chain."""
    values, times, lows, fresh, nexts, fills, free = blocks
    row_values, row_times, row_lows, row_fresh = rows
    n = 0
    block = head
    while block >= 0:
        m = fills[block]
        copy(row_lows, n, lows[block], 0, m)
        copy(row_fresh, n, fresh[block], 0, m)
        n += m
        block = nexts[block]


@compiled(
    types.Tuple((_i64, _i64, _i64, types.boolean, types.boolean))(
        types.int32, _BLOCKS, _ROWS, _i64, types.boolean, types.boolean
    )
)
def gather(head: int, blocks: Any, rows: Any, at: int, by_time: bool, marked: bool) -> Any:
    """Copies a chain into `rows`, the values from column `at` on, in the order of time where that counts.

    marked: with the marks of all rows; else those come only where the rows have to be sorted: `gather_marks` brings them later.
    Returns how many rows there are, the lowest and the highest of their first windows, whether one of them revises a window, and
    whether the marks have come.
    """
    values, times, lows, fresh, nexts, fills, free = blocks
    row_values, row_times, row_lows, row_fresh = rows
    n, marks = 0, np.uint8(0)
    lowest, highest = NEVER, BEGINNING
    block = head
    while block >= 0:
        m = fills[block]
        copy(row_times, n, times[block], 0, m)
        for f in range(values.shape[1]):
            copy(row_values[f], at + n, values[block, f], 0, m)
        for i in range(np.uint64(m)):
            lowest, highest = min(lowest, lows[block, i]), max(highest, lows[block, i])
            marks |= fresh[block, i]
        n += m
        block = nexts[block]
    disorder = 0
    if by_time:
        for i in range(np.uint64(1), np.uint64(n)):
            disorder |= row_times[i - np.uint64(1)] > row_times[i]
    if marked or disorder:
        gather_marks(head, blocks, rows)
    if disorder:
        sort_rows(rows, at, n)
    return n, lowest, highest, marks & REVISES != 0, marked or disorder != 0


@compiled(_i64(_i64, _i64, _i64, types.boolean, _I64S))
def not_below(position: int, start: int, n: int, by_count: bool, row_times: Any) -> int:
    """The first row from `start` on whose position (its time, or its number) is not below `position`; n: there is none."""
    if by_count:
        return min(max(position, start), n)
    below, above = start, n
    while below < above:
        middle = (below + above) // 2
        if row_times[middle] < position:
            below = middle + 1
        else:
            above = middle
    return below


@compiled(_i64(_KEYS, _i64, _BLOCKS, _i64, types.boolean, _i64, _I32S, _I64S, _I64S, _F64SS))
def collect(
    keys: Any,
    n_keys: int,
    blocks: Any,
    which: int,
    all_rows: bool,
    capacity: int,
    out_key: Any,
    out_times: Any,
    out_lows: Any,
    out_values: Any,
) -> int:
    """Copies the rows that no checkpoint holds yet (or all rows), of keys that are dirty in a way that `which` names.

    Returns their number; where they are more than `capacity`, nothing is copied or marked.
    """
    values, times, lows, fresh, nexts, fills, free = blocks
    for writing in range(2):
        n = 0
        for i in range(n_keys):
            k = keys[i]
            if not all_rows and k.dirty & which == 0:
                continue
            block = k.head
            while block >= 0:
                for at in range(fills[block]):
                    if all_rows or fresh[block, at] & UNSAVED:
                        if writing == 1:
                            out_key[n] = i
                            out_times[n] = times[block, at]
                            out_lows[n] = lows[block, at]
                            for f in range(values.shape[1]):
                                out_values[f, n] = values[block, f, at]
                            fresh[block, at] &= ~np.uint8(UNSAVED)
                        n += 1
                block = nexts[block]
        if n > capacity:
            return n
    return n


@compiled(types.void(_I64S, _KEYS, _BLOCKS, _i64, _I32S, _I64S, _I64S, _F64SS))
def restore(
    spec: Any, keys: Any, blocks: Any, n: int, row_key: Any, row_times: Any, row_lows: Any, row_values: Any
) -> None:
    """Puts rows of a checkpoint back into their chains. The caller has made sure of n free blocks."""
    values, times, lows, fresh, nexts, fills, free = blocks
    for i in range(n):
        k = keys[row_key[i]]
        spot = place(row_key[i], keys, blocks)
        block, at = spot // BLOCK, spot % BLOCK
        times[block, at] = row_times[i]
        lows[block, at] = row_lows[i]
        fresh[block, at] = 0
        for f in range(values.shape[1]):
            values[block, f, at] = row_values[f, i]
        if spec[KIND] != SLIDING:
            due = row_lows[i] * spec[STEP] + spec[SIZE] + spec[LATENESS]
            k.due = min(k.due, due)
