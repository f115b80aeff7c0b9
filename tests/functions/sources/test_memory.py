"""What is remembered of a function, through the store and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.functions.sources import memory
from edgefn.functions.sources.contract import owner
from edgefn.functions.sources.memory import Memories, Memory
from edgefn.store import Commit
from edgefn.store.records import CheckpointPart
from tests.functions.sources.helpers import Fired
from tests.store.helpers import a_store


def identity(n: int) -> bytes:
    return n.to_bytes(16, "big")


def test_a_snapshot_and_deltas_say_the_same_as_the_memory():
    fired, known = Fired(), Memory("f")
    for n in range(3000):
        fired.parts.append(known.had(identity(n)))
        if n % 7 == 0:
            fired.parts.append(known.reached("0 6 * * *", n))
        if n % 1000 in (0, 1, 255, 999):
            again = Memory("f", fired.saved()[owner("f")])
            assert list(again.files) == list(known.files)
            assert again.moments == known.moments
    kinds = [part.kind for part in fired.parts]
    assert kinds[0] == "snapshot"
    assert 3 <= kinds.count("snapshot") <= 8  # fewer and fewer


def test_what_is_let_go_of_is_gone_from_the_store_as_well():
    fired, known = Fired(), Memory("f")
    fired.parts += [known.had(identity(n)) for n in range(10)]
    known.keep(identity(0)[:4], {identity(3)})
    fired.parts.append(known.had(identity(11)))
    assert list(Memory("f", fired.saved()[owner("f")]).files) == [identity(3), identity(11)]


async def test_a_store_keeps_it(tmp_path: Path):
    known = Memory("f")
    async with a_store(tmp_path / "edgefn.db") as store:
        for n in range(600):
            await store.commit(Commit((), (known.had(identity(n)),)))
    async with a_store(tmp_path / "edgefn.db") as store:
        memories = Memories()
        memories.restore(await store.load_checkpoint())
        assert memories["f"].files == known.files
        await store.commit(Commit((), (memories.forget("f"),)))
        assert owner("f") not in await store.load_checkpoint()


def test_what_cannot_be_read_is_told_and_the_rest_is_kept(caplog: pytest.LogCaptureFixture):
    good = Memory("f").had(identity(1)).data
    known = Memory("f", [b"\xff", good])
    assert list(known.files) == [identity(1)]
    assert "f: part 1 of what is stored cannot be read" in caplog.text


def test_ten_thousand_files_take_a_snapshot_that_can_be_read_again():
    known = Memory("f")
    for n in range(memory.MAX_FILES):
        assert not known.is_full
        part = known.had(identity(n))
    assert known.is_full
    known.keep(b"none", ())
    known.keep_places([identity(0)[:4]])
    known._deltas = memory.MAX_FILES
    part = known.reached("* * * * *", 1)
    assert part == CheckpointPart(owner("f"), "snapshot", part.data)
    assert Memory("f", [part.data]).files == known.files
