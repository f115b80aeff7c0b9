"""The loops of sessions and of sliding windows, over the same chains of blocks as the windows of fixed places.

A session is a run of samples of one key with less than a gap (`step`) between one and the next, cut where it gets longer than
`size`. Of a key, `done` and `fired` are here the first and last position of its earliest session. A sliding window ends at
each sample that comes in order and reaches `size` back; a sample out of order belongs to the windows that come after it.
"""

from __future__ import annotations

from typing import Any

from edgefn.engine import types
from edgefn.engine.chain_kernels import (
    _BLOCKS,
    _I32S,
    _I64S,
    _KEYS,
    _ROWS,
    BEGINNING,
    BLOCK,
    CLOSE,
    CLOSED,
    FREE_COUNT,
    FREE_HEAD,
    INSERT,
    KIND,
    LATE,
    LATENESS,
    NEVER,
    SIZE,
    SKIPPED,
    SLIDING,
    STEP,
    TOUCHED,
    UNSAVED,
    _i64,
    gather,
    place,
)
from edgefn.engine.jit import compiled

PENDING = 1  # in `lows` of a sliding window's row: its own window has not been put out yet


@compiled(types.boolean(_i64, _i64, _i64, types.int64[:, ::1], _I32S, _I32S))
def has_neighbour(head: int, position: int, gap: int, times: Any, nexts: Any, fills: Any) -> bool:
    """Whether the chain holds a sample less than `gap` away."""
    block = head
    while block >= 0:
        for at in range(fills[block]):
            if abs(times[block, at] - position) < gap:
                return True
        block = nexts[block]
    return False


@compiled(_i64(*INSERT, _I64S))
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
    found: Any,
) -> int:
    """Puts rows into their chains and returns how many it took; found[0] keys have something to close then.

    It stops before a row out of order whose key has a session to close first, so that the row cannot join two sessions of
    which the first was over when it came.
    """
    values, times, lows, fresh, nexts, fills, free = blocks
    gap, lateness, is_sliding = spec[STEP], spec[LATENESS], spec[KIND] == SLIDING
    found[0] = 0
    for i in range(n):
        j = sel[i]
        if present[j] & need != need:
            free[SKIPPED] += 1
            continue
        k = keys[key[j]]
        position = ts[j]
        in_order = k.watermark == BEGINNING or position >= k.watermark
        if not in_order:
            if is_sliding:
                is_late = position <= k.watermark - spec[SIZE]
            elif k.flagged:
                return i
            else:
                is_late = position + gap + lateness <= k.watermark and not has_neighbour(
                    k.head, position, gap, times, nexts, fills
                )
            if is_late:
                free[LATE] += 1
                k.seen = now
                continue
        spot = place(key[j], keys, blocks)
        block, at = spot // BLOCK, spot % BLOCK
        times[block, at] = position
        lows[block, at] = PENDING if is_sliding and in_order else 0
        fresh[block, at] = UNSAVED
        for f in range(idx.size):
            values[block, f, at] = columns[idx[f], j]
        k.dirty |= TOUCHED
        k.seen = now
        if in_order:
            k.watermark = position
        if is_sliding:
            is_closable = in_order
        elif in_order:
            if k.rows == 1:
                k.done = position
                k.fired = position
            elif position - k.fired < gap and position - k.done < spec[SIZE]:
                k.fired = position
            k.due = min(k.fired + gap, k.done + spec[SIZE]) + lateness
            is_closable = k.watermark >= k.due
        else:
            is_closable = True  # only a look at all of the key's samples tells what its earliest session is now
        if is_closable and k.flagged == 0:
            k.flagged = 1
            closable[found[0]] = key[j]
            found[0] += 1
    return n


@compiled(types.void(_KEYS, _BLOCKS, _i64, _i64, _i64, _i64, _ROWS))
def keep(keys: Any, blocks: Any, key: int, start: int, n: int, oldest: int, rows: Any) -> None:
    """Frees a key's chain and puts rows start to n - 1 later than `oldest` back into it."""
    row_values, row_times, _, row_fresh = rows
    values, times, lows, fresh, nexts, fills, free = blocks
    k = keys[key]
    block = k.head
    while block >= 0:
        following = nexts[block]
        nexts[block] = free[FREE_HEAD]
        free[FREE_HEAD] = block
        free[FREE_COUNT] += 1
        block = following
    k.head = -1
    k.tail = -1
    k.rows = 0
    for i in range(start, n):
        if row_times[i] <= oldest:
            continue
        spot = place(key, keys, blocks)
        block, at = spot // BLOCK, spot % BLOCK
        times[block, at] = row_times[i]
        lows[block, at] = 0
        fresh[block, at] = row_fresh[i]
        for f in range(values.shape[1]):
            values[block, f, at] = row_values[f, i]
    k.flagged = 0
    k.dirty |= CLOSED


@compiled(CLOSE)
def close_sessions(
    spec: Any, keys: Any, blocks: Any, closable: Any, n_closable: int, progress: Any, rows: Any, out: Any
) -> None:
    """Writes the sessions that are over, as pane_kernels.close does windows; `end` is the time of the last sample."""
    values, times, lows, fresh, nexts, fills, free = blocks
    row_values, row_times, row_lows, row_fresh = rows
    out_values, out_times, offset, length, out_key, end, revised = out
    gap = spec[STEP]
    while progress[0] < n_closable:
        key = closable[progress[0]]
        k = keys[key]
        n = gather(k.head, blocks, rows, 0, True, True)[0]
        start = 0
        is_full = False
        k.due = NEVER
        while start < n:
            stop = start + 1
            while (
                stop < n
                and row_times[stop] - row_times[stop - 1] < gap
                and (row_times[stop] - row_times[start] < spec[SIZE])
            ):
                stop += 1
            due = min(row_times[stop - 1] + gap, row_times[start] + spec[SIZE]) + spec[LATENESS]
            if due > k.watermark:
                k.done = row_times[start]
                k.fired = row_times[stop - 1]
                k.due = due
                break
            size = stop - start
            if progress[3] + size > out_times.size or progress[2] == offset.size:
                is_full = True
                break
            segment, at = progress[2], progress[3]
            for i in range(size):
                out_times[at + i] = row_times[start + i]
                for f in range(values.shape[1]):
                    out_values[f, at + i] = row_values[f, start + i]
            offset[segment] = at
            length[segment] = size
            out_key[segment] = key
            end[segment] = row_times[stop - 1]
            revised[segment] = 0
            progress[2] += 1
            progress[3] += size
            start = stop
        keep(keys, blocks, key, start, n, BEGINNING, rows)
        if is_full:
            k.flagged = 1
            return
        progress[0] += 1


@compiled(CLOSE)
def close_sliding(
    spec: Any, keys: Any, blocks: Any, closable: Any, n_closable: int, progress: Any, rows: Any, out: Any
) -> None:
    """Writes the window that ends at each row not put out yet: the rows that had come by then and are young enough."""
    values, times, lows, fresh, nexts, fills, free = blocks
    row_values, row_times, row_lows, row_fresh = rows
    out_values, out_times, offset, length, out_key, end, revised = out
    while progress[0] < n_closable:
        key = closable[progress[0]]
        k = keys[key]
        n = gather(k.head, blocks, rows, 0, False, True)[0]
        row = 0 if progress[1] == BEGINNING else progress[1]
        while row < n:
            if row_lows[row] == PENDING:
                if progress[3] + row + 1 > out_times.size or progress[2] == offset.size:
                    progress[1] = row
                    return
                at, size = progress[3], 0
                for i in range(row + 1):
                    if row_times[i] > row_times[row] - spec[SIZE]:
                        spot = at + size
                        while spot > at and out_times[spot - 1] > row_times[i]:
                            out_times[spot] = out_times[spot - 1]
                            for f in range(values.shape[1]):
                                out_values[f, spot] = out_values[f, spot - 1]
                            spot -= 1
                        out_times[spot] = row_times[i]
                        for f in range(values.shape[1]):
                            out_values[f, spot] = row_values[f, i]
                        size += 1
                segment = progress[2]
                offset[segment] = at
                length[segment] = size
                out_key[segment] = key
                end[segment] = row_times[row]
                revised[segment] = 0
                progress[2] += 1
                progress[3] += size
            row += 1
        oldest = k.watermark - spec[SIZE]
        keep(keys, blocks, key, 0, n, oldest, rows)
        progress[0] += 1
        progress[1] = BEGINNING
