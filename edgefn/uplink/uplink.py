"""From the outbox to one sink: batches in order, sent until they are acknowledged, and only then deleted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from edgefn.clock import NS, Clock
from edgefn.errors import AccessError, EdgefnError, NotConnectedError, StoreError
from edgefn.metrics import Metrics
from edgefn.sinks import Refusal, Sink
from edgefn.store import Item, Refused, Store
from edgefn.store.records import HIGH
from edgefn.uplink.bisection import Bisection
from edgefn.uplink.lanes import Lanes
from edgefn.uplink.options import UplinkOptions
from edgefn.uplink.tariff import Tariff

log = logging.getLogger(__name__)

LOOK_AT_CLOCK = 60.0  # seconds; who waits for midnight must see a clock that was put right
LONGEST_RETRY_AFTER = 3600.0  # seconds; a far side that asks for more has made a mistake


class Uplink:
    """One sink and its way out of the outbox. `run` in a task; the other methods may be called at any time.

    Within a stream the far side first sees each item after those before it, over retries and reconnections, because a
    batch is acknowledged whole before the next is read. With `live_share` that holds for the items of a backlog and for
    newer ones, each apart. While idle it waits for `kick` and costs nothing.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        sink: Sink,
        *,
        clock: Clock,
        metrics: Metrics,
        options: UplinkOptions = UplinkOptions(),  # noqa: B008 - frozen
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.name = name
        self.settled = 0  # items that the far side has or refused, as far as the store knows it
        self._store = store
        self._sink = sink
        self._clock = clock
        self._metrics = metrics
        self._options = options
        self._sleep = sleep
        self._uniform = uniform
        self._kicked = asyncio.Event()
        self._restored = asyncio.Event()
        self._restored.set()
        self._worker: asyncio.Task[None] | None = None
        self._state = "stopped"
        self._connected = False
        self._lanes = Lanes(options.live_share, options.batch_bytes)
        self._tariff = Tariff(options, clock)
        self._bisection = Bisection()
        self._size = options.batch_size  # items; less where the line does not hold for that many
        self._saving = False  # the budget is used up, except for high priority
        self._live = False  # the lane of the batch that was read last
        self._more = False  # and whether rows waited beyond it
        self._owed: tuple[list[int], dict[int, Refused]] | None = None  # what the store does not know yet
        self._failures = 0
        self._sent = 0
        self._refused = 0
        self._last_error = ""
        self._last_sent: int | None = None
        self._next_try: int | None = None
        self.commit_interval = 0.0  # seconds between two commits, which acknowledgements go along with

    def kick(self) -> None:
        """New items were committed."""
        self._kicked.set()

    async def cut(self) -> None:
        """Closes the sink, whatever is under way, and keeps it closed until `restore`. Twice is harmless."""
        self._restored.clear()
        self._state = "cut"
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    def restore(self) -> None:
        """Lets a line that was cut connect again, at once."""
        self._restored.set()

    async def state(self) -> dict[str, Any]:
        """For the monitor: state, what waits, what went, when it is tried again, and what is left of the day's bytes.

        The states are stopped, connecting, connected, backoff, refused (not let in), budget (nothing more today) and cut.
        """
        waiting = await self._store.stats(self.name)
        now = self._clock.monotonic()
        return {
            "state": "budget" if self._saving and waiting.rows and self._state == "connected" else self._state,
            "rows": waiting.rows,
            "bytes": waiting.bytes,
            "oldest_s": waiting.oldest_s,
            "sent": self._sent,
            "refused": self._refused,
            "bytes_sent": self._sink.bytes_sent,
            "last_sent_s": None if self._last_sent is None else (now - self._last_sent) / NS,
            "next_try_s": None if self._next_try is None else max(0.0, (self._next_try - now) / NS),
            "budget": self._tariff.state(),
            "last_error": self._last_error,
        }

    async def run(self) -> None:
        """Works until it is cancelled, and closes the sink then."""
        try:
            while True:
                await self._restored.wait()
                self._worker = asyncio.create_task(self._work(), name=f"uplink {self.name} at work")
                try:
                    await asyncio.wait({self._worker})
                finally:
                    self._worker.cancel()
                    with suppress(asyncio.CancelledError):
                        await self._worker
                    self._worker = None
        finally:
            self._state = "stopped"

    async def _work(self) -> None:
        self._state = "connecting"
        try:
            while True:
                try:
                    await self._settle()
                    await self._step()
                except EdgefnError as error:
                    await self._back_off(error)
                except Exception as error:
                    # A sink may come from anybody; its bug must end neither the gateway nor the other uplinks.
                    log.exception("uplink %s: unexpected error in its sink", self.name)
                    self._metrics.count(f"uplink.{self.name}.failed", reason=type(error).__name__)
                    await self._back_off(error)
        finally:
            self._connected = False
            self._next_try = None
            try:
                await self._settle()
            except StoreError as error:
                log.warning("uplink %s: its last batch will be sent again: %s", self.name, error)
            try:
                await self._sink.close()
            except Exception as error:
                log.warning("uplink %s: its sink did not close well: %r", self.name, error)

    async def _step(self) -> None:
        if not self._tariff.known:
            self._tariff.take_up(await self._store.spent(self.name))
        if not self._connected:
            await self._sink.connect()
            self._lanes.part(self._store.position())
            self._connected = True
            self._state = "connected"
        if seconds := self._tariff.wait():
            await self._sleep(seconds)
            return
        items = await self._next_batch()
        batch = self._tariff.affordable(items)
        self._more |= len(batch) < len(items)
        if batch:
            await self._send(batch)
        elif items:
            await self._wait_for_bytes(items[0])

    async def _next_batch(self) -> Sequence[Item]:
        """Waits for items while there are none, and a little for more while there are few."""
        self._kicked.clear()
        items = await self._read()
        if not items:
            await self._committed()
        elif self._more:
            return items
        if self._options.batch_age_ms:
            await self._sleep(self._options.batch_age_ms / 1000)
        return await self._read()

    async def _read(self) -> Sequence[Item]:
        after = None if self._saving else self._lanes.live_after
        items = [] if after is None else await self._read_lane(live=True, after=after)
        self._live = bool(items)
        if not items:
            items = await self._read_lane(live=False, after=0)
        full = len(items) == self._bisection.size(self._size)
        self._more = full or (bool(items) and (await self._store.stats(self.name)).rows > len(items))
        return items

    async def _read_lane(self, *, live: bool, after: int) -> Sequence[Item]:
        return await self._store.read(
            self.name,
            self._bisection.size(self._size),
            max_bytes=min(self._options.batch_bytes, self._tariff.most or self._options.batch_bytes),
            oldest_first=self._lanes.oldest_first(live) and not self._saving,
            after=after,
        )

    async def _wait_for_bytes(self, first: Item) -> None:
        """The budget does not allow this item, today or on any day."""
        if detail := self._tariff.never(first):
            self._note([first], [Refusal(first.id, "over_budget", detail)])
        elif not self._saving:
            log.warning("uplink %s: what daily_bytes allows is used up until midnight UTC", self.name)
            self._saving = True  # it is read again by priority: what is high may go
        else:
            # A gateway that is told every second of new rows looks among them for high ones, and else at the clock.
            waits = [asyncio.ensure_future(self._sleep(min(LOOK_AT_CLOCK, self._tariff.until_midnight())))]
            if first.priority < HIGH:
                waits.append(asyncio.create_task(self._committed()))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _committed(self) -> None:
        await self._kicked.wait()

    async def _send(self, batch: Sequence[Item]) -> None:
        if self._saving and batch[-1].priority < HIGH:
            self._saving = False
            self._lanes.part(self._store.position())  # what has waited for midnight is a backlog
        self._tariff.begin(batch)
        before = self._sink.bytes_sent
        try:
            refusals = await self._sink.send(batch)
        except NotConnectedError:
            # A line that breaks every few seconds would carry the first half of a large batch for ever.
            self._size = max(1, len(batch) // 2)
            raise
        except Exception as error:
            if self._bisection.failed(len(batch)):
                self._note(batch, [Refusal(batch[0].id, "sink_error", repr(error))])
            raise
        finally:
            written = self._sink.bytes_sent - before
            self._tariff.end(written)
        refused = {refusal.item_id for refusal in refusals}
        self._tariff.learn([item for item in batch if item.id not in refused], written)
        self._size = min(self._options.batch_size, self._size * 2)
        self._bisection.passed(len(batch))
        self._lanes.passed(batch, self._live)
        self._note(batch, refusals)
        # With a backlog the next batch must not wait for a commit, except where it has to wait anyway.
        patience = max(self._options.patience_s, 2 * self.commit_interval)
        await self._settle(min(patience, self._tariff.wait()) if self._more else patience)
        # Only now: a broker that takes connections and nothing else is no reason to hurry.
        self._failures = 0
        self._last_error = ""

    def _note(self, batch: Sequence[Item], refusals: Sequence[Refusal]) -> None:
        """The far side has these items, or will never have them: the store is to know it before anything else is sent."""
        for reason, n in Counter(refusal.reason for refusal in refusals).items():
            detail = next(refusal.detail for refusal in refusals if refusal.reason == reason)
            log.warning("uplink %s: %d items refused for good: %s %s", self.name, n, reason, detail)
            self._metrics.count(f"uplink.{self.name}.refused", n, reason=reason)
        refused = {refusal.item_id: Refused(refusal.reason, refusal.detail) for refusal in refusals}
        self._owed = [item.id for item in batch], refused
        sent = len(batch) - len(refused)
        if sent:
            self._metrics.count(f"uplink.{self.name}.sent", sent)
            self._last_sent = self._clock.monotonic()
        self._sent += sent
        self._refused += len(refused)

    async def _settle(self, patience: float = 0.0) -> None:
        """Tells the store what the far side has. Where the disk fails it is told later, and nothing is sent twice."""
        if self._owed is None and not self._tariff.unsaved:
            return
        ids, refused = self._owed or ([], {})
        spent = self._tariff.spent
        await self._store.acknowledge(self.name, ids, refused=refused, patience=patience, spent=spent)
        self._owed = None
        self._tariff.unsaved = False
        self.settled += len(ids)

    async def _back_off(self, error: Exception) -> None:
        """Exponential with full jitter: gateways that lost one cloud together do not come back together.

        Who is not let in waits for a person to mend the settings, so long at once.
        """
        if str(error) != self._last_error:  # once per change, not once per attempt
            log.warning("uplink %s: %s", self.name, error)
        kept_out = isinstance(error, AccessError)
        self._state = "refused" if kept_out else "backoff"
        self._connected = False
        self._last_error = str(error) or repr(error)
        self._metrics.count(f"uplink.{self.name}.retries")
        options = self._options
        growing = options.backoff_s * 2.0 ** min(self._failures, 60)
        self._failures += 1
        seconds = self._uniform(0, options.backoff_cap_s if kept_out else min(options.backoff_cap_s, growing))
        if isinstance(error, NotConnectedError) and error.retry_after is not None:
            seconds += min(error.retry_after, LONGEST_RETRY_AFTER)
        self._next_try = self._clock.monotonic() + int(seconds * NS)
        await self._sleep(seconds)
        self._next_try = None
