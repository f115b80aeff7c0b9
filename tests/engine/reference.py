"""The windows of edgefn.windows in plain, slow Python: what the compiled store is held against."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefn.windows import Window

FOREVER, BEGINNING = 1 << 100, -(1 << 100)

# Key, end of the window, samples in the order of time, whether it was put out before.
Closed = tuple[int, int, tuple[float, ...], bool]


@dataclass
class _Key:
    watermark: int | None = None
    seen: int = 0
    count: int = 0
    open: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)  # windows put out, with how many samples
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
                    if state.watermark + silent >= self._due(state):
                        state.watermark += silent
                        state.seen = now - self.window.idle
                        closed += self._close(key)
        return closed

    def cut(self, keys: list[int], ahead_of: int = BEGINNING) -> list[Closed]:
        closed = []
        for key in keys if self.window.kind == "time" else []:
            state = self.keys.get(key)
            if state is not None and state.watermark is not None and state.watermark > ahead_of:
                state.watermark = FOREVER
                closed += self._close(key) if state.open else []
                del self.keys[key]
        return closed

    def _due(self, state: _Key) -> int:
        """The watermark at which something happens next: a window is put out, or one that was is let go."""
        window = self.window
        return min(
            window.end(number) + (0 if window.revise and number not in state.told else window.lateness)
            for number in state.open
        )

    def _close(self, key: int) -> list[Closed]:
        state, window = self.keys[key], self.window
        assert state.watermark is not None
        wait = 0 if window.revise else window.lateness
        closed = []
        for number in sorted(state.open):
            samples = sorted(state.open[number], key=lambda sample: sample[0])
            due = window.end(number) + wait <= state.watermark
            if due and state.told.get(number) != len(samples):
                end = samples[-1][1] if window.kind == "count" else window.end(number)
                closed.append((key, end, tuple(value for _, _, value in samples), number in state.told))
                state.told[number] = len(samples)
        done = (state.watermark - window.lateness - window.size) // window.step + 1
        state.done = done if state.done is None else max(done, state.done)
        for number in [number for number in state.open if number < state.done]:
            del state.open[number]
            state.told.pop(number, None)
        return closed


@dataclass
class ReferenceSessions:
    """Sessions of one gap, cut where they get longer than the window's size."""

    window: Window
    late: int = 0
    keys: dict[int, _Key] = field(default_factory=dict)
    held: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def insert(self, key: int, ts: int, value: float, now: int) -> list[Closed]:
        state, window = self.keys.setdefault(key, _Key()), self.window
        held = self.held.setdefault(key, [])
        state.seen = now
        if state.watermark is not None and ts < state.watermark:
            is_over = ts + window.step + window.lateness <= state.watermark
            if is_over and not any(abs(other - ts) < window.step for other, _ in held):
                self.late += 1
                return []
        held.append((ts, value))
        state.watermark = ts if state.watermark is None else max(ts, state.watermark)
        return self._close(key)

    def tick(self, now: int) -> list[Closed]:
        closed = []
        for key, state in self.keys.items():
            silent = now - state.seen - self.window.idle
            if self.held[key] and silent > 0:
                assert state.watermark is not None
                if state.watermark + silent >= min(self._due(run) for run in self._runs(key)):
                    state.watermark += silent
                    state.seen = now - self.window.idle
                    closed += self._close(key)
        return closed

    def cut(self, keys: list[int], ahead_of: int = BEGINNING) -> list[Closed]:
        closed = []
        for key in keys:
            state = self.keys.get(key)
            if state is not None and state.watermark is not None and state.watermark > ahead_of:
                state.watermark = FOREVER
                closed += self._close(key)
                del self.keys[key], self.held[key]
        return closed

    def _runs(self, key: int) -> list[list[tuple[int, float]]]:
        runs: list[list[tuple[int, float]]] = []
        for sample in sorted(self.held[key], key=lambda one: one[0]):
            run = runs[-1] if runs else None
            if run and sample[0] - run[-1][0] < self.window.step and sample[0] - run[0][0] < self.window.size:
                run.append(sample)
            else:
                runs.append([sample])
        return runs

    def _due(self, run: list[tuple[int, float]]) -> int:
        return min(run[-1][0] + self.window.step, run[0][0] + self.window.size) + self.window.lateness

    def _close(self, key: int) -> list[Closed]:
        closed = []
        watermark = self.keys[key].watermark
        assert watermark is not None
        for run in self._runs(key):
            if self._due(run) > watermark:
                break
            closed.append((key, run[-1][0], tuple(value for _, value in run), False))
            for sample in run:
                self.held[key].remove(sample)
        return closed


@dataclass
class ReferenceSliding:
    """A window that ends at each sample in order."""

    window: Window
    late: int = 0
    keys: dict[int, _Key] = field(default_factory=dict)
    held: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def insert(self, key: int, ts: int, value: float, now: int) -> list[Closed]:
        state = self.keys.setdefault(key, _Key())
        held = self.held.setdefault(key, [])
        in_order = state.watermark is None or ts >= state.watermark
        if not in_order:
            assert state.watermark is not None
            if ts <= state.watermark - self.window.size:
                self.late += 1
            else:
                held.append((ts, value))
            return []
        state.watermark = ts
        held.append((ts, value))
        held[:] = [sample for sample in held if sample[0] > ts - self.window.size]
        return [(key, ts, tuple(one for _, one in sorted(held, key=lambda sample: sample[0])), False)]

    def cut(self, keys: list[int], ahead_of: int = BEGINNING) -> list[Closed]:
        for key in keys:
            watermark = self.keys[key].watermark if key in self.keys else None
            if watermark is not None and watermark > ahead_of:
                del self.keys[key], self.held[key]
        return []

    def tick(self, now: int) -> list[Closed]:
        return []


def reference(window: Window) -> ReferenceWindows | ReferenceSessions | ReferenceSliding:
    if window.kind == "session":
        return ReferenceSessions(window)
    return ReferenceSliding(window) if window.kind == "sliding" else ReferenceWindows(window)
