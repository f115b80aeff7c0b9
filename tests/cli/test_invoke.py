"""One handler, once: what came of it, and a clear word for whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgefn.gateway import loading
from edgefn.trial import invoke as trial
from edgefn.trial.invoke import Asked, own_frames
from edgefn.trial.loading import load
from tests.cli.helpers import edgefn

PYTHON = '''
"""Handlers that do well, and others."""
import os
import sys

from edgefn import every, on


@on("doors/{door}")
async def good(event, ctx):
    await ctx.publish(f"lights/{event.key.door}", {"on": event["open"]}, qos=1)
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    await ctx.forward({"n": 1})
    ctx.invoke(beat, {"x": 1})
    print("a word")
    ctx.log.warning("another")
    return event.key


@every("5m")
def beat(event):
    return event.topic


@on("a")
def raises(event):
    return helper(event)


def helper(event):
    return int(str(event["x"]) + "!")


@on("a", timeout="100ms")
def loops(event):
    while True:
        pass


@on("a", timeout="100ms")
async def loops_too(event):
    while True:
        pass


@on("a")
def quits(event):
    sys.exit(3)


@on("a")
def vanishes(event):
    os._exit(3)


@on("a")
def strange(event):
    return {"self": object()}


@on("a", memory="16MB")
def hungry(event):
    return len(bytearray(1 << 30))


@on("a")
def busy(event, ctx):
    for number in range(2000):
        ctx.publish("b", number)


@on("a")
def chatty(event):
    for number in range(100_000):
        print(number, "x" * 90)
'''

COMPILED = '''
"""Rooms."""
from edgefn import aggregate, anomaly, count, filter, transform, tumbling


@filter("rooms/{room}")
def plausible(temperature):
    return temperature < 50


@aggregate(plausible, tumbling("1m"))
def mean(temperature) -> float:
    return temperature.mean()


@aggregate(plausible, count(10))
def ten(temperature) -> float:
    return temperature.mean()


@anomaly(plausible, threshold=30, enabled=False)
def hot(temperature) -> float:
    return temperature


@transform(plausible)
def picky(temperature) -> float:
    if temperature < 0:
        raise ValueError("too cold")
    return 2 * temperature


@transform("spin")
def spins(value) -> float:
    while value > 0:
        value += 1.0
    return value
'''


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "python.py"
    file.write_text(PYTHON)
    return file


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    file = tmp_path / "compiled.py"
    file.write_text(COMPILED)
    return file


def test_what_a_python_handler_did_is_shown(python: Path):
    arguments = ("--event", '{"open": true}', "--topic", "doors/hall", "--state", '{"n": 4}')
    result = edgefn("invoke", f"{python}:good", *arguments)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:4] == ["good", "on", "doors/hall:", "done"]
    assert lines[1:] == [
        ["published", "lights/hall", '{"on":true}', "qos=1"],
        ["forwarded", "summary/good", "hall", '{"n":1}'],
        ["invoked", "beat", '{"x":1}'],
        ["returned", '"hall"'],
        ["state", '{"n":5}'],
    ]
    assert "good: a word" in result.stderr
    assert "good: another" in result.stderr


def test_the_same_as_json_with_the_event_in_a_file(python: Path, tmp_path: Path):
    (tmp_path / "event.json").write_text('{"open": false}')
    result = edgefn("invoke", f"{python}:good", "--event", tmp_path / "event.json", "--json")
    told = json.loads(result.stdout)
    assert told["topic"] == "doors/door"
    assert told["published"] == [{"topic": "lights/door", "payload": {"on": False}, "qos": 1, "retain": False}]
    assert (told["returned"], told["state"], told["error"]) == ("door", {"n": 1}, "")
    assert told["output"] == ["a word", "another"]
    assert 0 < told["seconds"] < 10


def test_one_that_nothing_but_time_starts_needs_no_event(python: Path):
    assert 'returned   "every/5m"' in edgefn("invoke", f"{python}:beat").stdout


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("good", "KeyError: 'open' is not in the event on doors/door, which has x"),
        ("loops", "it took longer than its timeout of 0.1 s"),
        ("loops_too", "it took longer than its timeout of 0.1 s"),
        ("quits", "it called sys.exit(3)"),
        ("vanishes", "its process ended with status 3 before it returned"),
        ("strange", "what it returned cannot be written as JSON"),
        ("hungry", "it wanted more memory than its limit"),
        ("raises", "ValueError: invalid literal for int() with base 10: '1!'"),
    ],
)
def test_whatever_a_python_handler_does_ends_in_a_clear_message(python: Path, name: str, told: str):
    result = edgefn("invoke", f"{python}:{name}", "--event", '{"x": 1}')
    assert result.exit_code == 1
    assert told in result.stderr
    assert "edgefn/functions" not in result.stderr  # of a traceback, what is not the author's own
    assert "edgefn/trial" not in result.stderr


def test_the_traceback_names_the_author_s_lines(python: Path):
    result = edgefn("invoke", f"{python}:raises", "--event", '{"x": 1}')
    assert "in raises\n    return helper(event)\n" in result.stderr
    assert "in helper\n" in result.stderr


def test_a_flood_of_output_is_cut(python: Path):
    result = edgefn("invoke", f"{python}:chatty", "--event", "{}")
    assert result.exit_code == 0
    assert len(result.stderr) < 100_000
    assert "99500 more lines are left out" in result.stderr


def test_of_many_messages_the_first_are_shown(python: Path):
    result = edgefn("invoke", f"{python}:busy")
    assert result.exit_code == 1
    assert "more than 1000 publications in one invocation" in result.stderr
    assert result.stdout.count("  published  b  ") == 50
    assert "… and 950 more" in result.stdout


@pytest.mark.parametrize(
    ("name", "event", "told"),
    [
        ("plausible", '{"temperature": 20}', "keeps"),
        ("plausible", '{"temperature": 60}', "leaves out"),
        ("mean", '{"temperature": 20}', [{"value": 20}]),
        ("mean", '{"temperature": 60}', "the filter plausible leaves it out"),
        ("mean", '{"wet": "x"}', "plausible skips it: it has no number for temperature; it has wet (a text)"),
        ("mean", "{}", "plausible skips it: it has no number for temperature; it has nothing"),
        ("mean", '"wet"', "the payload cannot be decoded: not_an_object"),
        ("ten", '{"temperature": 20}', "no row: its window takes 10 samples"),
        ("hot", '{"temperature": 20}', "no alert: the score is below the threshold of 30"),
        ("hot", '{"temperature": 40}', [{"score": 40, "value": 40, "raised": True}]),
        ("picky", '{"temperature": 20}', [{"value": 40}]),
        ("picky", '{"temperature": -1}', "picky raised an exception on temperature=-1"),
    ],
)
def test_what_comes_of_one_event_in_the_engine(compiled: Path, name: str, event: str, told: object):
    from edgefn.trial.once import run

    (manifest,) = load([compiled])
    answer = run(manifest, name, Asked("rooms/attic", event.encode()))
    assert {row["key"] for row in answer.rows} <= {"attic"}
    if isinstance(told, list):
        assert [row["values"] for row in answer.rows] == told
        return
    verdict = {True: "keeps", False: "leaves out", None: ""}[answer.kept]
    assert str(told) in (answer.error, answer.note, verdict) or answer.error.startswith(str(told))
    assert answer.rows == []


@pytest.mark.parametrize(
    ("name", "event", "status", "told"),
    [
        ("mean", '{"temperature": 20}', 0, 'room  {"value":20.0}'),
        ("picky", '{"temperature": -1}', 1, 'raise ValueError("too cold")\nValueError: too cold'),
        ("spins", "7", 1, "it ran for longer than 1 s"),
    ],
)
def test_a_compiled_handler_runs_in_a_process_of_its_own(compiled: Path, name: str, event: str, status: int, told: str):
    result = edgefn("invoke", f"{compiled}:{name}", "--event", event)
    assert result.exit_code == status, result.output
    assert told in result.output
    assert "edgefn/trial" not in result.output


def test_what_cannot_be_asked_for(python: Path, compiled: Path, tmp_path: Path):
    (tmp_path / "broken.py").write_text("from edgefn import on\n@on('a'\n")
    for arguments, told in (
        ((f"{compiled}",), "compiled.py has 6 handlers; write which"),
        ((f"{compiled}:none",), "has no handler 'none'; it has plausible, mean"),
        ((f"{compiled}:mean", "--state", "{}"), "mean is compiled; --state is for Python handlers"),
        ((f"{compiled}:mean", "--topic", "a"), "mean listens to rooms/{room}, which a does not match"),
        ((f"{python}:good", "--topic", "a"), "good listens to doors/{door}, which a does not match"),
        ((f"{python}:good", "--event", "{"), "--event: {: not JSON (Input data was truncated), and there is no file"),
        ((f"{python}:good", "--event", "on"), "a text in JSON stands in double quotes"),
        ((f"{python}:good", "--state", "[]"), "an object of names and values is expected"),
        ((tmp_path / "none.py",), "there is no file"),
        ((tmp_path / "broken.py",), "broken.py:2: not valid Python"),
    ):
        result = edgefn("invoke", *arguments)
        assert result.exit_code == 2, result.output
        assert told in result.output
        assert "Traceback" not in result.output


def test_a_file_that_loops_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "LOAD_TIMEOUT", 1.0)
    (tmp_path / "a.py").write_text("while True: pass\n")
    result = edgefn("invoke", tmp_path / "a.py")
    assert result.exit_code == 2
    assert "it did not load within 1 s" in result.output


def test_the_frames_of_others_are_cut_out_of_a_traceback():
    text = (
        "Traceback (most recent call last):\n"
        '  File "/lib/runner.py", line 1, in run\n    go()\n    ~~^^\n'
        '  File "/h/mine.py", line 2, in f\n    json.loads("{")\n'
        '  File "/lib/json.py", line 3, in loads\n    raise Oh\nOh: no\nand more\n'
    )
    assert own_frames(text, "/h/mine.py") == (
        'Traceback (most recent call last):\n  File "/h/mine.py", line 2, in f\n    json.loads("{")\nOh: no\nand more\n'
    )
    assert own_frames(text, "/h/other.py") == ""


def test_a_pattern_has_a_topic_of_its_own():
    assert trial.topic_of("edgefn/+/event/{room}/#") == "edgefn/x/event/room/x"
