"""One bit of the file or of its log is another one: no wrong item, none twice, and none missing without a word."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest

from edgefn.errors import StoreDamagedError
from tests.faults import LONG, SEED
from tests.faults.books import Books, part
from tests.faults.power import content_of, put
from tests.faults.writer import the_store, work

FLIPS = 400 if LONG else 40  # in each of file and log
STEPS = 120

pytestmark = [pytest.mark.faults, pytest.mark.timeout(FLIPS + 60)]


def killed_at_work(folder: Path, books: Books) -> dict[str, bytes]:
    """What a writer leaves that never closed its store: the last megabytes are in the log."""
    notes = folder.with_name("notes")
    for seed in range(SEED * 1000 + 1, SEED * 1000 + 100):  # whether it closes is a matter of chance
        command = [sys.executable, "-m", "tests.faults.writer", str(folder), str(notes), str(seed)]
        ended = subprocess.run([*command, str(books.next), str(STEPS)], check=False)
        for line in notes.read_text().splitlines():
            books.enter(**json.loads(line))
        notes.unlink()
        if ended.returncode:
            return content_of(folder)
    raise AssertionError("a hundred writers closed their store")


def flipped(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


async def findings(folder: Path, books: Books) -> tuple[list[str], str]:
    """What is wrong, and how the store has taken it. Damage that only a call meets ends the store; the next start knows."""
    try:
        return await _findings(folder, books.copy())
    except StoreDamagedError:
        found, how = await _findings(folder, books.copy())
        return found, f"met, then {how}"


async def _findings(folder: Path, books: Books) -> tuple[list[str], str]:
    items, state = books.items(), books.state()
    async with the_store(folder) as store:
        report = store.report
        waiting = await store.read("cloud", 1_000_000, max_bytes=1 << 40, oldest_first=True)
        parts = (await store.load_checkpoint()).get("handler")  # None: damaged, dropped and counted
        drops = sum(drop.n for drop in await store.drops())
        # Nor is a key of before given to anything that comes after.
        await work(store, random.Random(1), books.next, 3, books.enter)
    there = Counter(map(part, waiting))
    keys = ((item.key, part(item), books.keys.get(item.key)) for item in waiting)
    given = set(books.keys.values())
    found = [
        *books.findings,
        *(
            f"{key} is {now} and was {before}"
            for key, now, before in keys
            if now != before and not ("/salvaged/" in key and now in given)  # the name of its stream was hit
        ),
    ]
    found += [f"{what} is there {n} times" for what, n in there.items() if n > 1]
    missing = items - there.keys() - books.sent
    told = report.set_aside is not None or report.torn
    if len(missing) > drops and not told:
        found.append(f"{len(missing)} are missing and {drops} counted: {sorted(missing)[:5]}")
    if parts is not None and list(map(int, parts)) != state and not told:
        found.append(f"the state is {parts} and was {state}")
    how = "set aside" if report.set_aside else "torn" if report.torn else "counted" if drops else "nothing"
    return found, how + (" with more missing than counted" if len(missing) > drops else "")


@pytest.mark.parametrize(("name", "closed"), [("edgefn.db", True), ("edgefn.db", False), ("edgefn.db-wal", False)])
async def test_a_flipped_bit_makes_no_wrong_item_and_loses_none_in_silence(
    name: str, closed: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    books = Books()
    content = killed_at_work(folder, books)
    async with the_store(folder) as store:
        assert not await books.check(store)
    if closed:
        content = content_of(folder)
    rng = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    silent = []
    for number in range(FLIPS):
        put({**content, name: flipped(content[name], rng)}, folder)
        try:
            wrong, how = await findings(folder, books)
        except Exception as error:  # damage that is taken for something else
            where = traceback.extract_tb(error.__traceback__)[-1]
            wrong, how = [f"{error!r} at {where.filename}:{where.lineno}"], ""
        if wrong:
            silent.append((number, wrong[:2]))
        outcomes["wrong" if wrong else how] += 1
    print(f"{name}, {'closed' if closed else 'killed'}: {dict(outcomes)}")  # noqa: T201
    assert not silent
