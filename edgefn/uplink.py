"""From the outbox to one sink: batches in order, sent until they are acknowledged, and only then deleted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from edgefn.clock import NS, Clock
from edgefn.errors import EdgefnError, StoreError
from edgefn.metrics import Metrics
from edgefn.sinks import Refusal, Sink, convert_options
from edgefn.store import Item, Refused, Store

log = logging.getLogger(__name__)

OLDEST_EVERY = 4  # every 4th batch goes by age alone, so that low priorities arrive under a steady load of high ones


class UplinkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256  # items
    batch_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1 << 20  # of payload; what one batch may take of the memory
    batch_age_ms: Annotated[int, msgspec.Meta(ge=0)] = 200  # how long a first item waits for others
    # How long an acknowledgement waits for a commit to go along with while there is no backlog. A power cut in that
    # time sends the batch again; a transaction of its own each second cost 1 GB of writes a day.
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    backoff_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    backoff_cap_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0


def split_options(name: str, options: Mapping[str, Any]) -> tuple[UplinkOptions, dict[str, Any]]:
    """The uplink's own options, and the rest, which are the sink's. Raises ConfigError for a wrong value."""
    own = {field.name for field in msgspec.structs.fields(UplinkOptions)}
    mine = {key: value for key, value in options.items() if key in own}
    return convert_options(name, mine, UplinkOptions), {key: value for key, value in options.items() if key not in own}


@dataclass(slots=True)
class _Owed:
    """What the far side has and the store does not know yet: it is told before anything else is sent."""

    ids: list[int]
    refused: dict[int, Refused]


class Uplink:
    """One sink and its way out of the outbox. `run` in a task; the other methods may be called at any time.

    Within a stream the far side first sees each item after those before it, over retries and reconnections, because a
    batch is acknowledged whole before the next is read. While idle it waits for `kick` and costs nothing.
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
        self._store = store
        self._sink = sink
        self._clock = clock
        self._metrics = metrics
        self._options = options
        self._sleep = sleep
        self._uniform = uniform
        self._kicked = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._state = "stopped"
        self._owed: _Owed | None = None
        self._batches = 0
        self._failures = 0
        self._sent = 0
        self._refused = 0
        self._last_error = ""
        self._last_sent: int | None = None

    def kick(self) -> None:
        """New items were committed."""
        self._kicked.set()

    def pause(self) -> None:
        """Sends nothing after the batch that is under way."""
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    async def state(self) -> dict[str, Any]:
        """For the monitor: the state (stopped, connecting, connected, backoff, paused), what waits, what went."""
        waiting = await self._store.stats(self.name)
        last = None if self._last_sent is None else (self._clock.monotonic() - self._last_sent) / NS
        return {
            "state": self._state if self._resumed.is_set() or self._state == "stopped" else "paused",
            "rows": waiting.rows,
            "bytes": waiting.bytes,
            "oldest_s": waiting.oldest_s,
            "sent": self._sent,
            "refused": self._refused,
            "last_sent_s": last,
            "last_error": self._last_error,
        }

    async def run(self) -> None:
        """Works until it is cancelled, and closes the sink then."""
        try:
            while True:
                await self._resumed.wait()
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
            self._state = "stopped"
            try:
                await self._settle()
            except StoreError as error:
                log.warning("uplink %s: its last batch will be sent again: %s", self.name, error)
            finally:
                await self._sink.close()

    async def _step(self) -> None:
        if self._state != "connected":
            self._state = "connecting" if self._state == "stopped" else self._state
            await self._sink.connect()
            self._state = "connected"
        batch = await self._next_batch()
        if not batch:
            return
        refused = await self._sink.send(batch)
        self._done(batch, refused)
        await self._settle(0.0 if len(batch) == self._options.batch_size else self._options.patience_s)
        # Only now: a broker that takes connections and nothing else is no reason to hurry.
        self._failures = 0
        self._last_error = ""

    async def _next_batch(self) -> Sequence[Item]:
        """Waits for items while there are none, and a little for more while there are few."""
        self._kicked.clear()
        items = await self._read()
        if not items:
            await self._kicked.wait()
        elif len(items) == self._options.batch_size or (await self._store.stats(self.name)).rows > len(items):
            return items  # there is a backlog
        if self._options.batch_age_ms:
            await self._sleep(self._options.batch_age_ms / 1000)
        if not self._resumed.is_set():
            return []
        return await self._read()

    async def _read(self) -> list[Item]:
        return await self._store.read(
            self.name,
            self._options.batch_size,
            max_bytes=self._options.batch_bytes,
            oldest_first=self._batches % OLDEST_EVERY == OLDEST_EVERY - 1,
        )

    def _done(self, batch: Sequence[Item], refusals: Sequence[Refusal]) -> None:
        reasons = {refusal.item_id: refusal.reason for refusal in refusals}
        for reason, n in Counter(reasons.values()).items():
            log.warning("uplink %s: %d items refused for good: %s", self.name, n, reason)
            self._metrics.count(f"uplink.{self.name}.refused", n, reason=reason)
        self._owed = _Owed([item.id for item in batch], {id_: Refused(reason) for id_, reason in reasons.items()})
        sent = len(batch) - len(reasons)
        self._metrics.count(f"uplink.{self.name}.sent", sent)
        self._sent += sent
        self._refused += len(reasons)
        self._batches += 1
        self._last_sent = self._clock.monotonic()

    async def _settle(self, patience: float = 0.0) -> None:
        """Tells the store what the far side has. Where the disk fails it is told later, and nothing is sent twice."""
        if self._owed:
            await self._store.acknowledge(self.name, self._owed.ids, refused=self._owed.refused, patience=patience)
            self._owed = None

    async def _back_off(self, error: Exception) -> None:
        """Exponential with full jitter: gateways that lost one cloud together do not come back together."""
        if str(error) != self._last_error:  # once per change, not once per attempt
            log.warning("uplink %s: %s", self.name, error)
        self._state = "backoff"
        self._last_error = str(error) or repr(error)
        self._metrics.count(f"uplink.{self.name}.retries")
        ceiling = min(self._options.backoff_cap_s, self._options.backoff_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        await self._sleep(self._uniform(0, ceiling))
