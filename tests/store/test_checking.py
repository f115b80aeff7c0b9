"""A store is looked over without being changed, and each thing that is wrong with it is named."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from edgefn.errors import StoreError
from edgefn.store import Commit, asides
from edgefn.store.checking import check
from edgefn.store.files import wal_path
from tests.store.helpers import a_store, item
from tests.store.test_salvage import filled, leaves, spoil


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def change(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


async def test_a_sound_store_has_no_findings_and_is_not_touched(path: Path) -> None:
    before = await filled(path)
    content = path.read_bytes()
    report = check(path)
    assert report.findings == []
    assert (report.rows, report.state_of, report.version) == (len(before), 2, 2)
    assert sum(rows for _, _, rows, _ in report.streams) == len(before)
    assert report.size == len(content)
    assert path.read_bytes() == content
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", "store.db.lock"]


async def test_what_stands_in_the_log_counts_and_stays_there(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([item("a", n) for n in range(50)]))
        copies = {file: file.read_bytes() for file in (path, wal_path(path))}
    for file, data in copies.items():
        file.write_bytes(data)
    report = check(path)
    assert (report.rows, report.findings) == (50, [])
    assert {file: file.read_bytes() for file in copies} == copies


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        ("UPDATE item_1 SET payload = x'00' WHERE id = (SELECT min(id) FROM item_1)", "1 rows of priority 1 fail"),
        ("DELETE FROM item_1 WHERE id = (SELECT min(id) FROM item_1)", "stream s1 .*: 1 rows are missing"),
        (
            "UPDATE account SET gone = gone + 2, crc = NULL WHERE id = 1",
            "stream s0 .*: 2 rows are there that should be gone",
        ),
        ("UPDATE account SET next_seq = 100, crc = NULL WHERE id = 1", "number 204 was never given out"),
        ("UPDATE account SET next_seq = 100 WHERE id = 1", "1 rows of the table account fail their checksum"),
        ("UPDATE stream SET name = 'other' WHERE id = 1", "1 rows of the table stream fail their checksum"),
        ("UPDATE checkpoint SET data = x'00' WHERE owner = 'b'", "the saved state of b fails"),
        ("DELETE FROM stream WHERE id = 1", "rows are of a stream that the store does not know"),
        ("DELETE FROM meta WHERE name = 'epoch'", "its epoch cannot be read"),
    ],
)
async def test_what_is_wrong_is_named(path: Path, sql: str, finding: str) -> None:
    await filled(path)
    change(path, sql)
    assert any(re.search(finding, one) for one in check(path).findings), check(path).findings


async def test_a_damaged_page_is_found_and_counted(path: Path) -> None:
    await filled(path)
    spoil(path, leaves(path, "item_1")[1])
    findings = check(path).findings
    assert "damage was met while it was open: the next start looks for it" in findings
    assert any(one.startswith("structure: ") for one in findings)
    assert any("rows are missing" in one for one in findings)


async def test_a_file_that_is_set_aside_and_not_taken_over_is_named(path: Path) -> None:
    await filled(path, 50)
    asides.set_aside(path, 0)
    await filled(path, 50)
    path.with_name("store.db.damaged-20250101T000000Z").touch()
    assert any("store.db.damaged-20250101T000000Z" in one for one in check(path).findings)


async def test_what_cannot_be_looked_at_is_said(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        check(path)
    async with a_store(path):
        with pytest.raises(StoreError, match=r"process \d+ has this store open; stop it first"):
            check(path)
    content = bytearray(path.read_bytes())
    path.write_bytes(b"nothing " * 2000)
    with pytest.raises(StoreError, match="nothing of it can be read"):
        check(path)
    assert path.read_bytes() == b"nothing " * 2000
    path.write_bytes(content)
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99"):
        check(path)
