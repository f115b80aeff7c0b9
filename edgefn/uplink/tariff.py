"""What a line may carry: bytes a second and bytes a day, guessed before a batch goes and charged as they were written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgefn.clock import Clock
from edgefn.store import Item, Spent
from edgefn.uplink.budget import DailyBudget
from edgefn.uplink.meter import Meter
from edgefn.uplink.options import UplinkOptions
from edgefn.uplink.rate import TokenBucket


class Tariff:
    """Rate and budget of one uplink; either may be missing, and then nothing is asked of it.

    For each batch: `affordable` before it goes, `begin`, and `end` with what the sink wrote, whatever became of it.
    """

    def __init__(self, options: UplinkOptions, clock: Clock) -> None:
        self._clock = clock
        self._daily = options.daily_bytes
        self._bucket = TokenBucket(options.max_rate, clock) if options.max_rate else None
        self._budget: DailyBudget | None = None
        self._meter = Meter()
        self._guess = 0
        self.unsaved = False  # bytes were spent of which the store does not know
        self.most = self._bucket.size if self._bucket else None  # bytes of a batch, unless it is one item

    @property
    def known(self) -> bool:
        """Whether `take_up` was called, where there is a budget."""
        return self._budget is not None or not self._daily

    def take_up(self, saved: Spent | None) -> None:
        """Goes on with what the store knows."""
        if self._daily:
            self._budget = DailyBudget(self._daily, self._clock, saved)

    @property
    def spent(self) -> Spent | None:
        return self._budget.spent if self._budget else None

    def wait(self) -> float:
        """Seconds until the next batch may go, as far as the rate is concerned."""
        return self._bucket.wait() if self._bucket else 0.0

    def until_midnight(self) -> float:
        return self._budget.until_midnight() if self._budget else 0.0

    def affordable(self, items: Sequence[Item]) -> Sequence[Item]:
        """As many from the first on as may go now. The bucket is full then, and lets one of any size through."""
        if self._bucket is None and self._budget is None:
            return items
        cost = 0
        for n, item in enumerate(items):
            cost += self._meter.guess(item)
            if (n and self._bucket is not None and cost > self._bucket.size) or (
                self._budget is not None and cost > self._budget.left(item.priority)
            ):
                return items[:n]
        return items

    def never(self, item: Item) -> str:
        """Why this item cannot go on any day; empty where it can."""
        cost, whole = self._meter.guess(item), self._budget.whole(item.priority) if self._budget else 0
        return (
            f"about {cost} bytes, and daily_bytes leaves it {whole} in a day" if self._budget and cost > whole else ""
        )

    def begin(self, batch: Sequence[Item]) -> None:
        if self._bucket is not None:
            # Before it goes, so that the bucket fills while it is on its way.
            self._guess = sum(map(self._meter.guess, batch))
            self._bucket.take(self._guess)

    def end(self, written: int) -> None:
        if self._bucket is not None:
            self._bucket.take(written - self._guess)
        if self._budget is not None and written:
            self._budget.spend(written)
            self.unsaved = True

    def learn(self, items: Sequence[Item], written: int) -> None:
        """These went whole."""
        if self._bucket is not None or self._budget is not None:
            self._meter.learn(items, written)

    def state(self) -> dict[str, Any] | None:
        """For the monitor: bytes in a day, spent and left today, and seconds until there are new ones."""
        if self._budget is None:
            return None
        spent = self._budget.spent.bytes
        return {
            "daily": self._budget.daily,
            "spent": spent,
            "left": max(0, self._budget.daily - spent),
            "renewed_s": round(self._budget.until_midnight()),
        }
