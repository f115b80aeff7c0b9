"""Files appear under their real name when they are complete, whatever happened before."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from edgefn.errors import NotConnectedError
from edgefn.sinks.file import FileOptions, FileSink
from tests.sinks.helpers import stored
from tests.store.helpers import TurnedClock


def a_sink(folder: Path, clock: TurnedClock, **options: float) -> FileSink:
    return FileSink(FileOptions(str(folder), **options), gateway="gw-1", clock=clock)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def seqs(file: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in file.read_text().splitlines()]


async def test_a_file_is_complete_when_it_is_large_or_old_or_the_sink_is_closed(tmp_path: Path) -> None:
    clock = TurnedClock()
    sink = a_sink(tmp_path, clock, rotate_bytes=250, rotate_s=60)
    await sink.connect()
    await sink.send([stored(1)])
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.ndjson.part"]
    await sink.send([stored(2)])
    assert names(tmp_path) == ["gw-1-20250615T150640Z-1.ndjson"]
    await sink.send([stored(3)])
    clock.turn(60)
    await sink.send([stored(4)])
    await sink.close()
    assert names(tmp_path) == [
        f"gw-1-{stamp}.ndjson" for stamp in ("20250615T150640Z-1", "20250615T150640Z-2", "20250615T150740Z-1")
    ]
    assert [seqs(tmp_path / name) for name in names(tmp_path)] == [[1, 2], [3], [4]]


async def test_a_file_is_complete_in_time_when_nothing_comes(tmp_path: Path) -> None:
    sink = a_sink(tmp_path, TurnedClock(), rotate_s=0.01)
    await sink.connect()
    await sink.send([stored(1)])
    async with asyncio.timeout(5):
        while names(tmp_path) != ["gw-1-20250615T150640Z-1.ndjson"]:
            await asyncio.sleep(0)
    await sink.close()


async def test_what_a_crash_left_is_completed_without_the_torn_line(tmp_path: Path) -> None:
    whole = b'{"seq":1}\n{"seq":2}\n'
    (tmp_path / "gw-1-20250101T000000Z-1.ndjson.part").write_bytes(whole + b'{"seq":' + b"3" * 100_000)
    (tmp_path / "gw-1-20250101T000000Z-2.ndjson.part").write_bytes(b'{"se')
    (tmp_path / "gw-1-2-20250101T000000Z-1.ndjson.part").write_bytes(b"of another gateway")
    sink = a_sink(tmp_path, TurnedClock())
    await sink.connect()
    assert names(tmp_path) == ["gw-1-2-20250101T000000Z-1.ndjson.part", "gw-1-20250101T000000Z-1.ndjson"]
    assert (tmp_path / "gw-1-20250101T000000Z-1.ndjson").read_bytes() == whole
    await sink.close()


async def test_items_are_synced_before_they_count_as_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    sink = a_sink(tmp_path, TurnedClock())
    await sink.connect()
    await sink.send([stored(1)])
    assert synced[-1] == next(tmp_path.iterdir()).stat().st_size
    await sink.close()


async def test_a_batch_that_fails_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = a_sink(tmp_path, TurnedClock())
    await sink.connect()
    await sink.send([stored(1)])

    def no_room(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(NotConnectedError, match="No space left on device; the file sink needs"):
            await sink.send([stored(2)])
    await sink.connect()
    await sink.send([stored(2)])
    await sink.close()
    assert [seq for name in names(tmp_path) for seq in seqs(tmp_path / name)] == [1, 2]


async def test_a_payload_with_line_breaks_stays_on_one_line(tmp_path: Path) -> None:
    sink = a_sink(tmp_path, TurnedClock())
    await sink.connect()
    await sink.send([stored(1, payload=b'{\n "a": "b\\nc"\n}')])
    await sink.close()
    [line] = next(tmp_path.iterdir()).read_text().splitlines()
    assert json.loads(line)["data"] == {"a": "b\nc"}
