"""Recorded events through handlers: what comes out, when, and what is said of what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from edgefn.trial import loading
from edgefn.trial.calls import Here
from edgefn.trial.clock import ManualClock
from edgefn.trial.recording import BadLine, Recorded
from edgefn.trial.replay import Replay
from edgefn.trial.rows import Row, Told
from tests.cli.helpers import edgefn

START = 1_795_586_400_000_000_000  # 6 o'clock, 25 November 2026, UTC
SECOND = 10**9

HANDLERS = '''
"""A minute's total of each meter, and what Python makes of it."""
from edgefn import every, on, summarize

total = summarize("meters/{meter}", "1m", ("sum", "n"), fields="value")

@on(total)
def checked(event, ctx):
    ctx.publish("checked", event["values"]["sum"])
    print("a word")
    return {"double": 2 * event["values"]["sum"]}

@every("45s")
def beat(event):
    return 1

@on("meters/broken")
def broken(event):
    return event["value"] / 0
'''


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    file = tmp_path / "totals.py"
    file.write_text(HANDLERS)
    return file


def line(seconds: float, topic: str, payload: object) -> str:
    return json.dumps({"ts": (START + int(seconds * SECOND)) / SECOND, "topic": topic, "payload": payload})


def test_windows_close_and_timers_come_by_the_clock_of_the_recording(tmp_path: Path, handlers: Path):
    file = tmp_path / "a.ndjson"
    events = [line(0, "meters/a", 1), line(30, "meters/a", 2), line(100, "meters/a", 4), line(101, "else", 0)]
    file.write_text("\n".join(events) + "\n")
    result = edgefn("replay", file, "--handlers", handlers, "--json")
    assert result.exit_code == 0, result.output
    *rows, last = [json.loads(one) for one in result.stdout.splitlines()]
    seen = [(one["ts"][11:19], one["handler"], one.get("values", one.get("payload"))) for one in rows]
    assert seen == [
        ("06:00:45", "beat", 1),
        ("06:01:00", "total", {"sum": 3.0, "n": 2}),
        ("06:01:01", "checked", 3.0),  # published at that moment: the meter has been silent for a second
        ("06:01:00", "checked", {"double": 6.0}),
        ("06:01:30", "beat", 1),
        ("06:02:00", "total", {"sum": 4.0, "n": 1}),
        ("06:02:01", "checked", 4.0),
        ("06:02:00", "checked", {"double": 8.0}),
    ]
    counts = last["counts"]
    assert counts["events"] == 4
    assert counts["unheard"] == 1
    assert counts["handlers"]["total"] == {"events": 3, "rows": 2, "skipped": 0, "raised": 0}
    assert counts["handlers"]["beat"] == {"events": 2, "rows": 2, "skipped": 0, "raised": 0}
    assert result.stderr.count("checked: a word") == 2


def test_bad_lines_bad_payloads_and_handlers_that_raise_are_told_and_counted(tmp_path: Path, handlers: Path):
    file = tmp_path / "a.ndjson"
    events = [line(0, "meters/a", 1), "{", line(2, "meters/a", "x"), line(3, "meters/broken", {"value": 1})]
    file.write_text("\n".join([*events, line(1, "meters/a", 5)]) + "\n")
    result = edgefn("replay", file, "--handlers", handlers)
    assert result.exit_code == 1
    assert f"{file}:2: no JSON object" in result.stderr
    assert f"{file}:5: a message is 2.000 s earlier than one before it" in result.stderr
    assert "broken: ZeroDivisionError" in result.stderr
    assert "total            a" in result.stdout
    assert "sum=6  n=2" in result.stdout  # what came late was not too late
    for told in ("1 payloads failed: bad_json", "1 bad lines", "1 earlier"):
        assert told in result.stderr, told
    row = next(one for one in result.stderr.splitlines() if one.strip().startswith("broken  "))
    assert row.split() == ["broken", "1", "0", "0", "1"]


def test_tables_are_replayed_too(tmp_path: Path, handlers: Path):
    file = tmp_path / "a.csv"
    file.write_text("ts,value\n2026-11-25T06:00:00Z,1\n2026-11-25T06:00:10Z,2.5\n")
    result = edgefn("replay", file, "--handlers", handlers, "--topic", "meters/a", "--json")
    assert result.exit_code == 0, result.output
    assert '"values":{"sum":3.5,"n":2}' in result.stdout


def test_what_cannot_run_says_why(tmp_path: Path, handlers: Path):
    (tmp_path / "a.csv").write_text("when,value\n")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "bad.py").write_text("from edgefn import on\n@on('a/#/b')\ndef f(event): pass\n")
    for arguments, told in (
        ((tmp_path / "a.csv", "--handlers", handlers), "no column is called ts"),
        ((tmp_path / "a.txt", "--handlers", handlers), "a recording is called .ndjson or .csv"),
        ((tmp_path / "none.ndjson",), "does not exist"),
        ((tmp_path / "a.csv", "--handlers", tmp_path / "bad.py"), "bad.py:2: f: pattern 'a/#/b'"),
    ):
        result = edgefn("replay", *arguments)
        assert result.exit_code == 2, result.output
        assert told in result.output
        assert "Traceback" not in result.output


def replay(handlers: Path, messages: list[Recorded | BadLine], **options: object) -> tuple[Replay, list[Told]]:
    told: list[Told] = []

    def make_caller(clock: ManualClock) -> Here:
        return Here(clock, Path("none"), "gw")

    run = Replay(loading.load([handlers]), make_caller, told.append, **options)  # type: ignore[arg-type]
    for message in messages:
        run.take(message)
    run.finish()
    return run, told


def test_speed_is_kept_by_waiting_and_the_end_is_not_waited_for(handlers: Path):
    now, waits = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(round(seconds, 6))
        now += seconds

    messages: list[Recorded | BadLine] = [
        Recorded(START + at * SECOND, "meters/a", b"1") for at in (0, 10, 20, 15, 50)
    ]  # 45 s: the interval of a handler
    run, told = replay(handlers, messages, speed=10.0, monotonic=lambda: now, sleep=sleep)
    assert waits == [1.0, 1.0, 2.5, 0.5]
    assert run.counts.earlier == 1
    assert [one.values for one in told if isinstance(one, Row) and one.handler == "total"] == [{"sum": 5.0, "n": 5}]


def test_an_event_that_comes_after_its_window_is_late(handlers: Path):
    messages: list[Recorded | BadLine] = [Recorded(START + at * SECOND, "meters/a", b"1") for at in (0, 70, 5)]
    run, _ = replay(handlers, messages)
    assert (run.count().late, run.counts.earlier) == (1, 1)


def test_a_long_recording_takes_no_more_memory_than_a_short_one(tmp_path: Path):
    file = tmp_path / "totals.py"
    file.write_text(HANDLERS)
    kept = 0

    def told(one: Told) -> None:
        nonlocal kept
        kept += 1

    run = Replay(loading.load([file]), lambda clock: Here(clock, Path("none"), "gw"), told)

    def take(start: int, n: int) -> None:
        for at in range(start, start + n):
            run.take(Recorded(START + at * SECOND, f"meters/m{at % 3}", b"1"))

    take(0, 1000)
    tracemalloc.start()
    try:
        take(1000, 1000)
        before = tracemalloc.get_traced_memory()[0]
        take(2000, 4000)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert kept > 500


def test_ctrl_c_ends_it_with_the_counts_so_far(tmp_path: Path, handlers: Path):
    file = tmp_path / "a.ndjson"
    file.write_text("\n".join([line(0, "meters/a", 1), line(3600, "meters/a", 2)]) + "\n")
    command = [
        sys.executable,
        "-m",
        "edgefn",
        "replay",
        str(file),
        "--handlers",
        str(handlers),
        "--speed",
        "45",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert '"handler":"beat"' in process.stdout.readline()  # it runs, and waits
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert process.returncode == 130
    counts = json.loads(out.splitlines()[-1])["counts"]
    assert (counts["events"], counts["ended_early"]) == (1, True)
    assert "Traceback" not in said


def test_nothing_recorded_is_nothing_wrong(tmp_path: Path, handlers: Path):
    (tmp_path / "a.ndjson").write_text("")
    result = edgefn("replay", tmp_path / "a.ndjson", "--handlers", handlers)
    assert result.exit_code == 0
    assert "0 events" in result.stderr
