"""Calls in workers: one that does not come back costs itself, and the next one finds things as they were."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefn import loader
from edgefn.trial.clock import ManualClock
from edgefn.trial.rows import Failed, Row, Told
from edgefn.trial.trial import Trial
from edgefn.trial.workers import Workers

SOURCE = """
import os
from edgefn import on

@on("count", timeout="200ms")
def count(event, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    ctx.publish("counted", ctx.state["n"])
    if event.data == "loop":
        while True:
            pass
    if event.data == "exit":
        os._exit(7)
    if event.data == "kill":
        os.kill(os.getpid(), 9)
    if event.data == "close":
        os.closerange(3, 100)
        while True:
            pass
    return [ctx.state["n"], os.getpid()]

@on("print")
async def prints():
    print("no end", end="")
"""


@pytest.fixture
def printed() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def workers(tmp_path: Path, printed: list[tuple[str, str, str]]) -> Iterator[Workers]:
    made = Workers("gw", tmp_path, lambda *line: printed.append(line))
    yield made
    made.close()
    made.close()


def trial(tmp_path: Path, workers: Workers) -> tuple[Trial, list[Told]]:
    file = tmp_path / "counts.py"
    file.write_text(SOURCE)
    told: list[Told] = []
    return Trial([loader.load(file, tmp_path / "cache")], workers, ManualClock(), told.append), told


def test_what_does_not_come_back_leaves_no_trace_in_the_state(tmp_path: Path, workers: Workers):
    one, told = trial(tmp_path, workers)
    for payload in (b"1", b"loop", b"exit", b"kill", b"close", b"1"):
        one.publish("count", payload)
    failed = [row.error for row in told if isinstance(row, Failed)]
    assert failed == [
        "it took longer than its timeout of 0.2 s",
        "its process ended with status 7 before it returned; does it call os._exit?",
        "its process was ended by SIGKILL",
        "it closed its connection to edgefn",
    ]
    first, last = [row.values for row in told if isinstance(row, Row)]
    assert (first[0], last[0]) == (1, 2)
    for pid in (first[1], last[1]):
        assert pid != os.getpid()
    assert one.functions["count"].raised == 4


def test_what_is_printed_is_told_with_its_handler(
    tmp_path: Path, workers: Workers, printed: list[tuple[str, str, str]]
):
    one, _ = trial(tmp_path, workers)
    one.publish("print", b"")
    one.publish("print", b"")
    assert printed == [("prints", "info", "no end")] * 2


def test_nothing_of_it_is_left_when_it_is_closed(tmp_path: Path, workers: Workers, capfd: pytest.CaptureFixture[str]):
    one, told = trial(tmp_path, workers)
    one.publish("count", b"loop")
    one.publish("count", b"1")
    (row,) = [row for row in told if isinstance(row, Row)]
    workers.close()
    limit = time.monotonic() + 10
    while Path(f"/proc/{row.values[1]}").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    assert not Path(f"/proc/{row.values[1]}").exists()
    assert capfd.readouterr().err == ""


def test_a_file_that_cannot_be_imported_any_more(tmp_path: Path, workers: Workers):
    one, told = trial(tmp_path, workers)
    (tmp_path / "counts.py").write_text("import nothing_of_that_name")
    one.publish("count", b"1")
    (failed,) = told
    assert isinstance(failed, Failed)
    assert "nothing_of_that_name" in failed.error
