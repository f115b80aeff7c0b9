"""Readings of a plain generator, taken one at a time in a thread of its own, so that it may block."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from edgefn.drivers.contract import PlainReadings, Readings

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 0.8  # seconds; all of the host stops within two


class _Ended:
    """StopIteration cannot be put into a future."""


class ThreadedReadings(Readings):
    """An async iterator over a generator. The generator is opened, advanced and closed in one and the same thread."""

    def __init__(self, readings: PlainReadings, name: str) -> None:
        self._readings = readings
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._wanted: queue.SimpleQueue[asyncio.Future[Any] | None] = queue.SimpleQueue()
        self._closed = self._loop.create_future()
        # A daemon, because nothing can interrupt a read that hangs, and the process must be able to end.
        self._thread = threading.Thread(target=self._work, name=f"driver {name}", daemon=True)
        self._thread.start()

    async def __anext__(self) -> Any:
        answer = self._loop.create_future()
        self._wanted.put(answer)
        reading = await answer
        if reading is _Ended:
            raise StopAsyncIteration
        return reading

    async def aclose(self) -> None:
        """Runs the generator's `finally` once its read returns. Twice is harmless. Raises what the `finally` raises."""
        self._wanted.put(None)
        try:
            await asyncio.wait_for(asyncio.shield(self._closed), CLOSE_TIMEOUT)
        except TimeoutError:
            log.warning("driver %r is still in a read after %g s: left behind", self._name, CLOSE_TIMEOUT)

    def _work(self) -> None:
        while (answer := self._wanted.get()) is not None:
            try:
                reading = next(self._readings, _Ended)
            except BaseException as error:
                self._tell(answer, answer.set_exception, _told(error))
            else:
                self._tell(answer, answer.set_result, reading)
        try:
            getattr(self._readings, "close", lambda: None)()
        except BaseException as error:
            self._tell(self._closed, self._closed.set_exception, _told(error))
        else:
            self._tell(self._closed, self._closed.set_result, None)

    def _tell(self, answer: asyncio.Future[Any], how: Callable[[Any], None], what: object) -> None:
        def tell() -> None:
            if not answer.done():
                how(what)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:
            log.debug("driver %r answered after the host had stopped", self._name)


def _told(error: BaseException) -> Exception:
    """What the supervisor may see: SystemExit in a driver must not end the host, and StopIteration fits no future."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
