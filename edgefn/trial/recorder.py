"""From the live topics of a broker to a recording."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from edgefn.address import BrokerAddress
from edgefn.bus import Bus, Message
from edgefn.engine.subscriptions import disjoint
from edgefn.errors import EdgefnError
from edgefn.metrics import Metrics
from edgefn.topics import Pattern
from edgefn.trial.recording import Recorded, line_of

CONNECT = 5.0  # seconds
QUEUE = 10_000  # messages that wait to be written; of more, the oldest are given up and counted


class RecordError(EdgefnError, OSError):
    """A recording cannot be written. The message names the file."""


class Recorder:
    """Writes what comes to a file, each message as a whole line at once, until `stop`, `seconds` or `count`."""

    def __init__(
        self, address: BrokerAddress, patterns: tuple[str, ...], *, now: Callable[[], int] = time.time_ns
    ) -> None:
        """`patterns`: without one, everything but what gateways say themselves. Raises TopicError."""
        self.metrics = Metrics()
        self.recorded = 0
        self._address = address
        self._patterns = [Pattern(text) for text in patterns]
        self._now = now
        self._stop = asyncio.Event()

    @property
    def dropped(self) -> int:
        return self.metrics.total("bus.dropped")

    def stop(self) -> None:
        self._stop.set()

    async def run(
        self,
        path: Path,
        *,
        seconds: float | None = None,
        count: int | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """`begun` is called when the broker sends. Raises RecordError, and NotConnectedError where there is no broker."""
        filters = disjoint(pattern.filter for pattern in self._patterns) or ("#",)
        try:
            # Never over another recording: what was measured does not come again.
            file = path.open("xb")
        except FileExistsError as error:
            raise RecordError(f"{path}: there is a file of this name; choose another, or remove it") from error
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}") from error
        with file:
            try:
                async with Bus(self._address, metrics=self.metrics) as bus:
                    await bus.wait_connected(CONNECT)
                    async with bus.subscribe(*filters, max_queue=QUEUE) as messages, self._ending(seconds):
                        begun()
                        async for message in messages:
                            if not self._is_wanted(message):
                                continue
                            file.write(line_of(self._recorded(message)))
                            file.flush()
                            self.recorded += 1
                            if self.recorded == count:
                                return
            except OSError as error:
                if isinstance(error, EdgefnError):
                    raise
                raise RecordError(f"{path}: {error.strerror}; {self.recorded} messages were written") from error
            finally:
                if not self.recorded:
                    path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def _ending(self, seconds: float | None) -> AsyncIterator[None]:
        """Ends what is inside when it is time, or at `stop`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds) as limit:
                stopping = asyncio.create_task(self._stop.wait())
                stopping.add_done_callback(
                    lambda task: None if task.cancelled() else limit.reschedule(asyncio.get_running_loop().time())
                )
                try:
                    yield
                finally:
                    stopping.cancel()

    def _is_wanted(self, message: Message) -> bool:
        if self._patterns:
            return any(pattern.match(message.topic) is not None for pattern in self._patterns)
        levels = message.topic.split("/")
        # What a gateway says is what a replay makes anew; what its drivers publish comes from outside.
        return levels[0] != "edgefn" or len(levels) < 3 or levels[2] == "event"

    def _recorded(self, message: Message) -> Recorded:
        return Recorded(self._now(), message.topic, message.payload, message.qos, message.retain)
