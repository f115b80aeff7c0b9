"""The engine process: python -m edgefn.engine LINK_FD WATCH_FD MEMORY_MB CLOCK_FD"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys

from edgefn.clock import SharedClock
from edgefn.engine import memory
from edgefn.engine.engine import Engine
from edgefn.errors import LinkClosedError
from edgefn.link import Link
from edgefn.processes import die_with_parent, log_to_stderr
from edgefn.running import Watch


def main() -> int:
    log_to_stderr()
    die_with_parent(signal.SIGKILL)
    # The gateway says when to stop: Ctrl-C reaches the whole process group, and it must not tear a batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    memory.limit(int(sys.argv[3]))
    gc.freeze()  # what is loaded by now stays: the collector need not look at it again
    try:
        Engine(link, Watch(int(sys.argv[2])), SharedClock(int(sys.argv[4]))).run()
    except LinkClosedError as error:
        logging.getLogger("edgefn.engine").info("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
