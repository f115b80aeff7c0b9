"""What the engine hands on for merging makes of two rows the one that all their samples give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.engine.nodes import Context, Output
from edgefn.events import to_json, unpack
from edgefn.manifest import Manifest
from edgefn.mergeable import Mergeable
from edgefn.summaries import RELATIVE_ERROR, ZERO_ERROR
from tests.engine.harness import NOW, SECOND, Bench, compiled

STATS = ("n", "mean", "min", "max", "sum", "std", "first", "last", "p95", "median")
SOURCE = f"""
from edgefn import summarize

both = summarize("t/+", "1s", {STATS}, fields=("a", "b_c"), on_full="thin")
mean = summarize("t/+", "1s", ("mean", "max"), fields="a", on_full="thin")
rest = summarize("t/+", "1s", {STATS}, fields=("a", "b_c"))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return compiled(Path(tmp_path_factory.mktemp("merging")), "merging", SOURCE)


def put_out(file: Manifest, windows: list[list[tuple[float, float]]]) -> dict[str, list[Output]]:
    bench, outputs = Bench(file), {"both": [], "mean": [], "rest": []}
    bench.context = Context(lambda output: outputs[output.node.name].append(output), lambda _: None, lambda: None)
    for w, samples in enumerate(windows):
        for i, (a, b) in enumerate(samples):
            bench.feed("t/k", {"a": a, "b_c": b}, w * SECOND + i)
    bench.feed("t/k", {"a": 0.0, "b_c": 0.0}, 1000 * SECOND)
    return outputs


def rows(outputs: list[Output]) -> list[Mergeable]:
    made = []
    for output in outputs:
        names = [field.name for field in output.node.manifest.outputs]
        for i, packed in enumerate(output.summaries):
            values = dict(zip(names, output.values[:, i].tolist(), strict=True))
            body = {"key": "k", "samples": int(output.length[i]), "values": values}
            made.append(Mergeable.of(to_json(body), packed, int(output.ts[i])))
    return made


_number = st.floats(-1e6, 1e6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(_number, _number), min_size=1, max_size=5), min_size=1, max_size=4))
def test_merged_rows_say_what_all_samples_say(file: Manifest, windows: list[list[tuple[float, float]]]) -> None:
    outputs = put_out(file, windows)
    mine = rows(outputs["both"])
    merged = mine[0]
    for other in mine[1:]:
        merged = merged | other
    assert (merged.start, merged.end) == (NOW, NOW + len(windows) * SECOND)
    assert merged.rows == len(windows)
    values: dict[str, Any] = merged.values()
    for name, x in zip(("a", "b_c"), np.array([pair for one in windows for pair in one]).T, strict=True):
        plain = {
            "n": x.size, "min": x.min(), "max": x.max(), "first": x[0], "last": x[-1],
        }  # fmt: skip
        assert {stat: values[f"{name}_{stat}"] for stat in plain} == plain
        largest = np.abs(x).max()
        for stat, exact in (("mean", x.mean()), ("std", x.std()), ("sum", x.sum())):
            assert values[f"{name}_{stat}"] == pytest.approx(exact, rel=1e-9, abs=1e-9 * (1 + largest))
        for stat, q in (("p95", 95), ("median", 50)):
            near = abs(values[f"{name}_{stat}"] - np.percentile(x, q))
            assert near <= largest * (RELATIVE_ERROR + ZERO_ERROR) + 1e-12


def test_only_what_the_statistics_need_is_handed_on_and_nothing_without_thin(file: Manifest) -> None:
    outputs = put_out(file, [[(21.5, 1.0)] * 60])
    assert all(not output.summaries for output in outputs["rest"])
    [mean] = [packed for output in outputs["mean"] for packed in output.summaries]
    assert len(mean) < 60
    assert unpack(mean)[4] == [60, 21.5, 21.5, 21.5]
