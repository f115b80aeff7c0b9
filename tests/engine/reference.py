"""The windows of edgefn.windows in plain, slow Python: what the compiled store is held against."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefn.windows import Window

Closed = tuple[int, int, tuple[float, ...]]  # key, end of the window, samples in the order of time


@dataclass
class _Key:
    watermark: int | None = None
    seen: int = 0
    count: int = 0
    open: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict)
    done: int | None = None


@dataclass
class ReferenceWindows:
    window: Window
    late: int = 0
    keys: dict[int, _Key] = field(default_factory=dict)

    def insert(self, key: int, ts: int, value: float, now: int) -> list[Closed]:
        state, window = self.keys.setdefault(key, _Key()), self.window
        is_count = window.kind == "count"
        position = state.count if is_count else ts
        state.seen = now
        open_windows = [
            number
            for number in range(window.first(position), window.last(position) + 1)
            if state.done is None or number >= state.done
        ]
        if not open_windows:
            self.late += 1
            return []
        for number in open_windows:
            state.open.setdefault(number, []).append((position, ts, value))
        state.count += 1
        watermark = position + 1 if is_count else position
        if state.watermark is None or watermark > state.watermark:
            state.watermark = watermark
        return self._close(key)

    def tick(self, now: int) -> list[Closed]:
        closed = []
        if self.window.kind == "time":
            for key, state in self.keys.items():
                silent = now - state.seen - self.window.idle
                if state.open and silent > 0:
                    assert state.watermark is not None
                    due = self.window.end(min(state.open)) + self.window.lateness
                    if state.watermark + silent >= due:
                        state.watermark += silent
                        state.seen = now - self.window.idle
                        closed += self._close(key)
        return closed

    def _close(self, key: int) -> list[Closed]:
        state, window = self.keys[key], self.window
        assert state.watermark is not None
        done = (state.watermark - window.lateness - window.size) // window.step + 1
        state.done = done if state.done is None else max(done, state.done)
        closed = []
        for number in sorted(number for number in state.open if number < state.done):
            samples = sorted(state.open.pop(number), key=lambda sample: sample[0])
            end = samples[-1][1] if window.kind == "count" else window.end(number)
            closed.append((key, end, tuple(value for _, _, value in samples)))
        return closed
