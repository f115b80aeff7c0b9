"""A damaged store gives up what can be read of it: under the old keys, once, and with an account of the rest."""

# ruff: noqa: ASYNC221
# A test has nothing else to do meanwhile.
from __future__ import annotations

import asyncio
import dataclasses
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.errors import StoreDamagedError, StoreDiskError, StoreError
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit, Item, Refused, Spent, Store, asides, opening, salvage, schema
from edgefn.store.files import wal_path
from edgefn.store.ledger import Era, Ledger
from edgefn.store.schema import PAGE_SIZES, beginning
from edgefn.store.source import Source
from tests.store.helpers import START, TurnedClock, a_store, item

PAGE = PAGE_SIZES[0]
VERSION_1 = Path(__file__).with_name("version1.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def filled(path: Path, n: int = 600, size: int = 150) -> dict[str, bytes]:
    """Three streams of different priority, some items gone already, and state of two handlers; what is left, by key."""
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        for start in range(0, n, 50):
            items = [item(f"s{i % 3}", start + i, priority=i % 3, size=size) for i in range(50)]
            await store.commit(Commit(items, [CheckpointPart("a", "delta", b"%d" % start)]))
        await store.commit(Commit(checkpoint=[CheckpointPart("b", "snapshot", b"B" * 100)]))
        gone = await store.read("cloud", 40)
        for uplink in ("cloud", "archive"):
            await store.acknowledge(uplink, [one.id for one in gone])
        some = await store.read("archive", 30)
        await store.acknowledge("archive", [one.id for one in some])
        return {one.key: one.payload for one in await everything(store)}


async def everything(store: Store, uplink: str = "cloud") -> list[Item]:
    return await store.read(uplink, 1_000_000, max_bytes=1 << 40)


def spoil(path: Path, *pages: int) -> None:
    """Overwrites pages (from 1), as a worn block of a card does."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(random.Random(page).randbytes(PAGE))
    asides.accuse(path, "a test")


def root(path: Path, table: str) -> int:
    with sqlite3.connect(path) as db:
        [found] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()
    return int(found)


def leaves(path: Path, table: str) -> list[int]:
    """The pages that hold rows of a table: the children of its root."""
    data = path.read_bytes()
    start = (root(path, table) - 1) * PAGE
    assert data[start] == 5, "the table is to have one level of inner pages"
    cells = int.from_bytes(data[start + 3 : start + 5], "big")
    pointers = [start + 12 + 2 * n for n in range(cells)]
    return [
        int.from_bytes(data[(at := start + int.from_bytes(data[p : p + 2], "big")) : at + 4], "big") for p in pointers
    ]


async def test_all_but_the_damaged_pages_comes_over_under_the_old_keys(path: Path) -> None:
    before = await filled(path)
    spoil(path, leaves(path, "item_1")[2], leaves(path, "item_0")[1])
    metrics = Metrics()
    async with a_store(path, uplinks=("cloud", "archive"), metrics=metrics) as store:
        after = {one.key: one.payload for one in await everything(store)}
        assert after.items() <= before.items()
        missing = len(before) - len(after)
        assert 0 < missing < 80
        assert (store.report.salvaged, store.report.damaged) == (len(after), missing)
        assert metrics.counters["outbox.dropped.damaged"] == missing
        assert metrics.counters["store.salvaged"] == len(after)
        drops = Counter[str]()
        for drop in await store.drops():
            drops[drop.reason] += drop.n
        assert drops == {"damaged": missing}
        assert (await store.stats("cloud")).rows == len(after)
        assert await store.load_checkpoint() == {"a": [b"%d" % n for n in range(0, 600, 50)], "b": [b"B" * 100]}
        [new] = await store.commit(Commit([item("s0")]))
        assert (new.seq, new.epoch) == (1, store.epoch)
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert store.report.clean
        assert (await store.stats("cloud")).rows == len(after) + 1


async def test_each_uplink_gets_what_it_did_not_have_and_nothing_else(path: Path) -> None:
    await filled(path)
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        before = [one.key for one in await everything(store, "archive")]
    spoil(path, root(path, "item_0"))
    async with a_store(path, uplinks=("archive", "cloud")) as store:
        after = [one.key for one in await everything(store, "archive")]
        assert set(after) == {one for one in before if "/s0/" not in one}
        oldest_first = await store.read("archive", 1000, max_bytes=1 << 40, oldest_first=True)
        assert [int(one.payload[5:].split(b"}")[0]) for one in oldest_first] == sorted(
            int(one.payload[5:].split(b"}")[0]) for one in oldest_first
        )


async def test_where_nobody_knows_whose_the_items_are_all_uplinks_get_them(path: Path) -> None:
    before = await filled(path)
    spoil(path, root(path, "uplink"))
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert {one.key for one in await everything(store)} == set(before)
        assert {one.key for one in await everything(store, "archive")} == set(before)


async def test_items_whose_stream_lost_its_name_go_out_under_one_that_says_so(path: Path) -> None:
    before = await filled(path)
    async with a_store(path, uplinks=None) as store:
        epoch = store.epoch
    spoil(path, root(path, "stream"))
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        after = await everything(store)
        assert sorted(one.payload for one in after) == sorted(before.values())
        assert {one.stream for one in after} == {"salvaged/1", "salvaged/2", "salvaged/3"}
        assert {one.epoch for one in after} == {epoch}


async def test_without_accounts_the_numbers_of_a_stream_still_go_on(path: Path) -> None:
    before = await filled(path)
    spoil(path, root(path, "account"))
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert {one.key for one in await everything(store)} == set(before)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
    db.close()
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert (store.report.lost, store.report.torn) == (0, False)


async def test_a_first_page_that_cannot_be_read_is_replaced_and_kept(path: Path) -> None:
    before = await filled(path)
    first = random.Random(1).randbytes(PAGE)
    spoil(path, 1)
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert {one.key: one.payload for one in await everything(store)} == before
        aside = store.report.set_aside
        assert aside is not None
        assert aside.with_name(aside.name + ".page1").read_bytes().startswith(first)


async def test_what_stood_in_the_log_only_is_taken_over_too(path: Path) -> None:
    async with a_store(path) as store:
        for n in range(50):
            await store.commit(Commit([item("a", n)]))
        copies = {file: file.read_bytes() for file in (path, wal_path(path))}
    for file, data in copies.items():
        file.write_bytes(data)
    spoil(path, beginning(PAGE)[1][5])  # of the table of saved state, which no commit has written
    async with a_store(path) as store:
        assert store.report.salvaged == 50
        assert store.report.set_aside is not None


@pytest.mark.parametrize("point", range(6))
async def test_an_interrupted_salvage_goes_on_where_it_was_and_takes_nothing_twice(
    path: Path, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await filled(path)
    spoil(path, leaves(path, "item_1")[2])
    monkeypatch.setattr(salvage, "BATCH", 100)

    class PowerCut(BaseException):
        pass

    batches = 0

    def cut(done: int, of: int) -> None:
        nonlocal batches
        batches += 1
        if batches == point:
            raise PowerCut

    if point:
        with pytest.raises(PowerCut):
            opening.open_database(path, Ledger(), TurnedClock().now(), progress=cut)
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        after = [one.key for one in await everything(store)]
        assert len(after) == len(set(after))
        assert len(after) + store.report.damaged == len(before)
        assert asides.pending(path) == []
        assert len(asides.all_of(path)) == 1
        assert {drop.reason for drop in await store.drops()} == {"damaged"}


KILLED = """
import os, signal, sys
from pathlib import Path
from edgefn.store import salvage
from edgefn.store.ledger import Ledger
from edgefn.store.opening import open_database
salvage.BATCH = 20
left = int(sys.argv[2])
def progress(done, of):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
db, report = open_database(Path(sys.argv[1]), Ledger(), 0, progress=progress)
"""


async def test_kill_9_in_the_middle_again_and_again(path: Path) -> None:
    before = await filled(path)
    spoil(path, leaves(path, "item_2")[0])
    killed = 0
    for n in range(1, 9):
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(n)], check=False, capture_output=True)
        killed += done.returncode == -9
    assert killed >= 5
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        after = [one.key for one in await everything(store)]
        assert len(after) == len(set(after))
        counted = sum(drop.n for drop in await store.drops())
        assert len(after) + counted == len(before)
        assert store.report.lost == 0


async def test_where_there_is_no_room_the_next_start_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await filled(path)
    spoil(path, leaves(path, "item_1")[2])
    monkeypatch.setattr(salvage, "BATCH", 50)
    original = salvage._Salvage._take

    def full(self: object, priority: int, row: tuple[object, ...]) -> None:
        if priority == 0:
            raise sqlite3.OperationalError("database or disk is full")
        original(self, priority, row)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(salvage._Salvage, "_take", full)
        async with a_store(path, uplinks=("cloud", "archive")) as store:
            first = [one.key for one in await everything(store)]
            assert not any("/s0/" in one for one in first)
            assert len(asides.pending(path)) == 1
            sent = await store.read("cloud", 100)
            for uplink in ("cloud", "archive"):
                await store.acknowledge(uplink, [one.id for one in sent])
            [new] = await store.commit(Commit([item("s1")]))
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        after = [one.key for one in await everything(store)]
        assert len(set(after)) == len(after)
        assert len(after) + len(sent) + store.report.damaged == len(before) + 1
        assert not set(after) & {one.key for one in sent}
        assert new.key in after
        assert asides.pending(path) == []


async def test_a_power_cut_between_the_two_renames_loses_no_log(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item("a", n) for n in range(50)]))
        copies = {file: file.read_bytes() for file in (path, wal_path(path))}
    for file, data in copies.items():
        file.write_bytes(data)
    path.rename(path.with_name("store.db.damaged-20250615T150640Z"))
    async with a_store(path) as store:
        assert store.report.salvaged == 50


async def test_the_newest_two_are_kept(path: Path) -> None:
    clock = TurnedClock()
    for _ in range(4):
        path.write_bytes(b"no store " * 999)
        clock.turn(60)
        async with a_store(path, clock=clock) as store:
            newest = store.report.set_aside
    names = [file.name for file in asides.all_of(path)]
    assert names == ["store.db.damaged-20250615T150940Z-salvaged", "store.db.damaged-20250615T151040Z-salvaged"]
    assert newest is not None
    assert newest.name == names[1]


async def test_one_set_aside_before_the_clock_was_right_is_not_the_oldest(path: Path) -> None:
    clock = TurnedClock()
    for ns in (clock.ns, clock.ns + 10**12, 0):
        clock.ns = ns
        path.write_bytes(b"no store " * 999)
        async with a_store(path, clock=clock) as store:
            assert store.report.set_aside is not None
            assert store.report.set_aside.exists()


async def test_damage_that_was_a_glitch_costs_nothing(path: Path) -> None:
    before = await filled(path)
    asides.accuse(path, "database disk image is malformed")
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert store.report.set_aside is None
        assert len(await everything(store)) == len(before)
    assert not asides.suspect(path).exists()


def test_a_copy_has_the_identity_of_the_original_also_without_its_epoch(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    asyncio.run(filled(path, 100))
    for damage in (lambda: None, lambda: spoil(path, root(path, "meta")), lambda: spoil(path, 1)):
        damage()
        shutil.copyfile(path, copy)
        with Source(path) as one, Source(copy) as other:
            assert one.identity == other.identity


def test_neither_a_letter_nor_zeros_are_taken_for_a_store(tmp_path: Path) -> None:
    for data in (b"Dear Sir or Madam, " * 2000, bytes(50_000), b"short"):
        path = tmp_path / "file"
        path.write_bytes(data)
        with pytest.raises(StoreError, match="nothing of it can be read as a store"), Source(path):
            pass
        assert path.read_bytes() == data


class Template:
    """A filled store; a class, so that a failing example does not print all of it."""

    def __init__(self, content: bytes, items: dict[str, bytes]) -> None:
        self.content, self.items = content, items


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_whatever_is_overwritten_nothing_is_invented_or_twice_and_all_is_accounted_for(
    template: Template, data: st.DataObject
) -> None:
    content, before = template.content, template.items
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(PAGE, len(spoiled) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=9)) * data.draw(st.sampled_from([1, 1, 600]))
        spoiled[at : at + len(junk)] = junk[: len(spoiled) - at]
    if data.draw(st.booleans()):
        del spoiled[data.draw(st.integers(PAGE, len(spoiled))) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        path.write_bytes(spoiled)
        asides.accuse(path, "a test")
        async with a_store(path, uplinks=("cloud", "archive")) as store:
            after = await everything(store)
            keys = [one.key for one in after]
            assert len(keys) == len(set(keys))
            named = {one.key: one.payload for one in after if not one.stream.startswith("salvaged/")}
            assert set(named.values()) <= set(before.values())
            await store.commit(Commit([item("s0")]))
        async with a_store(path, uplinks=("cloud", "archive")) as store:
            assert store.report.clean


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    path = tmp_path_factory.mktemp("template") / "store.db"
    before = asyncio.run(filled(path, 300))
    return Template(path.read_bytes(), before)


async def test_damage_met_while_open_ends_the_store_and_the_next_start_mends_it(path: Path) -> None:
    before = await filled(path)
    page = leaves(path, "item_1")[1]
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        spoil(path, page)
        asides.suspect(path).unlink()
        watching = asyncio.create_task(store.damage())
        with pytest.raises(
            StoreDamagedError, match=r"store\.db: .*it is damaged: restart edgefn, which sets the file aside"
        ):
            await everything(store)
        with pytest.raises(StoreDamagedError):
            await watching
    assert asides.suspect(path).exists()
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        after = await everything(store)
        assert 0 < len(after) == len(before) - store.report.damaged
    assert not asides.suspect(path).exists()


async def test_eras_dead_letters_and_what_was_sent_today_come_along(path: Path) -> None:
    async with a_store(path) as store:
        stored = await store.commit(Commit([item("a", n) for n in range(9)]))
        await store.acknowledge(
            "cloud", [], refused={stored[0].id: Refused("bad", "it says")}, spent=Spent(day=20_000, bytes=77)
        )
        await store._database.transact(add_era)
        await store.commit(Commit([item("b", n) for n in range(9)]))
        before = await everything(store)
        letters = await store.dead(9)
    spoil(path, 1)
    async with a_store(path) as store:
        assert store.report.damaged == 0
        assert [(one.key, one.ts, one.unsynced, one.made) for one in await everything(store)] == [
            (one.key, one.ts, one.unsynced, one.made) for one in before
        ]
        assert {one.stream for one in before if one.unsynced} == {"b"}
        assert [dataclasses.replace(one, id=0) for one in await store.dead(9)] == [
            dataclasses.replace(one, id=0) for one in letters
        ]
        assert await store.spent("cloud") == Spent(day=20_000, bytes=77)
        assert await store.requeue(None) == 1
        assert len(await everything(store)) == len(before) + 1


def add_era(db: sqlite3.Connection, ledger: Ledger) -> None:
    db.execute("INSERT INTO era VALUES (7, 'boot', 5, 0, 1000)")
    ledger.eras[7] = Era(7, "boot", 5, False, 1000)
    ledger.era = 7


async def test_a_store_of_version_1_is_taken_over_too(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1.read_text())
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    path.rename(path.with_name("store.db.damaged-20250101T000000Z"))
    async with a_store(path, uplinks=("cloud", "lab")) as store:
        assert store.report.salvaged == 6
        assert {one.epoch for one in await everything(store)} == {"02fda134"}
        assert await store.load_checkpoint() == {"keys rooms/+": [b"state"]}
        assert [(drop.reason, drop.n) for drop in await store.drops()] == [("refused", 1)]


async def test_a_copy_of_the_store_itself_is_no_source(path: Path, tmp_path: Path) -> None:
    await filled(path)
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    with pytest.raises(StoreError, match=r"copy\.db: it is a copy of this store itself"):
        opening.salvage_into(path, copy, 0)


async def test_a_file_from_elsewhere_is_taken_once_and_leaves_the_state_alone(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    before = await filled(other)
    async with a_store(path, uplinks=("archive", "cloud")) as store:
        own = await store.commit(Commit([item("own")], [CheckpointPart("a", "snapshot", b"own")]))
    assert opening.salvage_into(path, other, 0).items == len(before)
    again = opening.salvage_into(path, other, 0)
    assert (again.before, again.items) == (True, 0)
    async with a_store(path, uplinks=("archive", "cloud")) as store:
        assert store.report.clean
        after = await everything(store)
        assert {one.key: one.payload for one in after if one.stream != "own"} == before
        assert [one.key for one in after if one.stream == "own"] == [own[0].key]
        assert await store.load_checkpoint() == {"a": [b"own"]}
    assert other.exists()


async def test_damage_on_a_disk_that_takes_no_writes_is_a_failing_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite takes what a failing disk gives it for damage."""
    await filled(path)
    page = leaves(path, "item_1")[1]
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        spoil(path, page)
        asides.suspect(path).unlink()
        monkeypatch.setattr(asides, "accuse", lambda *_: False)
        with pytest.raises(StoreDiskError, match=r"disk I/O error .*malformed"):
            await everything(store)


@pytest.mark.parametrize("byte", [b"x", b"\x80"])
async def test_a_spoilt_name_of_a_column_is_damage_though_sqlite_finds_none(path: Path, byte: bytes) -> None:
    before = await filled(path)
    content = path.read_bytes()
    at = content.index(b"CREATE TABLE item_1")
    at = content.index(b"stream INTEGER", at)
    path.write_bytes(content[:at] + byte + content[at + 1 :])
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert store.report.set_aside is not None
        assert {one.key: one.payload for one in await everything(store)} == before


async def test_an_epoch_that_is_there_and_cannot_be_found_is_damage(path: Path) -> None:
    """One letter, and the names in `meta` are out of order: a search then misses what reading all of it shows."""
    before = await filled(path)
    content = path.read_bytes()
    assert content.count(b"clean1") == 1
    path.write_bytes(content.replace(b"clean1", b"zlean1"))
    async with a_store(path, uplinks=("cloud", "archive")) as store:
        assert store.report.set_aside is not None
        assert {one.key: one.payload for one in await everything(store)} == before


async def test_the_account_of_an_item_that_waits_twice_is_believed(tmp_path: Path) -> None:
    """One uplink refused it and gets it again, and the other has not had it yet: two rows of one number."""
    async with a_store(tmp_path / "old.db", uplinks=("a", "b")) as store:
        [stored] = await store.commit(Commit([item("s")]))
        await store.acknowledge("a", [stored.id], refused={stored.id: Refused("no")})
        await store.requeue(None)
    found = await asyncio.to_thread(opening.salvage_into, tmp_path / "new.db", tmp_path / "old.db", START)
    assert (found.items, found.damaged, found.counted) == (2, 0, True)
