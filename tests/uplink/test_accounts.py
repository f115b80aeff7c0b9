"""Whatever happens to two uplinks on one store: received once, refused, or counted as dropped, and in order in each lane."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.metrics import Metrics
from edgefn.sinks import Refusal
from edgefn.store import Commit, Item, Store
from edgefn.uplink import Uplink, UplinkOptions
from edgefn.uplink.budget import DAY
from edgefn.uplink.uplink import LOOK_AT_CLOCK
from tests.sinks.helpers import FakeSink
from tests.store.helpers import TurnedClock, a_store, item
from tests.uplink.helpers import PassingTime

NAMES = ("one", "two")
STREAMS = "abc"  # of priority 0, 1 and 2
HUGE = 5000  # bytes that no daily budget of this test allows


class Far:
    """A cloud that keeps what it gets, and the positions at which the lanes parted meanwhile."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any] | int] = []

    def check(self, ids: Mapping[str, int], lanes: bool) -> set[str]:
        """The keys it has seen. In each lane of a stream, between two partings, new ones ascend."""
        seen: set[str] = set()
        parted_at, last = 0, dict[tuple[str, bool], int]()
        for entry in self.log:
            if isinstance(entry, int):
                parted_at = entry
                if lanes:
                    last.clear()
            elif (key := entry["id"]) not in seen:
                seen.add(key)
                lane = entry["stream"], lanes and ids[key] > parted_at
                assert ids[key] > last.get(lane, 0), f"{key} came late"
                last[lane] = ids[key]
        return seen


class Line(FakeSink):
    """A fake sink whose far side outlives it."""

    def __init__(self, far: Far) -> None:
        super().__init__()
        self._far = far

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        before = len(self.received)
        try:
            return await super().send(items)
        finally:
            self._far.log += self.received[before:]


class LongNights(PassingTime):
    """Who waits for midnight may sleep longer than he wanted, which saves a thousand looks at the clock."""

    async def __call__(self, seconds: float) -> None:
        await super().__call__(seconds * 30 if seconds == LOOK_AT_CLOCK else seconds)


class Parted:
    """The store as one uplink sees it: its cloud is told where the lanes part."""

    def __init__(self, store: Store, far: Far) -> None:
        self._store, self._far = store, far

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def position(self) -> int:
        position = self._store.position()
        self._far.log.append(position)
        return position


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.3, 0.9]), budget=st.booleans(), rate=st.booleans())
async def test_received_refused_and_dropped_are_what_was_sent(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, budget: bool, rate: bool
) -> None:
    rng = random.Random(seed)
    path: Path = tmp_path_factory.mktemp("outbox") / "store.db"
    clock = TurnedClock()
    clock.ns = clock.ns // DAY * DAY + DAY - 600 * 10**9  # ten minutes to midnight
    ids: dict[str, int] = {}
    wanted: dict[str, set[str]] = {name: set() for name in NAMES}
    refuse: dict[str, str] = {}
    fars = {name: Far() for name in NAMES}
    options = UplinkOptions(
        batch_size=rng.choice([3, 7, 50]),
        batch_age_ms=0,
        patience_s=0,
        live_share=share,
        daily_bytes=4500 if budget else None,
        max_rate=2000 if rate else None,
    )

    async def commit(store: Store) -> None:
        for _ in range(rng.randrange(1, 4)):
            news = []
            for stream in rng.choices(STREAMS, k=rng.randrange(1, 8)):
                names = frozenset(rng.choice([("one",), ("two",), NAMES]))
                new = item(stream, priority=STREAMS.index(stream), size=HUGE if rng.random() < 0.02 else 0)
                news.append(replace(new, uplinks=names))
            for new, stored in zip(news, await store.commit(Commit(news)), strict=True):
                ids[stored.key] = stored.id
                for name in new.uplinks or NAMES:
                    wanted[name].add(stored.key)
                if rng.random() < 0.05:
                    refuse[stored.key] = "too_strange"

    for life in range(3):
        async with a_store(path, uplinks=NAMES, clock=clock) as store:
            lines = {name: Line(fars[name]) for name in NAMES}
            uplinks = {
                name: Uplink(
                    name,
                    Parted(store, fars[name]),  # type: ignore[arg-type]
                    lines[name],
                    clock=clock,
                    metrics=Metrics(),
                    options=options,
                    sleep=LongNights(clock),
                )
                for name in NAMES
            }
            await commit(store)
            tasks = [asyncio.create_task(uplink.run()) for uplink in uplinks.values()]
            for _ in range(rng.randrange(4, 10)):
                name = rng.choice(NAMES)
                line, uplink = lines[name], uplinks[name]
                line.refuse = refuse
                match rng.choice(["commit", "commit", "lose", "away", "back", "cut", "restore", "wait"]):
                    case "commit":
                        await commit(store)
                        for each in uplinks.values():
                            each.kick()
                    case "lose":
                        line.lose_acknowledgement(after=rng.randrange(6))
                    case "away":
                        line.lose_connection()
                    case "back":
                        line.restore_connection()
                    case "cut":
                        await uplink.cut()
                    case "restore":
                        uplink.restore()
                    case "wait":
                        for _ in range(rng.randrange(30)):
                            await asyncio.sleep(0)
            if life == 2:
                for name in NAMES:
                    lines[name].restore_connection()
                    uplinks[name].restore()
                    uplinks[name].kick()
                async with asyncio.timeout(30):
                    while any([(await store.stats(name)).rows for name in NAMES]):
                        await asyncio.sleep(0)
                dead = {(letter.uplink, letter.key) for letter in await store.dead(1000)}
                assert await store.drops() == []
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    for name in NAMES:
        refused = {key for uplink, key in dead if uplink == name}
        seen = fars[name].check(ids, share > 0)
        assert not seen & refused
        assert seen | refused == wanted[name]
