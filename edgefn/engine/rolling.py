"""The window store of summaries: one per key and pane instead of its samples, merged into the rows of closed windows.

For `summarize` on windows that overlap: a window costs its panes, not its samples, and a pane of a million samples takes no
more memory than one of a thousand. What is late, when a window closes and what it holds is the same as in `Panes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.engine import chain_kernels, pane_kernels, rolling_kernels
from edgefn.engine.chain_kernels import BEGINNING, CLOSED, KEY, NEVER, TOUCHED
from edgefn.engine.columns import Frame
from edgefn.engine.loops import PERCENTILE
from edgefn.engine.rolling_kernels import BUCKETS, CELL, LEAF, LISTED, PAGE, PANE, PENDING, ROW, WRITTEN
from edgefn.windows import Window

MAX_ROWS = 1024  # rows of closed windows that are given at once
RESET = 4  # in a key's `dirty`, beside TOUCHED and CLOSED: another key has taken its place

_NO_KEYS = np.zeros(0, np.int32)


@dataclass(slots=True)
class Rows:
    """Closed windows and their statistics."""

    n: int
    key: npt.NDArray[np.int32]
    end: npt.NDArray[np.int64]  # of the window; for windows of a count, the time of the last sample
    length: npt.NDArray[np.int64]  # samples in the window
    values: npt.NDArray[np.float64]  # (statistics, n), field after field


def fits(window: Window) -> bool:
    """Whether summaries of panes are enough for it: sessions end where their samples say, and a revision needs them again."""
    return window.kind in ("time", "count") and not window.revise


class Rolling:
    """The open windows of one source and window specification, as summaries of the fields that are asked for.

    stats: for each field the codes of `loops.code`. A percentile lies within `summaries.RELATIVE_ERROR` and `ZERO_ERROR`; the
    others are exact but for rounding. NaN, infinities and what is beyond 1e150 are in `length` and in no statistic, n included.
    """

    def __init__(self, window: Window, stats: Sequence[Sequence[int]], max_panes: int = 1 << 18) -> None:
        if not fits(window):
            raise ValueError(f"windows of {window} need their samples; keep them in Panes")
        self.window = window
        self.n_fields = len(stats)
        self.n_stats = sum(map(len, stats))
        self.late = 0  # rows that came after their last window had closed
        self.skipped = 0  # rows without one of the fields
        self.full = 0  # rows given up because max_panes, or the pages for their percentiles, were in use
        self.strange = 0  # values that are no numbers to learn from
        # Only what `fits` is taken, so no window is ever put out twice.
        kind = chain_kernels.COUNT if window.kind == "count" else chain_kernels.TIME
        self._spec = np.array([kind, window.size, window.step, window.lateness, window.idle, False], dtype=np.int64)
        sketched = [any(code >= PERCENTILE for code in codes) for codes in stats]
        # Four pages a pane: temperatures need two, a signal about zero up to 128 in few but long panes.
        self._max_panes, self._max_pages = max_panes, max(4 * max_panes, 128) * sum(sketched)
        self._keys = np.zeros(0, KEY)
        self._n_keys = 0
        self._closable = _NO_KEYS
        self._sketched = np.array(sketched, dtype=np.uint8)
        self._fields = np.array([f for f, codes in enumerate(stats) for _ in codes], dtype=np.int64)
        self._codes = np.array([code for codes in stats for code in codes], dtype=np.int64)
        self._buckets = np.zeros(BUCKETS, np.int64)
        self._out = (
            np.empty(MAX_ROWS, np.int32), np.empty(MAX_ROWS, np.int64), np.empty(MAX_ROWS, np.int64),
            np.empty((self.n_stats, MAX_ROWS)),
        )  # fmt: skip
        self._nothing = Frame(
            0, _NO_KEYS, np.zeros(0, np.int64), _NO_KEYS, np.zeros(0, np.int64), np.zeros((self.n_fields, 0))
        )
        self._forget_all()

    def given_up(self) -> dict[str, int]:
        """Rows that are in no window, and values that are in no statistic, by the name of their counter."""
        return {
            "events.late": self.late,
            "events.dropped.window_full": self.full,
            "fields.unusable.not_finite": self.strange,
        }

    def _forget_all(self) -> None:
        self._free = np.array([-1, 0, -1, 0, 0, 0, 0, 0], dtype=np.int64)
        self._panes = np.zeros(0, PANE)
        self._cells = np.zeros((0, self.n_fields), CELL)
        self._leaves = np.zeros(0, LEAF)
        self._counts = np.zeros((0, PAGE), np.uint32)

    @property
    def samples(self) -> int:
        """Rows that the panes held sum up."""
        return int(self._keys["rows"][: self._n_keys].sum())

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self._keys, self._panes, self._cells, self._leaves, self._counts))

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

    def _grow(self) -> bool:
        """Makes room for at least one more row; False where the bounds leave none."""
        pages = int(self._sketched.sum())
        panes = _more(self._panes.size, self._max_panes) if self._free[rolling_kernels.PANES] < 1 else 0
        leaves = _more(self._leaves.size, self._max_pages) if self._free[rolling_kernels.PAGES] < pages else 0
        self._panes = self._extend(self._panes, panes, rolling_kernels.PANE_HEAD)
        self._panes["key"][self._panes.size - panes :] = -1
        self._cells = np.concatenate([self._cells, np.zeros((panes, self.n_fields), CELL)])
        self._leaves = self._extend(self._leaves, leaves, rolling_kernels.PAGE_HEAD)
        self._leaves["cell"][self._leaves.size - leaves :] = -1
        self._counts = np.concatenate([self._counts, np.zeros((leaves, PAGE), np.uint32)])
        return bool(self._free[rolling_kernels.PANES] >= 1 and self._free[rolling_kernels.PAGES] >= pages)

    def _extend(self, array: npt.NDArray[Any], more: int, head: int) -> npt.NDArray[Any]:
        """Adds `more` elements, in front of the free ones."""
        if not more:
            return array
        fresh = np.zeros(more, array.dtype)
        fresh["next"] = np.arange(array.size + 1, array.size + more + 1)
        fresh["next"][-1] = self._free[head]
        self._free[head] = array.size
        self._free[head + 1] += more
        return np.concatenate([array, fresh])

    def insert(self, frame: Frame, idx: npt.NDArray[np.int64], need: int, now: int) -> Iterator[Rows]:
        """Takes the frame's rows in and gives the windows that they close. `now`: monotonic nanoseconds."""
        yield from self._advance(frame, idx, need, now, 0)

    def tick(self, now: int) -> Iterator[Rows]:
        """Closes what is due by time because its key has fallen silent."""
        if self.window.kind == "count":
            return
        closable = pane_kernels.tick(self._spec, self._keys, self._n_keys, now, self._closable)
        if closable:
            yield from self._advance(self._nothing, self._codes[:0], 0, now, closable)

    def next_due(self) -> int | None:
        """The monotonic time at which `tick` will have something to do if nothing comes, None where nothing is open."""
        if self.window.kind == "count":
            return None
        at = pane_kernels.next_due(self._spec, self._keys, self._n_keys)
        return None if at == NEVER else at

    def _advance(self, frame: Frame, idx: npt.NDArray[np.int64], need: int, now: int, n_listed: int) -> Iterator[Rows]:
        progress, is_bounded, free = np.array([0, 0, -1, 0], dtype=np.int64), False, self._free
        while True:
            has_room = rolling_kernels.advance(
                self._spec, self._keys, self._panes, self._cells, self._leaves, self._counts, free, self._sketched,
                self._fields, self._codes, self._buckets, self._closable, n_listed, frame.n, frame.sel, frame.ts, frame.key,
                frame.present, frame.columns, idx, need, now, is_bounded, progress, *self._out,
            )  # fmt: skip
            _, _, _, _, self.late, self.skipped, self.strange, self.full = map(int, free)
            if not has_room:
                is_bounded = not self._grow()
                continue
            n = int(progress[WRITTEN])
            if n:
                key, end, length, values = self._out
                yield Rows(n, key[:n].copy(), end[:n].copy(), length[:n].copy(), values[:, :n].copy())
                progress[WRITTEN] = 0
            if progress[ROW] == frame.n and progress[LISTED] == n_listed and progress[PENDING] < 0:
                return

    def cut(self, ahead_of: npt.NDArray[np.int64]) -> Iterator[Rows]:
        """The clock was set: keys whose watermark is beyond `ahead_of` (one a key) close what they hold as it is, and begin anew.

        Windows of a count hold samples and no time: they go on.
        """
        if self.window.kind == "count":
            return
        keys = np.flatnonzero(self._keys["watermark"][: ahead_of.size] > ahead_of).astype(np.int32)
        held = keys[self._keys["rows"][keys] > 0]
        if held.size:
            self._keys["watermark"][held] = NEVER
            self._keys["done"][held] = pane_kernels.closed_below(self._spec, NEVER)
            self._closable[: held.size] = held
            yield from self._advance(self._nothing, self._codes[:0], 0, 0, held.size)
        for key in keys.tolist():
            self.reset_key(key)

    def reset_key(self, key: int) -> None:
        """Forgets a key whose place another one takes; its open samples are gone (the caller counts them)."""
        if key >= self._keys.size:
            return
        own = np.flatnonzero(self._panes["key"] == key)
        for head, array, gone in (
            (rolling_kernels.PAGE_HEAD, self._leaves, np.flatnonzero(np.isin(self._owners()[0], own))),
            (rolling_kernels.PANE_HEAD, self._panes, own),
        ):
            for number in gone.tolist():
                array["next"][number] = self._free[head]
                self._free[head] = number
                self._free[head + 1] += 1
            array["cell" if head == rolling_kernels.PAGE_HEAD else "key"][gone] = -1
        _reset(self._keys[key : key + 1])
        self._keys["dirty"][key] = TOUCHED | CLOSED | RESET

    def _owners(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Pane and field of each page; the pane is -1 where the page is free."""
        cell = self._leaves["cell"]
        return cell // self.n_fields, cell % self.n_fields

    def dirty(self) -> bool:
        return bool(self._keys["dirty"][: self._n_keys].any())

    @property
    def _layout(self) -> str:
        return f"1 {self.n_fields} {PAGE} {CELL.descr}"

    def checkpoint(self, *, rows: bool = True, everything: bool = False) -> dict[str, Any] | None:
        """What changed since the last one: the records of changed keys, and their changed panes with the changed pages.

        rows=False saves only the keys that closed a window, without panes: enough that a window already put out is not put
        out again. everything=True is a snapshot. Returns None where there is nothing to save.
        """
        which = TOUCHED | CLOSED | RESET if rows else CLOSED | RESET
        dirty = self._keys["dirty"][: self._n_keys]
        chosen = np.flatnonzero(np.ones_like(dirty) if everything else dirty & which)
        if not chosen.size and not everything:
            return None
        keys = self._keys[chosen]
        held, pages = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if rows:
            held = np.flatnonzero((self._panes["key"] >= 0) & (everything | (self._panes["fresh"] == 1)))
            pages = np.flatnonzero((self._leaves["cell"] >= 0) & (everything | (self._leaves["fresh"] == 1)))
            self._panes["fresh"], self._leaves["fresh"] = 0, 0
        dirty[chosen] &= ~which
        panes, (owner, field) = self._panes[held], self._owners()
        return {
            "layout": self._layout,
            "keys": chosen.astype(np.int32),
            "watermark": keys["watermark"].copy(),
            "done": keys["done"].copy(),
            "count": keys["count"].copy(),
            "reset": chosen[keys["dirty"] & RESET != 0].astype(np.int32),
            "pane_key": panes["key"].copy(),
            "pane": panes["number"].copy(),
            "rows": panes["rows"].copy(),
            "end": panes["end"].copy(),
            "cells": self._cells[held].tobytes(),
            # A page that changed belongs to a pane that changed: which of those above it is.
            "page_of": np.searchsorted(held, owner[pages]).astype(np.int32),
            "page_field": field[pages].astype(np.int32),
            "page": self._leaves["number"][pages].copy(),
            "counts": self._counts[pages].ravel(),
        }

    def restore(self, parts: list[dict[str, Any]], now: int) -> bool:
        """Takes up checkpoints in place of what is held, the snapshot first; a silent key's clock goes on from `now`.

        False, with nothing changed, where one was written for other fields or by a version with another layout.
        """
        if any(part["layout"] != self._layout for part in parts):
            return False
        self._forget_all()
        _reset(self._keys)
        if not parts:
            return True
        self.grow_keys(max(int(part["keys"].max(initial=-1)) for part in parts) + 1)
        born = np.zeros(self._keys.size, np.int64)  # the part from which on a key is the one it is now
        for number_of_part, part in enumerate(parts):
            for name in ("watermark", "done", "count"):
                self._keys[name][part["keys"]] = part[name]
            self._keys["seen"][part["keys"]] = now
            born[part["reset"]] = number_of_part
        self._keys["dirty"] = 0

        key, number = _joined(parts, "pane_key"), _joined(parts, "pane")
        sizes = [part["pane"].size for part in parts]
        age = np.repeat(np.arange(len(parts)), sizes)
        needed = np.flatnonzero((age >= born[key]) & (number >> 1 >= self._keys["done"][key]))
        newest, place = _newest(needed, key, number)
        panes = self._panes = np.zeros(newest.size, PANE)
        for name, values in (
            ("key", key),
            ("number", number),
            ("rows", _joined(parts, "rows")),
            ("end", _joined(parts, "end")),
        ):
            panes[name] = values[newest]
        cells = np.frombuffer(b"".join(part["cells"] for part in parts), CELL).reshape(-1, self.n_fields)
        self._cells = cells[newest]
        self._cells["page"] = -1
        panes["next"], panes["prev"], heads, tails = _chains(panes["key"])
        owners = panes["key"][heads]
        self._keys["head"][owners], self._keys["tail"][owners] = heads, tails
        np.add.at(self._keys["rows"], panes["key"], panes["rows"])
        window = np.maximum(
            (panes["number"][heads] + 1 >> 1) - self.window.size // self.window.step, self._keys["done"][owners]
        )
        self._keys["due"][owners] = window * self.window.step + self.window.size + self.window.lateness

        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), [part["page"].size for part in parts])
        owner, page = place[_joined(parts, "page_of") + starts], _joined(parts, "page")
        cell = owner * self.n_fields + _joined(parts, "page_field")
        newest, _ = _newest(np.flatnonzero(owner >= 0), cell, page)
        leaves = self._leaves = np.zeros(newest.size, LEAF)
        leaves["number"], leaves["cell"] = page[newest], cell[newest]
        self._counts = _joined(parts, "counts").reshape(-1, PAGE)[newest]
        leaves["next"], _, heads, _ = _chains(leaves["cell"])
        self._cells["page"].reshape(-1)[leaves["cell"][heads]] = heads
        return True


def _more(size: int, most: int) -> int:
    return max(min(max(size, 64), most - size), 0)


def _joined(parts: list[dict[str, Any]], name: str) -> npt.NDArray[Any]:
    return np.concatenate([part[name] for part in parts])


def _newest(rows: npt.NDArray[Any], major: npt.NDArray[Any], minor: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Of rows that stand for the same thing the last one, in the order of (major, minor); and for each of all rows its place
    among them, -1 where it is not one of `rows`."""
    order = rows[np.lexsort((minor[rows], major[rows]))]
    changes = (major[order][1:] != major[order][:-1]) | (minor[order][1:] != minor[order][:-1])
    place = np.full(major.size, -1)
    place[order] = np.cumsum([0, *changes])[: order.size]
    return order[np.append(changes, True)[: order.size]], place


def _chains(owner: npt.NDArray[Any]) -> tuple[Any, Any, Any, Any]:
    """Links what stands side by side and has one owner: next, previous, and the first and last of each owner."""
    here = np.arange(owner.size)
    is_first = np.append(True, owner[1:] != owner[:-1])[: owner.size]
    is_last = np.append(is_first[1:], True)[: owner.size]
    return np.where(is_last, -1, here + 1), np.where(is_first, -1, here - 1), here[is_first], here[is_last]


def _reset(keys: npt.NDArray[Any]) -> None:
    keys[:] = np.zeros((), KEY)
    keys["watermark"] = BEGINNING
    keys["done"] = BEGINNING
    keys["due"] = NEVER
    keys["head"] = -1
    keys["tail"] = -1
