"""What is remembered of a function, through the store and back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgefn.functions.sources import memory
from edgefn.functions.sources.contract import owner
from edgefn.functions.sources.memory import Memories
from edgefn.store import Commit
from edgefn.store.records import CheckpointPart
from edgefn.testing import ManualClock
from tests.functions.sources.helpers import Fired
from tests.store.helpers import a_store


class Bench:
    def __init__(self) -> None:
        self.fired, self.clock = Fired(), ManualClock()
        self.memories = Memories(self.clock, self.fired.save)

    def again(self) -> Memories:
        """After a restart."""
        memories = Memories(self.clock, self.fired.save)
        memories.restore(self.fired.saved())
        return memories


def identity(n: int) -> bytes:
    return n.to_bytes(16, "big")


def test_the_store_says_the_same_as_the_memory_and_stays_small():
    bench = Bench()
    known = bench.memories["f"]
    written = 0
    for n in range(20_000):
        bench.fired.parts.append(known.had(identity(n)))
        if n % 7 == 0:
            bench.fired.parts.append(known.reached("0 6 * * *", n))
        if n % 5000 == 0:
            known.keep(identity(0)[:4], [identity(one) for one in range(max(0, n - 100), n)])
        bench.clock.advance("3s")
        before = len(bench.fired.parts)
        bench.memories.tidy()
        written += sum(len(part.data) for part in bench.fired.parts[before:])
        if n % 1999 == 0:
            again = bench.again()["f"]
            assert known.files.keys() <= again.files.keys()
            assert again.moments == known.moments
            assert len(again.files) <= len(known.files) + 3 * 5000
    saved = bench.fired.saved()
    assert sum(map(len, saved.values())) < 6000
    assert written < 20_000 * 16 * 3


def test_what_comes_into_the_store_late_and_in_any_order_is_not_lost():
    chance = random.Random(5)
    bench = Bench()
    known = bench.memories["f"]
    late: list[CheckpointPart] = []
    for n in range(5000):
        late.append(known.had(identity(n)))
        bench.clock.advance("1s")
        bench.memories.tidy()
        if len(late) > 400:
            now = late[:200] + chance.sample(late[200:], 100)  # nothing is later than CERTAIN
            late = [part for part in late if part not in now]
            chance.shuffle(now)
            bench.fired.parts += now
            missing = {part.data for part in late}
            stored = bench.again()["f"].files.keys()
            for one in known.files:  # whatever is not stored comes again, and only that
                assert (one in stored) == (memory.pack([one, {}]) not in missing)


async def test_a_store_keeps_it(tmp_path: Path):
    bench = Bench()
    async with a_store(tmp_path / "edgefn.db") as store:
        for n in range(600):
            bench.clock.advance("3s")
            bench.memories.tidy()
            parts = *bench.fired.parts, bench.memories["f"].had(identity(n))
            bench.fired.parts.clear()
            await store.commit(Commit((), parts))
    async with a_store(tmp_path / "edgefn.db") as store:
        again = Memories(bench.clock, bench.fired.save)
        again.restore(await store.load_checkpoint())
        assert again["f"].files == bench.memories["f"].files
        await store.commit(Commit((), again.forget("f")))
        assert await store.load_checkpoint() == {}


def test_each_restart_takes_the_volumes_together():
    bench = Bench()
    for n in range(30):
        bench.memories = bench.again()
        bench.fired.parts.append(bench.memories["f"].had(identity(n)))
        if n % 10 == 9:
            bench.clock.advance("10m")
            bench.memories.tidy()
            assert len(bench.fired.saved()) == 2
    assert len(bench.again()["f"].files) == 30


def test_what_cannot_be_read_is_told_and_the_rest_is_kept(caplog: pytest.LogCaptureFixture):
    bench = Bench()
    good = bench.memories["f"].had(identity(1)).data
    bench.memories.restore({owner("f"): [b"\xff"], owner("f 3"): [good], "function f": [b"x"]})
    assert list(bench.memories["f"].files) == [identity(1)]
    assert "f: what is stored of its triggers (0) cannot be read" in caplog.text


def test_ten_thousand_files_fit_into_one_part():
    bench = Bench()
    known = bench.memories["f"]
    for n in range(memory.MAX_FILES):
        assert not known.is_full
        known.had(identity(n))
    assert known.is_full
    known.keep_places([identity(0)[:4]])
    bench.memories.tidy()
    bench.clock.advance("10m")
    bench.memories.tidy()
    assert [part.kind for part in bench.fired.parts] == ["snapshot", "drop"]
    assert bench.again()["f"].files == known.files


def test_a_moment_whose_run_is_not_stored_yet_is_not_taken_into_the_collection():
    bench = Bench()
    known = bench.memories["f"]
    bench.fired.parts.append(known.reached("0 6 * * *", 1))
    for n in range(memory.FEW):
        bench.fired.parts.append(known.had(identity(n)))
    bench.memories.tidy()
    bench.clock.advance("10m")
    late = known.reached("0 6 * * *", 2)
    bench.memories.tidy()
    assert bench.again()["f"].moments == {"0 6 * * *": 1}
    bench.fired.parts.append(late)
    assert bench.again()["f"].moments == {"0 6 * * *": 2}
