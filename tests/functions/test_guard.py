"""What the guard may not kill does not end the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgefn.functions.guard import Guard
from edgefn.functions.workers import Program, Worker
from edgefn.metrics import Metrics

TEMPLATE = 4_100_000  # more than any pid there is


class _Pool:
    def __init__(self, *workers: Worker) -> None:
        self.template_pid = TEMPLATE
        self.workers = {one.number: one for one in workers}


def write_process(proc: Path, pid: int, parent: int, group: int) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (a b) S {parent} {group} {' '.join('0' * 18)} 100 0")


def refuse(*_: Any) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_what_belongs_to_another_user_is_left_alone_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "kill", refuse)
    write_process(tmp_path, TEMPLATE + 1, TEMPLATE, TEMPLATE + 1)
    guard = Guard(_Pool(), Metrics(), tmp_path)  # type: ignore[arg-type]
    guard.look()
    guard.look()
    assert [record.getMessage() for record in caplog.records] == [
        f"process {TEMPLATE + 1}, which a handler has left behind, belongs to another user and goes on"
    ]


def test_a_group_of_which_only_another_user_s_processes_are_left_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)
    for number in range(17):
        write_process(tmp_path, TEMPLATE + 2 + number, TEMPLATE + 1, TEMPLATE + 1)
    worker = Worker(1, Program("a.py", "a.py", "1", False, 1 << 20), pid=TEMPLATE + 1)
    Guard(_Pool(worker), Metrics(), tmp_path).look()  # type: ignore[arg-type]
    assert worker.cause == "processes"
