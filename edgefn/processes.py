"""What every child process of edgefn does first: it ends when its parent has died, in whatever way."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"  # of a log record, in every process

_PR_SET_PDEATHSIG = 1


def die_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """Asks the kernel to signal this process when its parent dies; Linux only. Survives no fork."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), how)


def log_to_stderr() -> None:
    """One line a record, for the journal and for the gateway to read."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=FORMAT)
