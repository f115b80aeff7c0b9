"""The gateway's end of what workers print: lines become log records under the handler's name, and no flood gets through."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from edgefn.functions.output import END, MARK
from edgefn.metrics import Metrics

READ = 1 << 16
MAX_LINE = 1000  # bytes of a line that are kept
BURST, RATE = 200, 20.0  # lines of one worker at once, and each second
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class Printed:
    """Reads one pipe until it is closed. `whose()` names the handler of a line that does not say."""

    def __init__(
        self, fd: int, whose: Callable[[], str], metrics: Metrics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._fd = fd
        self._whose = whose
        self._metrics = metrics
        self._monotonic = monotonic
        self._rest = b""
        self._cut = False  # the line that goes on was written already, as far as it is kept
        self._room = float(BURST)
        self._at = monotonic()
        self._left_out = 0
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Reads what there still is. Twice is harmless."""
        if self._fd < 0:
            return
        for _ in range(64):  # of a pipe's 64 kB there is no more than that
            if not self._read():
                break
        self._end()

    def _end(self) -> None:
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._rest:
            self._line(self._rest)
        self._tell_left_out()

    def _read(self) -> bool:
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        self.take(data)
        return True

    def take(self, data: bytes) -> None:
        """Bytes as they come. What is beyond the rate is counted and not looked at."""
        now = self._monotonic()
        self._room = min(BURST, self._room + (now - self._at) * RATE)
        self._at = now
        if self._room < 1:
            lines = data.count(b"\n")
            self._drop(lines)
            if lines:
                self._rest, self._cut = data[data.rfind(b"\n") + 1 :][:MAX_LINE], False
            return
        *lines_, rest = (self._rest + data).split(b"\n")
        if self._cut and lines_:
            lines_, self._cut = lines_[1:], False
        for number, line in enumerate(lines_):
            if self._room < 1:
                self._drop(len(lines_) - number)
                break
            self._line(line)
        if len(rest) > MAX_LINE:
            if not self._cut:
                self._line(rest)
            self._cut, rest = True, b""
        self._rest = rest

    def _drop(self, lines: int) -> None:
        self._left_out += lines
        self._metrics.count("handlers.output_dropped", lines, reason="too_many")

    def _tell_left_out(self) -> None:
        if self._left_out:
            _logger(self._whose()).warning("%d more lines of what it printed are left out", self._left_out)
            self._left_out = 0

    def _line(self, line: bytes) -> None:
        if self._left_out and self._room > BURST / 2:
            self._tell_left_out()
        self._room -= 1
        shown = line[:MAX_LINE].decode(errors="backslashreplace")
        name, level = self._whose(), "info"
        if shown.startswith(MARK) and shown.count(END) >= 2:
            said, level, shown = shown[1:].split(END, 2)
            name = said or name
        if shown.strip():
            _logger(name).log(logging.getLevelNamesMapping().get(level.upper(), logging.INFO), "%s", shown)


def _logger(name: str) -> logging.Logger:
    return logging.getLogger(f"edgefn.handler.{name}")
