"""The window store: the samples of every key's open windows, in preallocated blocks that all keys share.

It holds no results and runs no handler: rows go in, closed windows come out as segments of contiguous columns. Aggregates
with the same source, window and fields share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.engine import chain_kernels, session_kernels
from edgefn.engine import pane_kernels as kernels
from edgefn.engine.chain_kernels import BEGINNING, BLOCK, KEY, NEVER
from edgefn.engine.columns import Frame
from edgefn.windows import Window

MAX_SEGMENTS = 4096
MAX_ROOM = 1 << 14  # samples of closed windows that are handed out together, unless one window has more
KINDS = ("time", "count", "session", "sliding")  # in the order of the kernels' numbers


@dataclass(slots=True)
class Segments:
    """Closed windows: sample i of window w is at `offset[w] + i` of `ts` and of each column. Valid until the next ones come."""

    n: int
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    key: npt.NDArray[np.int32]
    end: npt.NDArray[np.int64]  # of the window; for windows of a count, the time of the last sample
    ts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.float64]  # (fields, samples)
    revised: npt.NDArray[np.uint8]  # 1 where the window was put out before, without samples that have come since


class Panes:
    """The open windows of one source, window specification and set of fields."""

    _close_kernel = staticmethod(kernels.close)

    def __init__(self, window: Window, n_fields: int, max_samples: int = 1 << 22) -> None:
        self.window = window
        self.n_fields = n_fields
        self.late = 0  # rows that came after their last window had closed
        self.skipped = 0  # rows without one of the fields
        self.full = 0  # rows given up because max_samples were held
        self._max_blocks = max(max_samples // BLOCK, 1)
        self._spec = np.array(
            [
                KINDS.index(window.kind),
                window.size,
                window.step,
                window.lateness,
                window.idle,
                window.revise,
            ],
            dtype=np.int64,
        )
        self._keys = np.zeros(0, KEY)
        self._n_keys = 0
        self._free = np.array([-1, 0, 0, 0, 0], dtype=np.int64)
        self._values = np.zeros((0, n_fields, BLOCK))
        self._times = np.zeros((0, BLOCK), np.int64)
        self._lows = np.zeros((0, BLOCK), np.int64)
        self._fresh = np.zeros((0, BLOCK), np.uint8)
        self._nexts = np.zeros(0, np.int32)
        self._fills = np.zeros(0, np.int32)
        self._closable = np.zeros(0, np.int32)
        self._evicted: set[int] = set()  # since the last checkpoint
        self._scratch = _scratch(n_fields, 0)
        self._segments = _segments(n_fields, 0)

    def given_up(self) -> dict[str, int]:
        """Rows that are in no window, by the name of their counter."""
        return {"events.late": self.late, "events.dropped.window_full": self.full}

    @property
    def _blocks(self) -> tuple[Any, ...]:
        return self._values, self._times, self._lows, self._fresh, self._nexts, self._fills, self._free

    @property
    def samples(self) -> int:
        return int(self._keys["rows"][: self._n_keys].sum())

    def grow_keys(self, n: int) -> None:
        """Makes room for keys 0 to n - 1."""
        if n > self._keys.size:
            size = max(n, 2 * self._keys.size, 64)
            keys = np.zeros(size, KEY)
            keys[: self._keys.size] = self._keys
            _reset(keys[self._keys.size :])
            self._keys = keys
            self._closable = np.zeros(size, np.int32)
        self._n_keys = max(n, self._n_keys)

    def _grow_blocks(self, needed: int) -> bool:
        """Whether so many blocks are free now; where the bound is in the way, as many as it lets."""
        missing = needed - int(self._free[chain_kernels.FREE_COUNT])
        if missing <= 0:
            return True
        old = self._nexts.size
        new = min(max(old * 2, old + missing, 64), self._max_blocks)
        if new == old:
            return False
        # Fresh blocks form a list of their own, in front of the free ones.
        nexts = np.arange(old + 1, new + 1, dtype=np.int32)
        nexts[-1] = self._free[chain_kernels.FREE_HEAD]
        self._nexts = np.concatenate([self._nexts, nexts])
        self._free[chain_kernels.FREE_HEAD] = old
        self._free[chain_kernels.FREE_COUNT] += new - old
        self._fills = np.concatenate([self._fills, np.zeros(new - old, np.int32)])
        for name in ("_values", "_times", "_lows", "_fresh"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((new - old, *array.shape[1:]), array.dtype)]))
        return new - old >= missing

    def insert(self, frame: Frame, idx: npt.NDArray[np.int64], need: int, now: int) -> Iterator[Segments]:
        """Takes the frame's rows in and gives the windows that they close. `now`: monotonic nanoseconds."""
        done, step = 0, frame.n
        while done < frame.n:
            # Each key may begin a block; where the bound leaves too few, the rows go in smaller pieces.
            n = min(step, frame.n - done)
            while n and not self._grow_blocks(min(n, n // BLOCK + self._n_keys)):
                n = min(n // 2, max(int(self._free[chain_kernels.FREE_COUNT]), 0))
            if n == 0:
                if self._make_room(frame, done):
                    yield from self._close(self._n_keys, np.arange(self._n_keys, dtype=np.int32))
                    continue
                self.full += frame.n - done
                return
            taken, closable = self._insert(
                n, frame.sel[done : done + n], frame.ts, frame.key, frame.present, frame.columns, idx, need, now
            )
            self.late, self.skipped = int(self._free[chain_kernels.LATE]), int(self._free[chain_kernels.SKIPPED])
            done += taken
            if closable:
                yield from self._close(closable)

    def _make_room(self, frame: Frame, done: int) -> bool:
        """Whether the rows that find no room make others obsolete; the caller then closes all keys and tries again."""
        return False

    def _insert(self, n: int, *rows: Any) -> tuple[int, int]:
        """How many rows were taken, and how many keys have a window to close."""
        return n, kernels.insert(self._spec, self._keys, self._blocks, n, *rows, self._closable)

    def tick(self, now: int) -> Iterator[Segments]:
        """Closes what is due by time because its key has fallen silent."""
        if self.window.kind in ("count", "sliding"):
            return
        closable = kernels.tick(self._spec, self._keys, self._n_keys, now, self._closable)
        if closable:
            yield from self._close(closable)

    def next_due(self) -> int | None:
        """The monotonic time at which `tick` will have something to do if nothing comes, None where nothing is open."""
        if self.window.kind in ("count", "sliding"):
            return None
        at = kernels.next_due(self._spec, self._keys, self._n_keys)
        return None if at == NEVER else at

    def _close(self, n_closable: int, closable: Any = None) -> Iterator[Segments]:
        if closable is None:
            closable = self._closable
        self._make_scratch(int(self._keys["rows"][closable[:n_closable]].sum()))
        rows, out = self._scratch, self._segments
        segments = out.columns, out.ts, out.offset, out.length, out.key, out.end, out.revised
        progress = np.array([0, BEGINNING, 0, 0], dtype=np.int64)
        while progress[0] < n_closable:
            progress[2:] = 0
            out.revised[:] = 0
            self._close_kernel(self._spec, self._keys, self._blocks, closable, n_closable, progress, rows, segments)
            out.n = int(progress[2])
            if out.n:
                yield out

    def _make_scratch(self, wanted: int) -> None:
        """Room for the rows of the longest key, and for closed windows of so many rows in all: kept, for fresh memory costs."""
        longest = int(self._free[chain_kernels.LONGEST])
        room = max(longest, min(wanted, MAX_ROOM), 1024)
        if longest > self._scratch[1].size:
            self._scratch = _scratch(self.n_fields, 2 * longest)
        if room > self._segments.ts.size:
            self._segments = _segments(self.n_fields, max(room, min(2 * room, MAX_ROOM)))

    def cut(self, ahead_of: npt.NDArray[np.int64]) -> Iterator[Segments]:
        """The clock was set: keys whose watermark is beyond `ahead_of` (one a key) close what they hold as it is, and begin anew.

        Windows of a count hold samples and no time: they go on.
        """
        if self.window.kind == "count":
            return
        keys = np.flatnonzero(self._keys["watermark"][: ahead_of.size] > ahead_of).astype(np.int32)
        held = keys[self._keys["rows"][keys] > 0]
        if held.size and self.window.kind != "sliding":  # those have put out the window of each sample already
            self._keys["watermark"][held] = NEVER
            self._keys["done"][held] = kernels.closed_below(self._spec, NEVER)
            self._keys["flagged"][held] = 1
            yield from self._close(held.size, held)
        for key in keys.tolist():
            self.reset_key(key)

    def reset_key(self, key: int) -> None:
        """Forgets a key whose place another one takes; its open samples are gone (the caller counts them)."""
        if key >= self._keys.size:
            return
        block = int(self._keys["head"][key])
        while block >= 0:
            following = int(self._nexts[block])
            self._nexts[block] = self._free[chain_kernels.FREE_HEAD]
            self._free[chain_kernels.FREE_HEAD] = block
            self._free[chain_kernels.FREE_COUNT] += 1
            block = following
        _reset(self._keys[key : key + 1])
        self._evicted.add(key)
        self._keys["dirty"][key] = chain_kernels.TOUCHED | chain_kernels.CLOSED

    def dirty(self) -> bool:
        return bool(self._keys["dirty"][: self._n_keys].any())

    def checkpoint(self, *, rows: bool = True, everything: bool = False) -> dict[str, Any] | None:
        """What changed since the last one: the records of changed keys and their new rows.

        rows=False saves only the keys that closed a window, without the rows: enough that a window already put out is not put
        out again. everything=True is a snapshot. Returns None where there is nothing to save.
        """
        which = chain_kernels.TOUCHED | chain_kernels.CLOSED if rows else chain_kernels.CLOSED
        dirty = self._keys["dirty"][: self._n_keys]
        chosen = np.flatnonzero(np.ones_like(dirty) if everything else dirty & which)
        if not chosen.size and not everything:
            return None
        n, out = (0, self._rows(0)) if not rows else self._collect(which, everything)
        keys = self._keys[chosen]
        if rows:
            dirty[:] = 0
        else:
            dirty[chosen] &= ~chain_kernels.CLOSED
        key, times, lows, values = out
        evicted, self._evicted = sorted(self._evicted), set()
        return {
            "evicted": np.array(evicted, np.int32),
            "keys": chosen.astype(np.int32),
            "watermark": keys["watermark"].copy(),
            "done": keys["done"].copy(),
            "fired": keys["fired"].copy(),
            "count": keys["count"].copy(),
            "key": key[:n],
            "times": times[:n],
            "lows": lows[:n],
            "values": values[:, :n].ravel(),
        }

    def _rows(self, n: int) -> tuple[Any, Any, Any, Any]:
        return np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64), np.empty((self.n_fields, n))

    def _collect(self, which: int, everything: bool) -> tuple[int, tuple[Any, Any, Any, Any]]:
        n = 0
        while True:
            out = self._rows(n)
            found = chain_kernels.collect(self._keys, self._n_keys, self._blocks, which, everything, n, *out)
            if found <= n:
                return found, out
            n = found

    def restore(self, parts: list[dict[str, Any]], now: int) -> bool:
        """Takes up checkpoints, the snapshot first; returns True. A silent key's clock goes on from `now` (monotonic)."""
        for part in parts:
            numbers, n = part["keys"], part["key"].size
            self.grow_keys(int(max(numbers.max(initial=-1), part["key"].max(initial=-1))) + 1)
            for key in part["evicted"]:  # its label's samples stand in an earlier part
                self.reset_key(int(key))
            per_key = np.unique(part["key"], return_counts=True)[1]
            if not self._grow_blocks(int((per_key // BLOCK).sum()) + per_key.size):
                self.full += n  # the bound is smaller than it was: what it cannot hold begins afresh
                return False
            # Rows of windows closed by then are dropped key by key, as the record that comes with them says.
            values = part["values"].reshape(self.n_fields, n).copy()
            chain_kernels.restore(
                self._spec,
                self._keys,
                self._blocks,
                n,
                *(part[name].copy() for name in ("key", "times", "lows")),
                values,
            )
            for name in ("watermark", "done", "fired", "count"):
                self._keys[name][numbers] = part[name]
            self._keys["flagged"][numbers] = 1
            closable = numbers.copy()
            for _ in self._close(closable.size, closable):
                pass  # already put out, by the commit that wrote this part
            self._keys["seen"][numbers] = now
        self._keys["dirty"] = 0
        self._evicted.clear()
        return True


class SessionPanes(Panes):
    """Sessions: runs of samples without a gap."""

    _close_kernel = staticmethod(session_kernels.close_sessions)

    def _insert(self, n: int, *rows: Any) -> tuple[int, int]:
        found = np.zeros(1, np.int64)
        taken = session_kernels.insert(self._spec, self._keys, self._blocks, n, *rows, self._closable, found)
        return taken, int(found[0])


class SlidingPanes(SessionPanes):
    """Windows that end at each sample."""

    _close_kernel = staticmethod(session_kernels.close_sliding)

    def _make_room(self, frame: Frame, done: int) -> bool:
        """Only a newer sample makes older ones obsolete, so the time of the next that finds no room has to count."""
        rows = frame.sel[done : frame.n]
        before = self._keys["watermark"].copy()
        earliest = np.full(before.size, NEVER)
        np.minimum.at(earliest, frame.key[rows], frame.ts[rows])
        came = earliest != NEVER
        self._keys["watermark"][came] = np.maximum(before, earliest)[came]
        held = self._keys["rows"] > 0
        return bool((came & held & (earliest - self.window.size > before)).any())


def make_panes(window: Window, n_fields: int) -> Panes:
    """The store for a kind of window."""
    kinds: dict[str, type[Panes]] = {"session": SessionPanes, "sliding": SlidingPanes}
    return kinds.get(window.kind, Panes)(window, n_fields)


def _scratch(n_fields: int, n: int) -> tuple[Any, ...]:
    return np.empty((n_fields, n)), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint8)


def _segments(n_fields: int, room: int) -> Segments:
    n = MAX_SEGMENTS if room else 0
    return Segments(
        0, np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.int64),
        np.empty(room, np.int64), np.empty((n_fields, room)), np.zeros(n, np.uint8),
    )  # fmt: skip


def _reset(keys: npt.NDArray[Any]) -> None:
    keys[:] = np.zeros((), KEY)
    keys["watermark"] = BEGINNING
    keys["done"] = BEGINNING
    keys["fired"] = BEGINNING
    keys["due"] = NEVER
    keys["head"] = -1
    keys["tail"] = -1
