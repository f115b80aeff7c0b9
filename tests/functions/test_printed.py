"""Lines of workers become log records: whole ones, with their name, and no more than so many."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from edgefn.functions.output import END, MARK
from edgefn.functions.printed import BURST, MAX_LINE, RATE, Printed
from edgefn.metrics import Metrics


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pipe:
    def __init__(self) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        out, self.into = os.pipe()
        self.printed = Printed(out, lambda: "runs", self.metrics, self.clock)


@pytest.fixture
async def pipe(caplog: pytest.LogCaptureFixture) -> Iterator[Pipe]:
    caplog.set_level(logging.INFO)
    one = Pipe()
    yield one
    os.close(one.into)
    one.printed.close()
    one.printed.close()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [
        (record.name.removeprefix("edgefn.handler."), record.levelname, record.getMessage())
        for record in caplog.records
    ]


async def test_lines_come_whole_in_whatever_pieces(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    data = f"plain\n{MARK}light{END}warning{END}marked\n\nr\u00e9st\n".encode()
    for byte in data:
        pipe.printed.take(bytes([byte]))
    assert told(caplog) == [("runs", "INFO", "plain"), ("light", "WARNING", "marked"), ("runs", "INFO", "r\u00e9st")]


async def test_what_is_in_the_pipe_when_a_worker_dies_is_told(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    os.write(pipe.into, b"last words")
    pipe.printed.close()
    assert told(caplog) == [("runs", "INFO", "last words")]


async def test_a_line_without_an_end_is_cut_and_told_once(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        pipe.printed.take(b"x" * 1000)
    pipe.printed.take(b"\nnext\n")
    lines = [text for _, _, text in told(caplog)]
    assert lines == ["x" * MAX_LINE, "next"]


async def test_a_flood_is_cut_counted_and_told_when_it_is_over(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    pipe.printed.take(b"line\n" * 1000)
    assert len(told(caplog)) == BURST
    pipe.printed.take(b"line\n" * 1000)
    assert pipe.metrics.total("handlers.output_dropped.too_many") == 2000 - BURST
    pipe.clock.now += BURST / RATE
    pipe.printed.take(b"again\n")
    assert [text for _, _, text in told(caplog)[BURST:]] == ["1800 more lines of what it printed are left out", "again"]


async def test_what_is_no_text_is_shown_all_the_same(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    pipe.printed.take(b"\xff\x00\n")
    assert told(caplog) == [("runs", "INFO", "\\xff\x00")]
