"""What handlers print and log, on its way from a worker to the gateway: lines over a pipe, each with its handler's name.

A line that begins with the mark says who wrote it and how grave it is; one without is of code that does not know (a C
library, a child process), and belongs to whoever runs.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from contextvars import ContextVar

MARK, END = "\x1e", "\x1f"
CURRENT: ContextVar[str] = ContextVar("handler", default="")  # who runs, in a worker


class Printed(io.TextIOBase):
    """Standard output or standard error of a worker."""

    encoding = "utf-8"

    def __init__(self, fd: int, level: str) -> None:
        self._fd = fd
        self._level = level
        self._begun: dict[str, str] = {}  # by handler: a line without an end

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        name = CURRENT.get()
        *whole, rest = (self._begun.pop(name, "") + text).split("\n")
        if len(rest) > 4096:
            whole, rest = [*whole, rest], ""
        if rest:
            self._begun[name] = rest
        if whole:
            head = f"{MARK}{name}{END}{self._level}{END}"
            _write(self._fd, "".join(f"{head}{line}\n" for line in whole))
        return len(text)

    def flush(self) -> None:
        """Lines go out when they end; what has no end when its handler does."""

    def finish(self) -> None:
        """The current handler is through: what it has begun is a line."""
        if CURRENT.get() in self._begun:
            self.write("\n")


class _Records(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        name = (
            record.name.removeprefix("edgefn.handler.") if record.name.startswith("edgefn.handler.") else CURRENT.get()
        )
        head = f"{MARK}{name}{END}{record.levelname.lower()}{END}"
        _write(2, "".join(f"{head}{line}\n" for line in self.format(record).splitlines()))


def _write(fd: int, text: str) -> None:
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(fd, data) :]


def install() -> tuple[Printed, Printed]:
    """Makes `print`, `sys.stderr` and `logging` of this process speak for the handler that runs."""
    sys.stdout, sys.stderr = out, err = Printed(1, "info"), Printed(2, "warning")
    logging.basicConfig(handlers=[_Records()], level=logging.INFO, format="%(message)s", force=True)
    return out, err
