"""What is wrong with the folder of a store is said before a gateway runs, with what to do about it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sqlite3
from pathlib import Path

import pytest

from edgefn.store import place
from tests.store.helpers import a_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edgefn.db"


def fatal(path: Path, ballast: int = 0) -> list[str]:
    return [str(trouble) for trouble in place.look(path, ballast) if trouble.fatal]


def test_a_good_place_has_no_findings_and_is_left_as_it_was(path: Path) -> None:
    assert fatal(path) == []
    assert not path.parent.exists()
    path.parent.mkdir()
    assert fatal(path) == []
    assert list(path.parent.iterdir()) == []


def test_a_file_where_the_folder_should_be(path: Path) -> None:
    path.parent.touch()
    assert "is not a folder" in fatal(path)[0]
    assert "is not a folder" in fatal(path.parent / "deeper" / "edgefn.db")[0]


@pytest.mark.parametrize(
    ("number", "call", "said"),
    [
        (errno.EROFS, "write", "mounted read-only"),
        (errno.ENOSPC, "write", "the disk is full: make room"),
        (errno.EACCES, "write", "run this as the user that runs edgefn"),
        (errno.EIO, "fsync", "cannot be synced to the disk .*kernel log"),
        (errno.ENOLCK, "flock", "cannot be locked .*needs a local disk, such as ext4"),
    ],
)
def test_what_the_disk_refuses_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str, said: str
) -> None:
    path.parent.mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    where = {"write": "tempfile.TemporaryFile", "fsync": "os.fsync", "flock": "fcntl.flock"}[call]
    monkeypatch.setattr(where, refuse)
    [finding] = fatal(path)
    assert re.search(said, finding), finding


def test_a_full_disk_is_a_finding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "free_room", lambda _: 5 << 20)
    assert fatal(path, ballast=0) == []
    assert "only 5242880 bytes are free" in fatal(path, ballast=8 << 20)[0]


def test_another_program_s_database_and_a_newer_store(path: Path) -> None:
    async def make() -> None:
        async with a_store(path):
            pass

    asyncio.run(make())
    assert fatal(path) == []
    for pragma, said in (("user_version = 99", "has version 99"), ("application_id = 7", "of another program")):
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA {pragma}")
        db.close()
        assert said in fatal(path)[0]
    path.write_bytes(b"a damaged one")
    assert fatal(path) == []  # a start mends it


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("tmpfs", "is in memory"),
        ("overlay", "upper layer is often memory"),
        ("nfs4", "locks and fsync may not hold"),
        ("vfat", "a power cut may cost the whole file"),
        ("ext4", None),
    ],
)
def test_doubtful_file_systems_are_warned_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str | None
) -> None:
    monkeypatch.setattr(place, "_kind", lambda _: kind)
    warnings = [str(trouble) for trouble in place.look(path, 0) if not trouble.fatal]
    assert (said in warnings[0]) if said else warnings == []


def test_the_type_of_the_innermost_mount_counts(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:5 / /media/my\\040disk rw,nosuid shared:3 - vfat /dev/sdb1 rw\n"
        "3 1 0:6 / /media rw - tmpfs tmpfs rw\n"
    )
    for folder, kind in (("/media/my disk/a", "vfat"), ("/media/other", "tmpfs"), ("/mediator", "ext4")):
        assert place._kind(Path(folder), mounts) == kind


def test_a_store_that_waits_to_be_taken_over_is_warned_of(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("edgefn.db.damaged-20250101T000000Z").touch()
    assert any("the next start takes over" in str(trouble) for trouble in place.look(path, 0))
