"""The handlers at work: each node takes a frame, runs its kernel over it and hands frames on to those built on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn import mergeable
from edgefn.api import can_thin
from edgefn.engine import loops
from edgefn.engine.columns import Frame
from edgefn.engine.compiled import FIRST, RAISED, SKIPPED, no_state
from edgefn.engine.panes import Panes, Segments
from edgefn.engine.rolling import Rolling, Rows
from edgefn.manifest import HandlerManifest
from edgefn.summaries import Summary

MAX_ROWS = 1 << 16  # rows in one call of a kernel: bounds its outputs, and how long it runs without being looked at

Loop = Callable[..., Any]
_NOTHING = np.zeros(0, np.int64)


@dataclass(slots=True)
class Output:
    """Rows that a handler puts out: one array a value, of the same length as `key` and `ts`."""

    node: Node
    key: npt.NDArray[np.int32]
    ts: npt.NDArray[np.int64]  # the window's end, or the event's time
    values: npt.NDArray[np.float64]  # (values, rows)
    length: npt.NDArray[np.int64] = field(default_factory=lambda: _NOTHING)  # samples of each window
    revised: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))  # 1: put out before
    summaries: list[bytes] = field(default_factory=list)  # what merging the rows takes, where they may be merged


@dataclass(slots=True)
class Meter:
    """What a handler did: counted here, told to the gateway with each commit."""

    events: int = 0
    rows: int = 0
    skipped: int = 0
    raised: int = 0
    ns: int = 0


class State:
    """The state of a handler: one row a key, all of one layout."""

    def __init__(self, dtype: np.dtype[Any] | None, initial: npt.NDArray[Any] | None) -> None:
        self.dtype = dtype
        self.initial = no_state() if initial is None else initial
        self.rows = self.initial[:0].copy()
        self.dirty = np.zeros(0, np.bool_)

    @property
    def shape(self) -> str:
        return "" if self.dtype is None else str(self.dtype.descr)

    def grow(self, n: int) -> None:
        if n > self.rows.size:
            more = np.repeat(self.initial, max(n, 2 * self.rows.size, 64) - self.rows.size)
            self.rows = np.concatenate([self.rows, more])
            self.dirty = np.concatenate([self.dirty, np.zeros(more.size, np.bool_)])

    def forget(self, key: int) -> None:
        if key < self.rows.size:
            self.rows[key] = self.initial[0]
            self.dirty[key] = True

    def adopt(self, other: State) -> bool:
        """Takes over another version's rows where the layout is the same."""
        if other.shape != self.shape:
            return False
        self.rows, self.dirty = other.rows, other.dirty
        return True

    def checkpoint(self, everything: bool = False) -> dict[str, Any] | None:
        numbers = np.arange(self.rows.size) if everything else np.flatnonzero(self.dirty)
        self.dirty[:] = False
        if not numbers.size:
            return None
        return {"keys": numbers.astype(np.int32), "rows": self.rows[numbers].tobytes(), "shape": self.shape}

    def restore(self, parts: list[dict[str, Any]]) -> bool:
        """Takes up checkpoints in their order; False where one was written by a version with another layout."""
        for part in parts:
            if part["shape"] != self.shape:
                return False
            numbers = part["keys"]
            self.grow(int(numbers.max(initial=-1)) + 1)
            self.rows[numbers] = np.frombuffer(part["rows"], self.rows.dtype)
        return True


class Node:
    """One handler in the plan. Subclasses say what running it means."""

    def __init__(self, manifest: HandlerManifest, loop: Loop | None, state: State) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.number = 0  # by which the gateway knows what is running
        self.version = ""  # of its file
        self.loop = loop
        self.state = state
        self.meter = Meter()
        self.children: list[Node | PaneGroup] = []
        self.failed_row: dict[str, float] | None = None
        self.behind_window = False  # it changes only when a window closes
        self._counts = np.zeros(3, np.int64)
        self.idx = _NOTHING
        self.need = 0

    def bind(self, layout: list[str]) -> None:
        """Fixes where the handler's fields are in the frames it gets."""
        self.idx = np.array([layout.index(entry.column) for entry in self.manifest.inputs], dtype=np.int64)
        self.need = sum({1 << layout.index(entry.column) for entry in self.manifest.inputs if entry.default is None})

    def grow(self, n_keys: int) -> None:
        self.state.grow(n_keys)

    def forget(self, key: int) -> None:
        self.state.forget(key)

    def run(self, frame: Frame, context: Context) -> None:
        raise TypeError(f"a {self.manifest.kind} is run by its windows")

    def call(self, frame: Frame, context: Context, *outputs: Any) -> Any:
        """Calls the loop over the frame's rows, watched and metered."""
        assert self.loop is not None
        counts = self._counts
        counts[:] = (0, 0, -1)
        context.enter(self.number)
        started = time.perf_counter_ns()
        result = self.loop(
            frame.n, frame.sel, frame.ts, frame.key, frame.present, frame.columns, self.idx, self.need,
            self.state.rows, *outputs, counts,
        )  # fmt: skip
        self.meter.ns += time.perf_counter_ns() - started
        context.leave()
        self.meter.events += frame.n
        self.meter.skipped += int(counts[SKIPPED])
        if counts[RAISED]:
            self.meter.raised += int(counts[RAISED])
            row = counts[FIRST]
            self.failed_row = {
                entry.name: float(frame.columns[c, row])
                for entry, c in zip(self.manifest.inputs, self.idx, strict=True)
                if frame.present[row] >> c & 1
            }
        if self.state.dtype is not None:
            loops.mark(frame.n, frame.sel, frame.key, self.state.dirty)
        return result

    def hand_on(self, frame: Frame, context: Context) -> None:
        for child in self.children:
            child.run(frame, context)


class Context:
    """What nodes need from the engine while they run: the time, somewhere to put results, and a watch on each call."""

    def __init__(self, emit: Callable[[Output], None], enter: Callable[[int], None], leave: Callable[[], None]) -> None:
        self.now = 0  # monotonic ns
        self.initial = False  # the rows are retained messages: they change state, and put nothing out
        self.emit = emit
        self.enter = enter
        self.leave = leave


class FilterNode(Node):
    def run(self, frame: Frame, context: Context) -> None:
        if not frame.n:
            return
        sel = np.empty(frame.n, np.int32)
        kept = self.call(frame, context, sel)
        self.meter.rows += kept
        if kept:
            self.hand_on(frame.select(kept, sel[:kept]), context)


class TransformNode(Node):
    def run(self, frame: Frame, context: Context) -> None:
        if not frame.n:
            return
        columns = np.empty((len(self.manifest.outputs), frame.n))
        row = np.empty(frame.n, np.int32)
        n = self.call(frame, context, columns, row)
        self.meter.rows += n
        if not n:
            return
        row = row[:n]
        made = _frame(frame.ts[row], frame.key[row], np.ascontiguousarray(columns[:, :n]))
        if self.manifest.options.to and not context.initial:
            context.emit(Output(self, made.key, made.ts, made.columns))
        self.hand_on(made, context)


class AnomalyNode(Node):
    def __init__(self, manifest: HandlerManifest, loop: Loop | None, state: State) -> None:
        super().__init__(manifest, loop, state)
        self.active = State(np.dtype([("active", "u1")]), np.zeros(1, [("active", "u1")]))

    def grow(self, n_keys: int) -> None:
        super().grow(n_keys)
        self.active.grow(n_keys)

    def forget(self, key: int) -> None:
        super().forget(key)
        self.active.forget(key)

    def run(self, frame: Frame, context: Context) -> None:
        if not frame.n:
            return
        score, changed, raised = np.empty(frame.n), np.empty(frame.n, np.int32), np.empty(frame.n)
        self.call(frame, context, score)
        if context.initial:
            return
        active, manifest = self.active.rows["active"], self.manifest
        n = loops.alerts(
            frame.n, frame.sel, score, frame.key, active, manifest.threshold, manifest.clear, changed, raised
        )
        if not n:
            return
        self.meter.rows += n
        changed = changed[:n]
        row = frame.sel[changed]
        key = frame.key[row]
        value = np.full(n, np.nan)  # of the first field, where the event has it
        if self.idx.size:
            has = (frame.present[row] >> self.idx[0] & 1).astype(np.bool_)
            value[has] = frame.columns[self.idx[0], row[has]]
        values = np.stack([score[changed], value, raised[:n]])
        self.active.dirty[key] = True
        made = _frame(frame.ts[row], key, values)
        context.emit(Output(self, made.key, made.ts, values))
        self.hand_on(made, context)


class AggregateNode(Node):
    """An aggregate with code, or a summary without."""

    def __init__(self, manifest: HandlerManifest, loop: Loop | None, state: State) -> None:
        super().__init__(manifest, loop, state)
        self._codes = np.array([loops.code(stat) for stat in manifest.stats], dtype=np.int64)
        self._thins = manifest.options.thins and can_thin(manifest.kind, manifest.window)

    def close(self, segments: Segments, context: Context) -> None:
        """Makes one row of each closed window."""
        n, counts = segments.n, self._counts
        out, ok = np.empty((len(self.manifest.outputs), n)), np.ones(n, np.uint8)
        counts[:] = (0, 0, -1)
        context.enter(self.number)
        started = time.perf_counter_ns()
        if self.loop is None:
            loops.summarize(n, segments.offset, segments.length, segments.columns, self._codes, out)
        else:
            self.loop(
                n, segments.offset, segments.length, segments.key, segments.end, segments.ts, segments.columns,
                self.state.rows, out, ok, counts,
            )  # fmt: skip
        self.meter.ns += time.perf_counter_ns() - started
        context.leave()
        if self.state.dtype is not None:
            self.state.dirty[segments.key[:n]] = True
        if counts[RAISED]:
            self.meter.raised += int(counts[RAISED])
            w = counts[FIRST]
            last = segments.offset[w] + segments.length[w] - 1
            self.failed_row = {
                entry.name: float(segments.columns[c, last]) for c, entry in enumerate(self.manifest.inputs)
            }
        good = np.flatnonzero(ok)
        if good.size:
            made = _frame(segments.end[good], segments.key[good], np.ascontiguousarray(out[:, good]))
            summaries = self._summaries(segments) if self._thins else []
            self.put_out(made, segments.length[good], segments.revised[good], context, summaries)

    def _summaries(self, segments: Segments) -> list[bytes]:
        """What the store needs to merge each row with its neighbours. A summary has no code, so each window has its row."""
        assert self.manifest.window is not None
        kept = mergeable.parts(self.manifest.stats)
        packed = []
        for a, length in zip(
            segments.offset[: segments.n].tolist(), segments.length[: segments.n].tolist(), strict=True
        ):
            times = segments.ts[a : a + length]
            fields = [
                Summary.of(column[a : a + length], times, buckets=bool(kept & mergeable.BUCKETS))
                for column in segments.columns
            ]
            packed.append(mergeable.pack(self.manifest.window.size, kept, fields))
        return packed

    def put_out(
        self,
        made: Frame,
        length: npt.NDArray[np.int64],
        revised: npt.NDArray[np.uint8],
        context: Context,
        summaries: list[bytes],
    ) -> None:
        self.meter.rows += made.n
        context.emit(Output(self, made.key, made.ts, made.columns, length, revised, summaries))
        self.hand_on(made, context)


class PaneGroup:
    """One window store and the aggregates that share it: same source, same window, same fields.

    A `Rolling` store makes the rows itself, so only summaries with the same statistics share one.
    """

    def __init__(self, name: str, panes: Panes | Rolling) -> None:
        self.name = name
        self.panes = panes
        self.nodes: list[AggregateNode] = []
        self.behind_window = False  # its samples are what other windows put out
        self._told = panes.given_up()

    def news(self) -> dict[str, int]:
        """What was given up since the last call, by the name of its counter."""
        before, self._told = self._told, self.panes.given_up()
        return {name: n - before[name] for name, n in self._told.items()}

    def adopt(self, other: PaneGroup) -> None:
        """Takes over another plan's windows."""
        self.panes, self._told = other.panes, other._told

    def grow(self, n_keys: int) -> None:
        self.panes.grow_keys(n_keys)

    def forget(self, key: int) -> None:
        self.panes.reset_key(key)

    def run(self, frame: Frame, context: Context) -> None:
        if not frame.n or context.initial:
            return
        first, skipped = self.nodes[0], self.panes.skipped
        self._close(self.panes.insert(frame, first.idx, first.need, context.now), context)
        skipped = self.panes.skipped - skipped
        for node in self.nodes:
            node.meter.events += frame.n
            node.meter.skipped += skipped

    def tick(self, context: Context) -> None:
        self._close(self.panes.tick(context.now), context)

    def cut(self, ahead_of: npt.NDArray[np.int64], context: Context) -> None:
        self._close(self.panes.cut(ahead_of), context)

    def _close(self, closed: Iterator[Segments] | Iterator[Rows], context: Context) -> None:
        for windows in closed:
            for node in self.nodes:
                if isinstance(windows, Segments):
                    node.close(windows, context)
                else:
                    made = _frame(windows.end, windows.key, windows.values)
                    node.put_out(made, windows.length, np.zeros(windows.n, np.uint8), context, [])


def _frame(ts: Any, key: Any, columns: npt.NDArray[np.float64]) -> Frame:
    """A frame of rows that a handler made: every value is there."""
    n = len(ts)
    present = np.full(n, (1 << columns.shape[0]) - 1, np.int64)
    return Frame(n, np.arange(n, dtype=np.int32), np.ascontiguousarray(ts), np.ascontiguousarray(key), present, columns)


def make(manifest: HandlerManifest, loop: Loop | None, state: State) -> Node:
    kinds: dict[str, type[Node]] = {
        "filter": FilterNode,
        "transform": TransformNode,
        "anomaly": AnomalyNode,
        "aggregate": AggregateNode,
        "summarize": AggregateNode,
    }
    return kinds[manifest.kind](manifest, loop, state)
