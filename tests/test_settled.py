"""A file is left alone while somebody has it open for writing, and while it changes where nobody can be asked."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from edgefn import settled
from edgefn.clock import NS
from edgefn.settled import QUIET, Settling, is_being_written
from edgefn.testing import ManualClock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.csv"
    path.write_text("a,b\n")
    return path


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, command: int, argument: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(settled.fcntl, "fcntl", refuse)


def test_a_file_is_being_written_as_long_as_a_writer_has_it_open(file: Path):
    assert not is_being_written(file)
    with file.open("a") as writer:
        assert is_being_written(file)
        writer.write("1,2\n")
        assert is_being_written(file)
    assert not is_being_written(file)


def test_readers_do_not_count_and_a_look_leaves_nothing_behind(file: Path):
    with file.open() as reader:
        assert not is_being_written(file)
        assert reader.read() == "a,b\n"
    with file.open("a"):  # nobody's lease is in its way
        pass
    assert signal.getsignal(signal.SIGURG) in (signal.SIG_DFL, signal.SIG_IGN)


def test_what_is_not_there_or_is_no_file_is_not_being_written(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe"):
        assert not is_being_written(path)


def test_where_nobody_can_be_asked_a_file_is_settled_when_it_stays_as_it_is(file: Path, no_leases: None):
    clock = ManualClock(now=0)
    look = Settling(clock)
    assert look.is_being_written(file)
    clock.advance(QUIET / NS / 2)
    assert look.is_being_written(file)
    file.write_text("a,b\n1,2\n")
    clock.advance(QUIET / NS)
    assert look.is_being_written(file), "it has changed since the look before"
    clock.advance(QUIET / NS)
    assert not look.is_being_written(file)
    assert not look._seen
    assert look.is_being_written(file), "what is looked at anew is waited for anew"
    file.unlink()
    assert not look.is_being_written(file)
    assert not look._seen


def test_where_nobody_can_be_asked_a_file_of_long_ago_is_settled_at_once(file: Path, no_leases: None):
    look = Settling(ManualClock(now=10 * NS))
    os.utime(file, ns=(0, 10 * NS - QUIET))
    assert not look.is_being_written(file)
    os.utime(file, ns=(0, 10 * NS - QUIET + 1))
    assert look.is_being_written(file)


def test_what_is_remembered_is_bounded(tmp_path: Path, no_leases: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settled, "MAX_SEEN", 3)
    look = Settling(ManualClock(now=0))
    for n in range(5):
        (tmp_path / f"{n}.csv").touch()
        assert look.is_being_written(tmp_path / f"{n}.csv")
    assert len(look._seen) == 3
