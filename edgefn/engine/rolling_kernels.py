"""The loop of the store of summaries: samples go into the summaries of panes, and panes are merged into closed windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgefn import summaries
from edgefn.engine import types
from edgefn.engine.chain_kernels import BEGINNING, CLOSED, COUNT, KEY, KIND, LATENESS, NEVER, SIZE, STEP, TOUCHED
from edgefn.engine.jit import compiled, inlined
from edgefn.engine.loops import FIRST, LAST, MAX, MEAN, MIN, PERCENTILE, STD, SUM, N
from edgefn.kernels.sample import LARGEST
from edgefn.summaries import SPAN

# Buckets of a sketch that are kept side by side: a quarter of an octave. Room temperatures fill one to four pages; a signal
# about zero fills 60, and there pages of 64 buckets would take 150 ns a sample instead of 240, but a pane with a single sample
# twice the memory.
PAGE = 16

# Where the buckets of a window are added up: those that are kept of both sides of zero, and at each end the rest of a page.
ZERO = SPAN + PAGE
BUCKETS = 2 * ZERO + 1

PANE = np.dtype(
    [
        ("number", "i8"),
        ("rows", "i8"),
        ("end", "i8"),  # time of the row that came last
        ("key", "i4"),  # -1 where it is free
        ("next", "i4"),  # the key's panes in the order of their numbers, or the next free one
        ("prev", "i4"),
        ("fresh", "i4"),  # changed since the last checkpoint
    ],
    align=True,
)
# The summary of one field's samples in one pane (edgefn.summaries.Summary); its first and last go by position.
CELL = np.dtype(
    [
        ("n", "i8"),
        ("sum", "f8"),
        ("mean", "f8"),
        ("m2", "f8"),
        ("min", "f8"),
        ("max", "f8"),
        ("first_at", "i8"),
        ("first", "f8"),
        ("last_at", "i8"),
        ("last", "f8"),
        ("page", "i4"),  # the first of its pages, -1 where it has none
    ],
    align=True,
)
LEAF = np.dtype([("number", "i4"), ("next", "i4"), ("cell", "i4"), ("fresh", "i4")])  # of a page: whose, which buckets

# Indices into `free` (free lists and counters) and `progress` (where the loop goes on).
PANE_HEAD, PANES, PAGE_HEAD, PAGES, LATE, SKIPPED, STRANGE, FULL = range(8)
ROW, LISTED, PENDING, WRITTEN = range(4)

_i64, _f64 = types.int64, types.float64
_KEYS, _PANES = types.records(KEY), types.records(PANE)
_CELLS, _LEAVES = types.records(CELL, 2), types.records(LEAF)
_I32S, _I64S, _F64SS = types.int32[::1], types.int64[::1], types.float64[:, ::1]
_COUNTS = types.uint32[:, ::1]  # of 32 bits: 10,000 samples a second in one bucket of one pane fill it in five days

# The buckets are those of edgefn.summaries, by its own code.
_bucket, _middle = inlined(summaries.bucket), inlined(summaries.middle)


@compiled(_f64(_I64S, _i64, _i64, _i64, _f64, _f64))
def _ranked(buckets: Any, floor: int, n: int, rank: int, low: float, high: float) -> float:
    """The sample at a rank as Summary.quantile finds it; behind the last one, the last one."""
    if rank >= n - 1:
        return high
    if rank == 0:
        return low
    seen = 0
    for at in range(buckets.size):
        seen += buckets[at]
        if seen > rank:
            number = at - ZERO
            value = 0.0 if number == 0 else _middle(number + floor if number > 0 else number - floor)
            return min(max(value, low), high)
    return high


# spec, keys, panes, cells, leaves, counts, free
_STORE = (_I64S, _KEYS, _PANES, _CELLS, _LEAVES, _COUNTS, _I64S)
# progress, out_key, end, length, out
_OUT = (_I64S, _I32S, _I64S, _I64S, _F64SS)


@compiled(types.boolean(*_STORE, _I64S, _I64S, _I64S, _i64, *_OUT))
def _close(
    spec: Any,
    keys: Any,
    panes: Any,
    cells: Any,
    leaves: Any,
    counts: Any,
    free: Any,
    fields: Any,
    codes: Any,
    buckets: Any,
    key: int,
    progress: Any,
    out_key: Any,
    end: Any,
    length: Any,
    out: Any,
) -> bool:
    """Writes a row for each window of the key that its watermark has closed and lets go of the panes that no later one needs.

    False where the output is full; called again, it goes on from there.
    """
    k = keys[key]
    whole = spec[SIZE] // spec[STEP]
    window = k.done if k.due == NEVER else (k.due - spec[LATENESS] - spec[SIZE]) // spec[STEP]
    while True:
        # Pane p is needed by the windows from (p + 1) // 2 - whole to p // 2.
        while k.head >= 0 and panes[k.head].number >> 1 < min(window, k.done):
            p = k.head
            for f in range(cells.shape[1]):
                leaf = cells[p, f].page
                while leaf >= 0:
                    following = leaves[leaf].next
                    leaves[leaf].cell = -1
                    leaves[leaf].next = free[PAGE_HEAD]
                    free[PAGE_HEAD] = leaf
                    free[PAGES] += 1
                    leaf = following
            k.rows -= panes[p].rows
            k.head = panes[p].next
            panes[p].key = -1
            panes[p].next = free[PANE_HEAD]
            free[PANE_HEAD] = p
            free[PANES] += 1
        if k.head < 0:
            k.tail = -1
            k.due = NEVER
            break
        panes[k.head].prev = -1
        window = max(window, ((panes[k.head].number + 1) >> 1) - whole)
        k.due = window * spec[STEP] + spec[SIZE] + spec[LATENESS]
        if window >= k.done:
            break
        row = progress[WRITTEN]
        if row == out_key.size:
            return False
        beyond = 2 * (window + whole) + 1
        rows, p, last = 0, k.head, k.head
        while p >= 0 and panes[p].number < beyond:
            rows += panes[p].rows
            last = p
            p = panes[p].next
        out_key[row] = key
        length[row] = rows
        end[row] = panes[last].end if spec[KIND] == COUNT else window * spec[STEP] + spec[SIZE]
        at = 0
        for f in range(cells.shape[1]):
            n, total, mean, m2, low, high, first, final = 0, 0.0, 0.0, 0.0, np.inf, -np.inf, np.nan, np.nan
            p = k.head
            while p >= 0 and panes[p].number < beyond:
                cell = cells[p, f]
                if cell.n > 0:
                    if n == 0:
                        first = cell.first
                    final = cell.last
                    n += cell.n
                    distance = cell.mean - mean
                    mean += distance * (cell.n / n)
                    m2 += cell.m2 + distance * distance * (cell.n * ((n - cell.n) / n))
                    total += cell.sum
                    low, high = min(low, cell.min), max(high, cell.max)
                p = panes[p].next
            floor = max(-_bucket(low) - SPAN, _bucket(high) - SPAN, 0) if n > 0 else 0  # what is below counts as zero
            is_counted = False
            while at < codes.size and fields[at] == f:
                code = codes[at]
                if code == N:
                    value = float(n)
                elif code == SUM:
                    value = total
                elif n == 0:
                    value = np.nan
                elif code == MEAN:
                    value = mean
                elif code == MIN:
                    value = low
                elif code == MAX:
                    value = high
                elif code == FIRST:
                    value = first
                elif code == LAST:
                    value = final
                elif code == STD:
                    value = math.sqrt(m2 / n)
                else:
                    if not is_counted:
                        buckets[:] = 0
                        p = k.head
                        while p >= 0 and panes[p].number < beyond:
                            leaf = cells[p, f].page
                            while leaf >= 0:
                                number = leaves[leaf].number * PAGE
                                shift = ZERO - floor if number > 0 else ZERO + floor
                                if number > floor or number + PAGE <= -floor:
                                    part = buckets[number + shift : number + shift + PAGE]
                                    for i in range(PAGE):
                                        part[i] += counts[leaf, i]
                                else:
                                    for i in range(PAGE):
                                        is_zero = -floor <= number + i <= floor
                                        buckets[ZERO if is_zero else number + i + shift] += counts[leaf, i]
                                leaf = leaves[leaf].next
                            p = panes[p].next
                        is_counted = True
                    position = (n - 1) * ((code - PERCENTILE) / 100.0)
                    rank = int(position)
                    value = _ranked(buckets, floor, n, rank, low, high)
                    value += (position - rank) * (_ranked(buckets, floor, n, rank + 1, low, high) - value)
                out[at, row] = value
                at += 1
        progress[WRITTEN] += 1
        window += 1
    k.flagged = 0
    k.dirty |= CLOSED
    return True


# sel, ts, key, present, columns, idx
_ROWS = (_I32S, _I64S, _I32S, _I64S, _F64SS, _I64S)


@compiled(
    types.boolean(
        *_STORE, types.uint8[::1], _I64S, _I64S, _I64S, _I32S, _i64, _i64, *_ROWS, _i64, _i64, types.boolean, *_OUT
    )
)
def advance(
    spec: Any,
    keys: Any,
    panes: Any,
    cells: Any,
    leaves: Any,
    counts: Any,
    free: Any,
    sketched: Any,
    fields: Any,
    codes: Any,
    buckets: Any,
    listed: Any,
    n_listed: int,
    n: int,
    sel: Any,
    ts: Any,
    key: Any,
    present: Any,
    columns: Any,
    idx: Any,
    need: int,
    now: int,
    is_bounded: bool,
    progress: Any,
    out_key: Any,
    end: Any,
    length: Any,
    out: Any,
) -> bool:
    """Closes what is due of the listed keys, then takes in the selected rows and closes each window at the row that ends it.

    So a window never sees a row that came after its end, and a pane need not know which windows each of its rows belongs to.
    `progress` says where to go on. Returns False where there is no room for the next row: the caller makes some, or says
    with `is_bounded` that there is none, and such rows are counted and given up; time goes on by them all the same.
    """
    pages = sketched.sum()  # the most that a row can need
    while True:
        if progress[PENDING] >= 0:
            if not _close(
                spec, keys, panes, cells, leaves, counts, free, fields, codes, buckets, progress[PENDING], progress,
                out_key, end, length, out,
            ):  # fmt: skip
                return True
            progress[PENDING] = -1
        if progress[LISTED] < n_listed:
            progress[PENDING] = listed[progress[LISTED]]
            progress[LISTED] += 1
            continue
        if progress[ROW] == n:
            return True
        j = sel[progress[ROW]]
        if present[j] & need != need:
            free[SKIPPED] += 1
            progress[ROW] += 1
            continue
        k = keys[key[j]]
        position = k.count if spec[KIND] == COUNT else ts[j]
        low = max((position - spec[SIZE]) // spec[STEP] + 1, k.done)
        if low > position // spec[STEP]:
            free[LATE] += 1
            k.seen = now
            progress[ROW] += 1
            continue
        # Windows begin at the multiples of step and end at those plus size: between two of either lies one pane, so that there
        # are two a step however size and step divide (Krishnamurthy et al. 2006, paired windows).
        number = 2 * (position // spec[STEP])
        if position % spec[STEP] >= spec[SIZE] % spec[STEP]:
            number += 1
        before = k.tail
        while before >= 0 and panes[before].number > number:
            before = panes[before].prev
        is_new = before < 0 or panes[before].number != number
        has_room = free[PAGES] >= pages and (free[PANES] > 0 or not is_new)
        if not has_room and not is_bounded:
            return False
        if has_room:
            p = before
            if is_new:
                p = free[PANE_HEAD]
                free[PANE_HEAD] = panes[p].next
                free[PANES] -= 1
                after = k.head if before < 0 else panes[before].next
                pane = panes[p]
                pane.number, pane.rows, pane.key, pane.prev, pane.next = number, 0, key[j], before, after
                if before < 0:
                    k.head = p
                else:
                    panes[before].next = p
                if after < 0:
                    k.tail = p
                else:
                    panes[after].prev = p
                for f in range(cells.shape[1]):
                    cell = cells[p, f]
                    cell.n, cell.sum, cell.mean, cell.m2, cell.min, cell.max = 0, 0.0, 0.0, 0.0, np.inf, -np.inf
                    cell.first_at, cell.last_at, cell.page = NEVER, BEGINNING, -1
            panes[p].rows += 1
            panes[p].end = ts[j]
            panes[p].fresh = 1
            for f in range(cells.shape[1]):
                x = columns[idx[f], j]
                if not -LARGEST <= x <= LARGEST:
                    free[STRANGE] += 1
                    continue
                cell = cells[p, f]
                cell.n += 1
                distance = x - cell.mean
                cell.mean += distance / cell.n
                cell.m2 += distance * (x - cell.mean)
                cell.sum += x
                cell.min, cell.max = min(cell.min, x), max(cell.max, x)
                if position < cell.first_at:
                    cell.first_at, cell.first = position, x
                if position >= cell.last_at:
                    cell.last_at, cell.last = position, x
                if sketched[f] == 0:
                    continue
                bucket = _bucket(x)
                leaf, ahead = cell.page, -1
                while leaf >= 0 and leaves[leaf].number != bucket // PAGE:
                    ahead = leaf
                    leaf = leaves[leaf].next
                if leaf < 0:
                    leaf = free[PAGE_HEAD]
                    free[PAGE_HEAD] = leaves[leaf].next
                    free[PAGES] -= 1
                    leaves[leaf].number, leaves[leaf].cell = bucket // PAGE, p * cells.shape[1] + f
                    leaves[leaf].next = cell.page
                    cell.page = leaf
                    counts[leaf, :] = 0
                elif ahead >= 0:
                    # To the front: the next sample is likely to be near this one.
                    leaves[ahead].next = leaves[leaf].next
                    leaves[leaf].next = cell.page
                    cell.page = leaf
                counts[leaf, bucket % PAGE] += 1
                leaves[leaf].fresh = 1
            k.rows += 1
            k.due = min(k.due, low * spec[STEP] + spec[SIZE] + spec[LATENESS])
        else:
            free[FULL] += 1
        k.dirty |= TOUCHED
        k.count += 1
        watermark = position + 1 if spec[KIND] == COUNT else position
        if watermark > k.watermark:
            k.watermark = watermark
            k.done = max(k.done, (watermark - spec[LATENESS] - spec[SIZE]) // spec[STEP] + 1)
        k.seen = now
        if k.watermark >= k.due:
            progress[PENDING] = key[j]
        progress[ROW] += 1
