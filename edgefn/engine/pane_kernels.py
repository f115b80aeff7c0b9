"""The loops of the window store: samples go into chains of blocks, one chain a key, and come out as closed windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn.engine.chain_kernels import (
    _I32S,
    _I64S,
    _KEYS,
    BEGINNING,
    BLOCK,
    CLOSE,
    CLOSED,
    COUNT,
    FREE_COUNT,
    FREE_HEAD,
    IDLE,
    INSERT,
    KIND,
    LATE,
    LATENESS,
    LONGEST,
    NEVER,
    REVISE,
    REVISES,
    SIZE,
    SKIPPED,
    STEP,
    TIME,
    TOUCHED,
    UNSAVED,
    _i64,
    gather,
    gather_marks,
    not_below,
    place,
)
from edgefn.engine.copying import copy, fill
from edgefn.engine.jit import compiled


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


ALIKE = 64  # rows that are looked at together, without a branch for each


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
    by_count = spec[KIND] == COUNT
    wait = 0 if spec[REVISE] else spec[LATENESS]
    n_closable = 0
    i: Any = 0
    while i < n:
        j = sel[i]
        if present[j] & need != need:
            free[SKIPPED] += 1
            i += 1
            continue
        number = key[j]
        k = keys[number]
        position = k.count if by_count else ts[j]
        low = (position - spec[SIZE]) // spec[STEP] + 1
        since = low * spec[STEP] + spec[SIZE] - spec[STEP]  # from here on a row has this first window
        if k.done > low:
            low = k.done
            since = low * spec[STEP]
        if low > position // spec[STEP]:
            free[LATE] += 1
            k.seen = now
            i += 1
            continue
        spot = place(number, keys, blocks)
        block, at = spot // BLOCK, spot % BLOCK
        times[block, at] = ts[j]
        lows[block, at] = low
        revises = spec[REVISE] != 0 and low < fired_below(spec, k.watermark)
        fresh[block, at] = UNSAVED | REVISES if revises else UNSAVED
        for f in range(idx.size):
            values[block, f, at] = columns[idx[f], j]
        k.dirty |= TOUCHED
        k.count += 1
        due = low * spec[STEP] + spec[SIZE] + wait
        if due < k.due:
            k.due = due
        watermark = position + 1 if by_count else position
        if watermark > k.watermark:
            k.watermark = watermark
            done = closed_below(spec, watermark)
            if done > k.done:
                k.done = done
        k.seen = now
        if (k.watermark >= k.due or revises) and k.flagged == 0:
            k.flagged = 1
            closable[n_closable] = number
            n_closable += 1
        i += 1

        # A batch event brings many rows of one key: for those that follow, up to where another window begins or one
        # closes, all that was found out about this one holds, and they are copied as blocks.
        if i == n or key[sel[i]] != number or spec[REVISE] or low < k.done or k.done == BEGINNING:
            continue
        until = min(low * spec[STEP] + spec[SIZE], k.done * spec[STEP] + spec[SIZE] + spec[LATENESS])
        if k.flagged == 0:
            until = min(until, k.due)
        end = n
        if by_count:
            end = min(n, i + max(until - 1 - k.count, 0))
            since, until = BEGINNING, NEVER
        stop, newest = i, k.watermark
        while stop + ALIKE <= end and sel[stop + ALIKE - 1] - sel[stop] == ALIKE - 1:
            row, latest, odd = np.uint64(sel[stop]), newest, 0
            for q in range(np.uint64(ALIKE)):
                t = ts[row + q]
                odd |= (key[row + q] != number) | (present[row + q] & need != need) | (t < since) | (t >= until)
                latest = max(latest, t)
            if odd:
                break
            newest = latest
            stop += ALIKE
        while stop < end:
            row = np.uint64(sel[stop])
            t = ts[row]
            if key[row] != number or present[row] & need != need or t < since or t >= until:
                break
            newest = max(newest, t)
            stop += 1
        k.count += stop - i
        k.watermark = k.count if by_count else newest
        while i < stop:
            spot = place(number, keys, blocks)
            block, at = spot // BLOCK, spot % BLOCK
            m = min(BLOCK - at, stop - i)
            first = np.int64(sel[i])
            if sel[i + m - 1] - first == m - 1:  # a filter has left no gap
                copy(times[block], at, ts, first, m)
                for f in range(idx.size):
                    copy(values[block, f], at, columns[idx[f]], first, m)
            else:
                for q in range(m):
                    times[block, at + q] = ts[sel[i + q]]
                for f in range(idx.size):
                    for q in range(m):
                        values[block, f, at + q] = columns[idx[f], sel[i + q]]
            fill(lows[block], at, low, m)
            fill(fresh[block], at, np.uint8(UNSAVED), m)
            fills[block] = at + m
            k.rows += m - 1
            i += m
        free[LONGEST] = max(free[LONGEST], k.rows)
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
    out_values, out_times, offset, length, out_key, end, revised = out
    by_count = spec[KIND] == COUNT
    # Where no row is in two windows, none late for the first of its windows and none put out twice, the rows are written
    # where they are read from.
    in_place = spec[STEP] == spec[SIZE] and spec[REVISE] == 0
    while progress[0] < n_closable:
        key = closable[progress[0]]
        k = keys[key]
        upto = max(fired_below(spec, k.watermark), k.done)
        if k.head < 0:
            k.flagged = 0
            k.fired = max(k.fired, upto)
            progress[0] += 1
            continue
        if progress[3] and progress[3] + k.rows > out_times.size:
            return
        first = k.count - k.rows if by_count else 0
        base, row_values, row_times, row_lows, row_fresh = 0, rows[0], rows[1], rows[2], rows[3]
        if in_place:
            base = progress[3]
            row_values, row_times = out_values, out_times[base:]
        its_rows = (row_values, row_times, row_lows, row_fresh)
        n, lowest, highest, revising, marked = gather(k.head, blocks, its_rows, base, not by_count, not in_place)
        start = 0  # the first row that a window from here on can hold
        window = progress[1]
        if window == BEGINNING:
            window = lowest
        while True:
            start = not_below(window * spec[STEP] - first, start, n, by_count, row_times)
            if start == n:
                break
            # Jump over windows without samples: the rows may be years apart.
            begin = ((first + start if by_count else row_times[start]) - spec[SIZE]) // spec[STEP] + 1
            if begin > window:
                window = begin
            if window >= upto:
                break
            n_samples = progress[3]
            if (n_samples + n - start > out_times.size and not in_place) or progress[2] == offset.size:
                progress[1] = window
                return
            stop = not_below(window * spec[STEP] + spec[SIZE] - first, start, n, by_count, row_times)
            wanted, told = window >= k.fired, False
            if in_place:
                n_samples = base + start
                progress[3] = n_samples
                n_samples += stop - start
            elif highest <= window and not revising:  # no row was late for it
                told = stop > start
                m = stop - start
                copy(out_times, n_samples, row_times, start, m)
                for f in range(values.shape[1]):
                    copy(out_values[f], n_samples, row_values[f], base + start, m)
                n_samples += m
            else:
                for i in range(start, stop):
                    if row_lows[i] <= window:
                        if row_fresh[i] & REVISES:
                            wanted = True
                        else:
                            told = True
                        out_times[n_samples] = row_times[i]
                        for f in range(values.shape[1]):
                            out_values[f, n_samples] = row_values[f, base + i]
                        n_samples += 1
            if wanted and n_samples > progress[3]:
                segment = progress[2]
                revised[segment] = told and window < k.fired
                offset[segment] = progress[3]
                length[segment] = n_samples - progress[3]
                out_key[segment] = key
                end[segment] = row_times[stop - 1] if by_count else window * spec[STEP] + spec[SIZE]
                progress[2] += 1
                progress[3] = n_samples
            window += 1

        # What later windows still need goes back into the key's first blocks; the others are free again.
        k.due = NEVER
        k.rows = 0
        block = k.head
        used = 0
        last = np.int32(-1)
        needed = 0 if k.done == BEGINNING else not_below(k.done * spec[STEP] - first, 0, n, by_count, row_times)
        if needed < n and not marked:
            gather_marks(k.head, blocks, its_rows)
        fills[block] = 0
        for i in range(needed, n):
            position = first + i if by_count else row_times[i]
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
                values[block, f, used] = row_values[f, base + i]
            used += 1
            fills[block] = used
            k.rows += 1
            # The next window to put out, or with revisions also the time to let go of one that was.
            wait = spec[LATENESS] if low < upto or not spec[REVISE] else 0
            due = low * spec[STEP] + spec[SIZE] + wait
            if due < k.due:
                k.due = due
            if low < upto and position >= upto * spec[STEP]:
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
