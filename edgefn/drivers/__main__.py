"""The driver host process: one line of JSON on standard input, then drivers until SIGTERM or the end of the input.

python -m edgefn.drivers [CLOCK_FD]: with the memory of the gateway's clock, else by the clock of this machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from edgefn.bus import Bus
from edgefn.clock import Clock, SharedClock, SystemClock
from edgefn.drivers.host import DriverHost, HostConfig
from edgefn.errors import ConfigError
from edgefn.processes import die_with_parent, log_to_stderr

log = logging.getLogger("edgefn.drivers")

STOP_TIMEOUT = 2.0  # seconds


class _EndOfInput(asyncio.Protocol):
    """The gateway holds the other end of standard input: when it has died, in whatever way, the input ends."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()


async def run(config: HostConfig, clock: Clock) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(*_: object) -> None:
        # A driver that blocks the event loop keeps it from stopping: SIGALRM then ends the process.
        signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT)
        loop.call_soon_threadsafe(stop.set)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        await loop.connect_read_pipe(lambda: _EndOfInput(stop), sys.stdin)
    except ValueError:
        log.info("standard input is a file: running until SIGTERM")
    client_id = f"edgefn-{config.gateway}-drivers"
    async with Bus(config.broker, client_id=client_id) as bus, DriverHost(config, bus, clock=clock):
        await stop.wait()
        signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT)


def main() -> int:
    log_to_stderr()
    die_with_parent()
    # Before a driver imports numpy: OpenBLAS starts a thread for each core, which nothing here has work for.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        config = HostConfig.from_json(sys.stdin.buffer.readline())
    except ConfigError as error:
        log.error("%s", error)
        return 2
    asyncio.run(run(config, SharedClock(int(sys.argv[1])) if len(sys.argv) > 1 else SystemClock()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
