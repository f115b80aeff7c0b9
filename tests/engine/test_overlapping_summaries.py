"""A summary over windows that overlap is made of panes, and says what the samples say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefn.testing import Bench

SOURCE = """
from edgefn import hopping, summarize

room = summarize("rooms/+", hopping("10s", "2s"), fields="t", stats=("n", "mean", "min", "max", "std", "p50"))
"""


def test_each_window_holds_the_statistics_of_its_samples(tmp_path: Path) -> None:
    file = tmp_path / "rooms.py"
    file.write_text(SOURCE)
    bench = Bench(file)
    start = bench.clock.now()
    values = np.random.default_rng(1).normal(20, 5, 60)
    for i, value in enumerate(values):
        bench.publish("rooms/attic", {"t": float(value), "ts": start + i * 500_000_000})
    bench.clock.advance("30s")
    bench.advance("30s")
    rows = bench.rows("room")
    assert len(rows) > 15
    for row in rows:
        times = start + np.arange(60) * 500_000_000
        inside = values[(times >= row.ts - 10_000_000_000) & (times < row.ts)]
        assert row.values["n"] == inside.size
        for name in ("mean", "min", "max", "std"):
            assert row.values[name] == pytest.approx(getattr(np, name)(inside))
        assert row.values["p50"] == pytest.approx(np.percentile(inside, 50), rel=0.15)
