"""A Parquet file has every item of its lines, and appears whole or not at all, wherever the power goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.errors import AccessError
from edgefn.metrics import Metrics
from edgefn.sinks import parquet
from edgefn.sinks.envelope import envelope
from edgefn.sinks.file import FileOptions, FileSink
from tests.sinks.helpers import EPOCH, as_envelope, stored
from tests.store.helpers import TurnedClock

SUMMARY = {
    "ts": "2025-06-15T15:06:40Z",
    "handler": "minute",
    "key": "attic",
    "samples": 60,
    "window_s": 60.0,
    "values": {"mean": 21.5, "peak": None, "ok": True, "n": 60},
}


def lines(*payloads: Any) -> list[bytes]:
    return [envelope(stored(n, payload=json.dumps(one).encode())) + b"\n" for n, one in enumerate(payloads, 1)]


def table(folder: Path, made: list[bytes], rows_per_group: int = 5000) -> Any:
    parquet.write(iter(made), folder / "x.parquet", rows_per_group)
    return pq.read_table(folder / "x.parquet")


def test_a_summary_has_a_column_for_each_of_its_members(tmp_path: Path) -> None:
    [row] = table(tmp_path, lines(SUMMARY)).to_pylist()
    ts = row.pop("ts")
    assert (ts.timestamp(), ts.tzinfo is not None) == (1_750_000_000, True)
    assert row == {
        "id": f"gw-1/{EPOCH}/summary/minute/1",
        "gateway": "gw-1",
        "epoch": EPOCH,
        "stream": "summary/minute",
        "seq": 1,
        "unsynced": None,
        "handler": "minute",
        "key": "attic",
        "state": None,
        "samples": 60,
        "window_s": 60.0,
        "revision": None,
        "values": [("mean", 21.5), ("peak", None), ("ok", 1.0), ("n", 60.0)],
        "data": None,
    }


@pytest.mark.parametrize(
    "payload",
    [
        {"values": {"n": 2**53 + 1}},  # no double
        {"values": {"word": "open"}},
        {"values": {"a": 1}, "unit": "°C"},  # a member without a column
        {"values": {"a": 1}, "samples": "many"},
        {"values": [1, 2]},
        {"handler": "x"},
        7,
        None,
    ],
)
def test_what_no_column_can_hold_stays_json(tmp_path: Path, payload: Any) -> None:
    [row] = table(tmp_path, lines(payload)).to_pylist()
    assert json.loads(row["data"]) == payload
    assert row["values"] is None
    assert row["seq"] == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "values": st.dictionaries(
                    st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), max_size=3
                )
            },
            optional={
                "handler": st.text(max_size=4),
                "key": st.text(max_size=4),
                "state": st.sampled_from(["raised", "cleared"]),
                "samples": st.integers(0, 2**40),
                "window_s": st.floats(0, 1e6),
                "revision": st.just(True),
                "other": st.integers(),
            },
        ),
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_nothing_is_lost_on_the_way(tmp_path_factory: pytest.TempPathFactory, payloads: list[Any], group: int) -> None:
    made = lines(*payloads)
    found = table(tmp_path_factory.mktemp("parquet"), made, group)
    assert [as_envelope(row) for row in found.to_pylist()] == [json.loads(line) for line in made]


def test_times_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    line = lines(SUMMARY)[0].replace(b"1750000000000000000", b"1750000000123456789")
    assert table(tmp_path, [line])["ts"].cast("int64").to_pylist() == [1_750_000_000_123_456_789]


# As the file sink's format


def a_sink(folder: Path, metrics: Metrics | None = None, **options: Any) -> FileSink:
    return FileSink(
        FileOptions(str(folder), format="parquet", **options),  # type: ignore[arg-type]
        gateway="gw-1",
        clock=TurnedClock(),
        metrics=metrics,
    )


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def seqs(folder: Path) -> list[int]:
    """Of all that others may read, each item as often as it is there."""
    found: list[int] = []
    for file in sorted(folder.iterdir()):
        if file.suffix == ".parquet":
            found += pq.read_table(file)["seq"].to_pylist()
        elif file.suffix == ".ndjson":
            found += [json.loads(line)["seq"] for line in file.read_text().splitlines()]
    return found


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else: a process takes half a second to import Arrow."""

    def convert(lines: Path, target: Path) -> None:
        with lines.open("rb") as file:
            parquet.write(iter(file), target)

    monkeypatch.setattr(parquet, "convert", convert)


async def test_items_are_safe_in_lines_until_the_file_is_complete(tmp_path: Path) -> None:
    sink = a_sink(tmp_path, rotate_bytes=250)
    await sink.connect()
    await sink.send([stored(1)])
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.ndjson.part"]
    await sink.send([stored(2)])
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.parquet"]
    await sink.send([stored(3)])
    await sink.close()
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.parquet", "gw-1-20250615T150640Z-2.parquet"]
    assert seqs(tmp_path) == [1, 2, 3]


async def test_the_last_file_is_made_while_everything_is_told_to_end(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(lines(SUMMARY)[0] * 3000)
    converting = asyncio.create_task(asyncio.to_thread(parquet.convert, tmp_path / "lines", tmp_path / "x.parquet"))
    told = False
    while not converting.done() and not told:
        await asyncio.sleep(0)
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if "edgefn.sinks.parquet" in child.cmdline():
                    child.terminate()
                    told = True
    await converting
    assert told
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 3000


class PowerCutError(BaseException):
    """Nothing after it happens."""


STEPS = ["convert", "half", "os.rename", "unlink"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.usefixtures("in_this_process")
async def test_a_cut_at_any_step_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    def cut(real: Any) -> Any:
        def replaced(*arguments: Any, **options: Any) -> None:
            if moment == "after":
                real(*arguments, **options)
            raise PowerCutError

        return replaced

    def half(lines: Path, target: Path) -> None:
        target.write_bytes(b"PAR1" if moment == "before" else b"")
        raise PowerCutError

    sink = a_sink(tmp_path)
    await sink.connect()
    await sink.send([stored(1), stored(2)])
    with monkeypatch.context() as patch:
        if step == "half":
            patch.setattr(parquet, "convert", half)
        elif step == "convert":
            patch.setattr(parquet, "convert", cut(parquet.convert))
        elif step == "os.rename":
            patch.setattr(os, "rename", cut(os.rename))
        else:
            patch.setattr(Path, "unlink", cut(Path.unlink))
        with pytest.raises(PowerCutError):
            await sink.rotate()
    for file in tmp_path.glob("*.parquet"):  # what others may read is whole at all times
        assert pq.read_table(file).num_rows == 2
    after = a_sink(tmp_path)
    await after.connect()
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.parquet"]
    assert seqs(tmp_path) == [1, 2]
    await after.close()


async def test_what_cannot_be_converted_stays_json_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    sink = a_sink(tmp_path, metrics)
    await sink.connect()
    await sink.send([stored(1)])
    [part] = tmp_path.iterdir()
    part.write_bytes(part.read_bytes().replace(b'"seq":1', b'"seq":"one"'))
    await sink.close()
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.ndjson"]
    assert "stays JSON, since it cannot be made Parquet: pyarrow.lib.ArrowInvalid" in caplog.text
    assert metrics.counters == {"sink.file.failed.parquet": 1}


async def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "is_installed", lambda: False)
    sink = a_sink(tmp_path)
    assert [str(trouble) for trouble in sink.check(0)] == [parquet.MISSING]
    assert "pip install 'edgefn[parquet]'" in parquet.MISSING
    with pytest.raises(AccessError, match=r"edgefn\[parquet\]"):
        await sink.connect()
