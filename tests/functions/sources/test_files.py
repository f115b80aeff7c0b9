"""Files that appear: real ones in a real folder, on a clock that is turned by hand."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from edgefn.events import to_json
from edgefn.functions.sources import files as module
from edgefn.functions.sources import memory
from edgefn.functions.sources.files import Files
from edgefn.functions.sources.memory import Memories
from edgefn.metrics import Metrics
from edgefn.testing import ManualClock
from edgefn.triggers import OnFile
from tests.functions.sources.helpers import Fired, function


class Bench:
    """One life of a gateway with functions that watch."""

    def __init__(self, folder: Path, *triggers: OnFile, before: Bench | None = None) -> None:
        self.folder = folder
        self.fired, self.clock, self.metrics = Fired(), ManualClock(), Metrics()
        self.memories = Memories(self.clock, self.fired.save)
        if before is not None:
            self.memories.restore(before.fired.saved())
            self.fired.parts = list(before.fired.parts)
        self.files = Files(self.fired, self.clock, self.metrics, self.memories, self.fired.has_room)
        self.files.plan([function("f", *(triggers or [OnFile(str(folder), "*.csv")]))])

    async def come(self, duration: str = "60s") -> list[str]:
        """Lets time pass, and returns the names of what was handed over."""
        self.fired.all.clear()
        self.clock.advance(duration)
        await self.files.look()
        self.due = await self.files.offer()
        return self.fired.keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def put(folder: Path, name: str, text: str = "1,2\n", age: int = 0) -> Path:
    file = folder / name
    file.write_text(text)
    os.utime(file, ns=(0, 1_790_000_000_000_000_000 - age * 1_000_000_000))
    return file


async def test_what_is_there_at_the_start_comes_once_oldest_first(folder: Path):
    for name, age in (("b.csv", 5), ("a.csv", 1), ("c.csv", 9), ("d.txt", 0), (".e.csv", 0)):
        put(folder, name, age=age)
    (folder / "f.csv").mkdir()
    os.mkfifo(folder / "g.csv")
    bench = Bench(folder)
    assert await bench.come() == ["c.csv", "b.csv", "a.csv"]
    name, occurrence = bench.fired.all[0]
    assert (name, occurrence.topic, occurrence.ts) == ("f", f"file/{folder}/c.csv", bench.clock.now())
    assert occurrence.payload == to_json({"path": f"{folder}/c.csv", "size": 4, "mtime": "2026-09-21T14:13:11.000Z"})
    assert await bench.come() == []
    put(folder, "h.csv")
    assert await bench.come() == ["h.csv"]
    assert bench.metrics.counters["triggers.fired.file"] == 4


async def test_a_restart_hands_nothing_over_again(folder: Path):
    put(folder, "a.csv")
    bench = Bench(folder)
    await bench.come()
    put(folder, "b.csv")
    bench = Bench(folder, before=bench)
    assert await bench.come() == ["b.csv"]
    bench = Bench(folder, before=bench)
    assert await bench.come() == []
    bench.fired.parts.clear()  # the store was lost
    assert await Bench(folder, before=bench).come() == ["a.csv", "b.csv"]


async def test_a_file_that_is_written_anew_is_a_new_one(folder: Path):
    put(folder, "a.csv")
    bench = Bench(folder)
    await bench.come()
    put(folder, "a.csv", "1,2\n3,4\n")
    assert await bench.come() == ["a.csv"]
    put(folder, "a.csv", "5,6\n7,8\n", age=3)
    assert await bench.come() == ["a.csv"]
    put(folder, "other", "5,6\n7,8\n", age=3).rename(folder / "a.csv")
    assert await bench.come() == ["a.csv"]
    assert len({part.data for part in bench.fired.parts}) == 4


async def test_a_file_that_is_being_written_waits_until_it_is_complete(folder: Path):
    put(folder, "b.csv")
    with (folder / "a.csv").open("w") as file:
        file.write("1")
        file.flush()
        bench = Bench(folder)
        assert await bench.come() == ["b.csv"]
        assert bench.due == bench.clock.monotonic() + module.WRITTEN
        assert await bench.come("1s") == []
        assert await bench.come("30s") == []
        file.write("2\n")
    assert await bench.come("15s") == ["a.csv"]
    assert bench.fired.data()["size"] == 3


async def test_a_file_that_goes_before_its_turn_is_nobody_s(folder: Path):
    with (folder / "a.csv").open("w"):
        bench = Bench(folder)
        assert await bench.come() == []
        (folder / "a.csv").unlink()
    assert await bench.come("2s") == []


async def test_what_the_kernel_tells_is_looked_at_without_the_rest(folder: Path):
    bench = Bench(folder)
    await bench.come()
    put(folder, "a.csv")
    put(folder, "b.csv")
    bench.files._note([(module.Change.added, f"{folder}/a.csv"), (module.Change.deleted, f"{folder}/b.csv")])
    assert await bench.come("1s") == ["a.csv"]
    assert await bench.come("60s") == ["b.csv"]


async def test_links_are_left_out_wherever_they_lead(folder: Path, caplog: pytest.LogCaptureFixture):
    secret = put(folder.parent, "secret.csv")
    put(folder, "a.csv")
    (folder / "b.csv").symlink_to(secret)
    (folder / "c.csv").symlink_to("a.csv")
    (folder / "d.csv").symlink_to("nowhere")
    bench = Bench(folder)
    assert await bench.come() == ["a.csv"]
    assert await bench.come() == []
    assert caplog.text.count("symbolic links are left out") == 1
    (folder.parent / "link").symlink_to(folder)
    assert await Bench(folder.parent / "link").come() == ["a.csv"]


async def test_a_name_that_json_cannot_say_is_told(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / os.fsdecode(b"\xff.csv")).write_text("")
    put(folder, "ä +#.csv")
    assert await Bench(folder).come() == ["ä +#.csv"]
    assert "files whose name is no UTF-8 are left out; rename them" in caplog.text


async def test_a_folder_that_is_not_there_is_told_once_and_looked_for(folder: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)  # no warning: it may be meant for later
    bench = Bench(folder / "sub")
    assert await bench.come() == []
    assert bench.due == bench.clock.monotonic() + module.MISSING
    assert await bench.come("30s") == []
    assert caplog.text.count("no such file or directory") == 1
    assert f"{folder}/sub, which is watched for f" in caplog.text
    (folder / "sub").mkdir()
    put(folder / "sub", "a.csv")
    assert await bench.come("30s") == ["a.csv"]
    (folder / "sub").rename(folder / "gone")
    assert await bench.come() == []
    (folder / "gone").rename(folder / "sub")
    assert await bench.come() == []  # a disk that is plugged in again


async def test_a_full_queue_loses_no_file(folder: Path):
    for n in range(250):
        put(folder, f"{n:03}.csv", age=1000 - n)
    bench = Bench(folder)
    came = []
    for _ in range(30):
        bench.fired.room = 10
        came += await bench.come("250ms")
    assert came == [f"{n:03}.csv" for n in range(250)]


async def test_an_older_file_that_is_found_later_goes_first(folder: Path):
    put(folder, "new.csv", age=1)
    bench = Bench(folder)
    bench.fired.room = 0
    await bench.come()
    put(folder, "old.csv", age=9)
    bench.fired.room = 2
    assert await bench.come() == ["old.csv", "new.csv"]


async def test_a_queue_that_has_room_again_need_not_be_asked(folder: Path):
    put(folder, "a.csv")
    bench = Bench(folder)
    bench.fired.room = 0
    assert await bench.come() == []
    bench.fired.room = 1
    bench.files.wake()
    assert await bench.come("0s") == ["a.csv"]


async def test_more_than_may_wait_are_found_later(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_WAITING", 20)
    for n in range(100):
        put(folder, f"{n:03}.csv", age=1000 - n)
    bench = Bench(folder)
    came = []
    for _ in range(20):
        bench.fired.room = 7
        came += await bench.come("250ms")
    assert came == [f"{n:03}.csv" for n in range(100)]


async def test_files_that_are_gone_are_forgotten_when_there_are_many(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "MAX_FILES", 50)
    bench = Bench(folder)
    put(folder, "stays.csv")
    await bench.come()
    for n in range(200):
        file = put(folder, f"{n}.csv")
        came = await bench.come()
        if not came:
            came = await bench.come("30s")  # there was no room, and now those that are gone are forgotten
        assert came == [file.name]
        file.unlink()
        assert len(bench.memories["f"].files) <= 50
    assert await Bench(folder, before=bench).come() == []


async def test_too_many_that_stay_make_new_ones_wait_and_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(memory, "MAX_FILES", 10)
    monkeypatch.setattr(module, "CROWDED", 8)
    for n in range(12):
        put(folder, f"{n:02}.csv", age=100 - n)
    bench = Bench(folder)
    assert len(await bench.come()) == 10
    for _ in range(5):
        assert await bench.come() == []
    assert caplog.text.count("f: 12 files lie in what it watches") == 1
    for n in range(10):
        (folder / f"{n:02}.csv").unlink()
    assert await bench.come() == ["10.csv", "11.csv"]


async def test_two_functions_and_two_patterns(folder: Path):
    put(folder, "a.csv")
    bench = Bench(folder)
    one = function("f", OnFile(str(folder), "*.csv"), OnFile(str(folder), "a*"))
    two = function("g", OnFile(str(folder), "*"))
    bench.files.plan([one, two])
    await bench.come()
    assert sorted(bench.fired.names) == ["f", "g"]
    put(folder, "b.txt")
    bench.files.plan([one])
    assert await bench.come("1s") == []
    bench.files.plan([one, two])
    assert await bench.come("1s") == ["b.txt"]


async def test_a_file_that_waits_for_a_function_that_goes_is_let_go_of(folder: Path):
    put(folder, "a.csv")
    bench = Bench(folder)
    bench.fired.room = 0
    await bench.come()
    bench.files.plan([])
    bench.fired.room = 1
    assert await bench.come() == []
    assert bench.due is None


# With the kernel


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 20)
    monkeypatch.setattr(module, "GATHER", 40)


async def until_came(bench: Bench, n: int) -> None:
    async with asyncio.timeout(10):
        while len(bench.fired.all) < n:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quick")
async def test_the_kernel_tells_of_files_and_of_a_folder_that_comes_back(folder: Path):
    bench = Bench(folder)
    task = asyncio.create_task(bench.files.run())
    try:
        put(folder, "a.csv")
        await until_came(bench, 1)
        put(folder, "b.csv")
        await until_came(bench, 2)
        put(folder.parent, "c.csv").rename(folder / "c.csv")
        await until_came(bench, 3)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        while bench.files._folders[str(folder)].inode != module.ABSENT:
            await asyncio.sleep(0.01)
        folder.mkdir()
        put(folder, "d.csv")
        bench.clock.advance("30s")
        bench.files.wake()
        await until_came(bench, 4)
        put(folder, "e.csv")
        await until_came(bench, 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sorted(bench.fired.keys) == [f"{letter}.csv" for letter in "abcde"]
