"""Batches of events as columns: what travels from one handler to the next inside the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgefn.fields import LATEST
from edgefn.manifest import MAX_COLUMNS

NO_ROWS = np.zeros(0, np.int32)


@dataclass(slots=True)
class Frame:
    """Rows `sel[:n]` of columns that several handlers share; a filter narrows `sel` and copies nothing.

    ts: (rows,) int64 ns since the epoch; key: (rows,) int32; present: (rows,) int64, bit c set where column c has a
    value; columns: (columns, rows) float64.
    """

    n: int
    sel: npt.NDArray[np.int32]
    ts: npt.NDArray[np.int64]
    key: npt.NDArray[np.int32]
    present: npt.NDArray[np.int64]
    columns: npt.NDArray[np.float64]

    def select(self, n: int, sel: npt.NDArray[np.int32]) -> Frame:
        return Frame(n, sel, self.ts, self.key, self.present, self.columns)


class Table:
    """Collects the decoded events of one source, row by row or array by array, until they are taken as a frame."""

    def __init__(self, fields: list[str], capacity: int = 1024) -> None:
        if len(fields) > MAX_COLUMNS:
            raise ValueError(f"handlers on one source name {len(fields)} fields; {MAX_COLUMNS} are possible")
        self.fields = fields
        self.latest = {name: number for number, name in enumerate(fields) if name.startswith(LATEST)}
        self.n = 0
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.ts = np.zeros(capacity, np.int64)
        self.key = np.zeros(capacity, np.int32)
        self.present = np.zeros(capacity, np.int64)
        self.columns = np.zeros((len(self.fields), capacity))
        self._all = np.arange(capacity, dtype=np.int32)

    def reserve(self, n: int) -> None:
        """Makes room for n more rows."""
        if self.n + n <= self.ts.size:
            return
        ts, key, present, columns, used = self.ts, self.key, self.present, self.columns, self.n
        self._allocate(max(used + n, 2 * ts.size))
        self.ts[:used], self.key[:used], self.present[:used] = ts[:used], key[:used], present[:used]
        self.columns[:, :used] = columns[:, :used]

    def take(self) -> Frame:
        """The rows collected so far. The frame is valid until rows are added again."""
        n, self.n = self.n, 0
        return Frame(n, self._all[:n], self.ts, self.key, self.present, self.columns)
