"""The loops of the window store: samples go into chains of blocks, one chain a key, and come out as closed windows."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

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

types: Any = numba.types  # parts of it have annotations and parts have none
_i64 = types.int64
_KEYS = types.Array(numba.from_dtype(KEY), 1, "C")
_I32S, _I64S, _U8S = types.int32[::1], types.int64[::1], types.uint8[::1]
_F64SS = types.float64[:, ::1]
_BLOCKS = types.Tuple(
    (types.float64[:, :, ::1], types.int64[:, ::1], types.int64[:, ::1], types.uint8[:, ::1], _I32S, _I32S, _I64S)
)


@compiled(_i64(_I64S, _i64))
def closed_below(spec: Any, watermark: int) -> int:
    """The number of the first window that the watermark has not closed."""
    if watermark == BEGINNING:
        return BEGINNING
    number: int = (watermark - spec[LATENESS] - spec[SIZE]) // spec[STEP] + 1
    return number


@compiled(_i64(_I64S, _i64))
def fired_below(spec: Any, watermark: int) -> int:
    """The number of the first window that is not put out at this watermark: with revisions they do not wait for `lateness`."""
    if watermark == BEGINNING:
        return BEGINNING
    wait = 0 if spec[REVISE] else spec[LATENESS]
    number: int = (watermark - wait - spec[SIZE]) // spec[STEP] + 1
    return number


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


@compiled(_i64(*INSERT))
def insert(
    spec: Any,
    keys: Any,
    blocks: Any,
    n: int,
    sel: Any,
    ts: Any,
    key: Any,
    present: Any,
    columns: Any,
    idx: Any,
    need: int,
    now: int,
    closable: Any,
) -> int:
    """Puts the selected rows into their keys' chains. `idx`: the columns that are kept; `need`: the fields a row must have.

    The caller has made sure of n free blocks. Returns the number of keys put on `closable` in the low half and what is
    counted (rows too late, rows without a field) in `free[3:5]`, so that the result does not depend on how rows are batched:
    whether a row is late follows from its key's watermark at that row alone.
    """
    values, times, lows, fresh, nexts, fills, free = blocks
    n_closable = 0
    for i in range(n):
        j = sel[i]
        if present[j] & need != need:
            free[SKIPPED] += 1
            continue
        k = keys[key[j]]
        position = k.count if spec[KIND] == COUNT else ts[j]
        low = (position - spec[SIZE]) // spec[STEP] + 1
        if k.done > low:
            low = k.done
        if low > position // spec[STEP]:
            free[LATE] += 1
            k.seen = now
            continue
        spot = place(key[j], keys, blocks)
        block, at = spot // BLOCK, spot % BLOCK
        times[block, at] = ts[j]
        lows[block, at] = low
        revises = spec[REVISE] != 0 and low < fired_below(spec, k.watermark)
        fresh[block, at] = UNSAVED | REVISES if revises else UNSAVED
        for f in range(idx.size):
            values[block, f, at] = columns[idx[f], j]
        k.dirty |= TOUCHED
        k.count += 1
        wait = 0 if spec[REVISE] else spec[LATENESS]
        due = low * spec[STEP] + spec[SIZE] + wait
        if due < k.due:
            k.due = due
        watermark = position + 1 if spec[KIND] == COUNT else position
        if watermark > k.watermark:
            k.watermark = watermark
            done = closed_below(spec, watermark)
            if done > k.done:
                k.done = done
        k.seen = now
        if (k.watermark >= k.due or revises) and k.flagged == 0:
            k.flagged = 1
            closable[n_closable] = key[j]
            n_closable += 1
    return n_closable


@compiled(_i64(_I64S, _KEYS, _i64, _i64, _I32S))
def tick(spec: Any, keys: Any, n_keys: int, now: int, closable: Any) -> int:
    """Lets the watermark of silent keys go on with the clock; returns how many keys have a window to close by that."""
    n_closable = 0
    for i in range(n_keys):
        k = keys[i]
        if k.due == NEVER or k.flagged:
            continue
        silent = now - k.seen - spec[IDLE]
        if silent > 0 and k.watermark + silent >= k.due:
            k.watermark += silent
            k.seen = now - spec[IDLE]
            if spec[KIND] == TIME:
                k.done = max(k.done, closed_below(spec, k.watermark))
            k.flagged = 1
            closable[n_closable] = i
            n_closable += 1
    return n_closable


@compiled(_i64(_I64S, _KEYS, _i64))
def next_due(spec: Any, keys: Any, n_keys: int) -> int:
    """The monotonic time at which the next silent key closes a window, NEVER where none is open."""
    earliest = NEVER
    for i in range(n_keys):
        k = keys[i]
        if k.due != NEVER:
            at = k.seen + spec[IDLE] + max(0, k.due - k.watermark)
            if at < earliest:
                earliest = at
    return earliest


@compiled(CLOSE)
def close(
    spec: Any, keys: Any, blocks: Any, closable: Any, n_closable: int, progress: Any, rows: Any, out: Any
) -> None:
    """Writes the samples of closed windows, in the order of time, one segment after the other.

    `progress`: [next entry of closable, next window of that key, segments written, samples written]. Stops where the output is
    full; the caller works on what is there and calls again with the last two at zero. `row_*` hold one key's samples.
    """
    values, times, lows, fresh, nexts, fills, free = blocks
    row_values, row_times, row_lows, row_fresh = rows
    out_values, out_times, offset, length, out_key, end, revised = out
    while progress[0] < n_closable:
        key = closable[progress[0]]
        k = keys[key]
        upto = max(fired_below(spec, k.watermark), k.done)
        if k.head < 0:
            k.flagged = 0
            k.fired = max(k.fired, upto)
            progress[0] += 1
            continue
        n = 0
        first = k.count - k.rows
        block = k.head
        while block >= 0:
            for at in range(fills[block]):
                # Insertion keeps the order of time and costs nothing for what comes in order already.
                i = n
                if spec[KIND] != COUNT:
                    while i > 0 and row_times[i - 1] > times[block, at]:
                        row_times[i] = row_times[i - 1]
                        row_lows[i] = row_lows[i - 1]
                        row_fresh[i] = row_fresh[i - 1]
                        for f in range(values.shape[1]):
                            row_values[f, i] = row_values[f, i - 1]
                        i -= 1
                row_times[i] = times[block, at]
                row_lows[i] = lows[block, at]
                row_fresh[i] = fresh[block, at]
                for f in range(values.shape[1]):
                    row_values[f, i] = values[block, f, at]
                n += 1
            block = nexts[block]

        start = 0  # the first row that a window from here on can hold
        window = progress[1]
        if window == BEGINNING:
            window = row_lows[0]
            for i in range(1, n):
                window = min(window, row_lows[i])
        while True:
            while start < n and (first + start if spec[KIND] == COUNT else row_times[start]) // spec[STEP] < window:
                start += 1
            if start == n:
                break
            # Jump over windows without samples: the rows may be years apart.
            begin = ((first + start if spec[KIND] == COUNT else row_times[start]) - spec[SIZE]) // spec[STEP] + 1
            if begin > window:
                window = begin
            if window >= upto:
                break
            n_samples = progress[3]
            if n_samples + n - start > out_times.size or progress[2] == offset.size:
                progress[1] = window
                return
            i = start
            wanted, told = window >= k.fired, False
            while i < n and (first + i if spec[KIND] == COUNT else row_times[i]) < window * spec[STEP] + spec[SIZE]:
                if row_lows[i] <= window:
                    if row_fresh[i] & REVISES:
                        wanted = True
                    else:
                        told = True
                    out_times[n_samples] = row_times[i]
                    for f in range(values.shape[1]):
                        out_values[f, n_samples] = row_values[f, i]
                    n_samples += 1
                i += 1
            if wanted and n_samples > progress[3]:
                segment = progress[2]
                revised[segment] = told and window < k.fired
                offset[segment] = progress[3]
                length[segment] = n_samples - progress[3]
                out_key[segment] = key
                end[segment] = window * spec[STEP] + spec[SIZE] if spec[KIND] != COUNT else row_times[i - 1]
                progress[2] += 1
                progress[3] = n_samples
            window += 1

        # What later windows still need goes back into the key's first blocks; the others are free again.
        k.due = NEVER
        k.rows = 0
        block = k.head
        used = 0
        last = np.int32(-1)
        fills[block] = 0
        for i in range(n):
            position = first + i if spec[KIND] == COUNT else row_times[i]
            if position // spec[STEP] < k.done:
                continue
            if used == BLOCK:
                last = block
                block = nexts[block]
                fills[block] = 0
                used = 0
            times[block, used] = row_times[i]
            low = max(row_lows[i], k.done)
            lows[block, used] = low
            fresh[block, used] = row_fresh[i] & ~np.uint8(REVISES)
            for f in range(values.shape[1]):
                values[block, f, used] = row_values[f, i]
            used += 1
            fills[block] = used
            k.rows += 1
            # The next window to put out, or with revisions also the time to let go of one that was.
            wait = spec[LATENESS] if low < upto or not spec[REVISE] else 0
            due = low * spec[STEP] + spec[SIZE] + wait
            if due < k.due:
                k.due = due
            if low < upto and position // spec[STEP] >= upto:
                k.due = min(k.due, upto * spec[STEP] + spec[SIZE])
        rest = block if used == 0 else nexts[block]
        if used == 0:
            k.head = -1
            k.tail = last
        else:
            k.tail = block
            nexts[block] = -1
        while rest >= 0:
            following = nexts[rest]
            nexts[rest] = free[FREE_HEAD]
            free[FREE_HEAD] = rest
            free[FREE_COUNT] += 1
            rest = following
        k.flagged = 0
        k.fired = max(k.fired, upto)
        k.dirty |= CLOSED
        progress[0] += 1
        progress[1] = BEGINNING


@compiled(_i64(_KEYS, _i64, _BLOCKS, _i64, types.boolean, _i64, _I32S, _I64S, _I64S, types.float64[:, ::1]))
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


@compiled(types.void(_I64S, _KEYS, _BLOCKS, _i64, _I32S, _I64S, _I64S, types.float64[:, ::1]))
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
