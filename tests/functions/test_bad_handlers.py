"""Whatever a Python handler does to itself, it is named, it ends among the dead letters, and the others go on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.functions.helpers import Functions, functions

GOOD = """
from edgefn import on

@on("good")
def good(event):
    return event["x"]
"""

HEAD = """
import os, sys, time, asyncio
from edgefn import on

@on("bad", timeout="600ms", retries=0, memory="32MB")
"""


async def still_works(fn: Functions) -> None:
    n = len([name for name, _ in fn.out.values if name == "good"])
    fn.invoke("good", b'{"x": 1}')
    await fn.until(lambda: len([name for name, _ in fn.out.values if name == "good"]) > n, "a good handler")


BAD = {
    "an endless loop": ("def bad():\n    while True: pass\n", "timeout", "longer than its timeout of 0.6 s"),
    "an endless loop in async code": ("async def bad():\n    while True: pass\n", "timeout", "longer than its timeout"),
    "waiting for ever": ("async def bad():\n    await asyncio.sleep(100)\n", "timeout", "longer than its timeout"),
    "a fork bomb": ("def bad():\n    while True: os.fork()\n", "failed", "processes; 15 are allowed"),
    "a memory bomb": (
        "def bad():\n    x = []\n    while True: x.append(bytes(1 << 20))\n",
        "memory",
        "more memory than its limit",
    ),
    "sys.exit": ("def bad():\n    sys.exit(3)\n", "failed", "it called sys.exit(3)"),
    "sys.exit in async code": ("async def bad():\n    sys.exit(3)\n", "failed", "it called sys.exit(3)"),
    "os._exit": ("def bad():\n    os._exit(4)\n", "failed", "ended with status 4 while it ran"),
    "a crash": ("def bad():\n    import ctypes; ctypes.string_at(0)\n", "failed", "died of SIGSEGV while it ran"),
    "closing all descriptors": (
        "def bad():\n    os.closerange(0, 256); time.sleep(5)\n",
        "failed",
        "closed its connection",
    ),
    "writing to edgefn's connection": (
        "def bad():\n    for fd in range(3, 20):\n        try: os.write(fd, b'\\xff' * 9)\n"
        "        except OSError: pass\n    time.sleep(5)\n",
        "failed",
        "wrote to edgefn's own connection",
    ),
    "a value that cannot be encoded": (
        "def bad():\n    return object()\n",
        "unfit",
        "what it returned cannot be written as JSON",
    ),
    "an exception": (
        "def bad(event):\n    return event['y']\n",
        "failed",
        "'y' is not in the event on bad, which has x",
    ),
    "recursion": ("def bad():\n    bad()\n", "failed", "RecursionError"),
    "an unknown topic": ("def bad(event, ctx):\n    ctx.publish('a/#', 1)\n", "failed", "contains a wildcard"),
}


@pytest.mark.parametrize("what", BAD)
async def test_is_contained_and_named(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    source, result, told = BAD[what]
    async with functions(tmp_path) as fn:
        fn.write("good.py", GOOD)
        fn.write("bad.py", HEAD + source)
        fn.invoke("bad", b'{"x": 1}', topic="bad", durable=True)
        await still_works(fn)
        assert await fn.outcomes("bad", 1) == {result: 1}
        (letter,) = fn.commit().letters
        assert (letter.handler, letter.reason) == ("bad", result)
        assert told in letter.detail
        assert b'"payload":"{\\"x\\": 1}"' in letter.payload
        assert any(told in record.getMessage() and "bad" in record.getMessage() for record in caplog.records)
        await still_works(fn)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def bad(event, ctx):\n    ctx.publish('a', object())\n", "ctx.publish('a', object())"),
        ("def bad(event, ctx):\n    ctx.secret('none')\n", "ctx.secret('none')"),
        ("async def bad():\n    await asyncio.sleep(100)\n", "await asyncio.sleep(100)"),
        ("def bad():\n    try: 1 / 0\n    except ZeroDivisionError: open('/none')\n", "open('/none')"),
        ("def bad():\n    return object()\n", ""),
    ],
)
async def test_a_traceback_has_the_handler_s_lines_and_none_of_edgefn(tmp_path: Path, source: str, line: str) -> None:
    async with functions(tmp_path) as fn:
        fn.write("bad.py", HEAD + source)
        fn.invoke("bad", durable=True)
        await fn.outcomes("bad", 1)
        (letter,) = fn.commit().letters
        assert line in letter.detail
        assert "edgefn/" not in letter.detail
        assert ("Traceback" in letter.detail) == bool(line)


async def test_a_flood_of_output_is_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with functions(tmp_path) as fn:
        fn.write(
            "bad.py",
            HEAD.replace("600ms", "60s") + "def bad():\n    for _ in range(1000):\n"
            "        print('x' * 99)\n        os.write(1, b'y' * 99_999 + b'\\n')\n",
        )
        fn.invoke("bad")
        assert await fn.outcomes("bad", 1) == {"done": 1}
        await fn.until(lambda: fn.metrics.total("handlers.output_dropped") > 1000)
        printed = [record for record in caplog.records if record.name == "edgefn.handler.bad"]
        assert 100 < len(printed) < 400
        assert all(len(record.getMessage()) <= 1000 for record in printed)


async def test_what_is_printed_and_logged_bears_the_handler_s_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = "async def bad(event, ctx):\n    print('hello', event['x'])\n    ctx.log.error('oh')\n"
    source += "    print('to err', file=sys.stderr)\n"
    async with functions(tmp_path) as fn:
        fn.write("bad.py", HEAD + source)
        fn.invoke("bad", b'{"x": 1}')
        assert await fn.outcomes("bad", 1) == {"done": 1}
        await fn.until(lambda: sum(record.name == "edgefn.handler.bad" for record in caplog.records) == 3)
        told = {
            (record.levelname, record.getMessage()) for record in caplog.records if record.name == "edgefn.handler.bad"
        }
        assert told == {("INFO", "hello 1"), ("ERROR", "oh"), ("WARNING", "to err")}


async def test_a_file_that_cannot_be_imported_by_a_worker_fails_its_invocations(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write(
            "bad.py",
            "import sys\nif sys.argv[0].endswith('template.py'): raise OSError('no sensor')\n"
            + HEAD
            + "def bad(): pass\n",
        )
        fn.invoke("bad", durable=True)
        assert await fn.outcomes("bad", 1) == {"failed": 1}
        (letter,) = fn.commit().letters
        assert "its file cannot be imported: OSError: no sensor" in letter.detail
