"""Which rows have their turn while a backlog drains: those that wait since the line came back, or the new ones."""

from __future__ import annotations

from collections.abc import Sequence

from edgefn.store import Item

# Every 4th batch of a lane goes by age alone, so that low priorities arrive under a steady load of high ones.
OLDEST_EVERY = 4


class Lanes:
    """Two queues in one outbox, parted by the position at which the line came back.

    Without a share, and once the backlog has gone, there is one lane. Balance is in bytes: what the new rows had less than
    their share. Each lane keeps the order of its streams; a stream that waits in both arrives as a merge of the two.
    """

    def __init__(self, live_share: float, most: int) -> None:
        """`most` is how many bytes one lane may owe the other: no more than a batch, after one had nothing to send."""
        self._share = live_share
        self._most = most
        self._balance = 0.0
        self._parted_at: int | None = None
        self._turns = {True: 0, False: 0}  # batches, of new rows and of the others

    def part(self, position: int) -> None:
        """The line is there: what is stored up to here is the backlog."""
        if self._share:
            self._parted_at = position
            self._balance = 0.0

    @property
    def live_after(self) -> int | None:
        """Where new rows begin, if it is their turn."""
        return self._parted_at if self._balance >= 0 else None

    def oldest_first(self, live: bool) -> bool:
        return self._turns[live] % OLDEST_EVERY == OLDEST_EVERY - 1

    def passed(self, items: Sequence[Item], live: bool) -> None:
        """These went, read from one of the lanes."""
        oldest_first = self.oldest_first(live)
        self._turns[live] += 1
        if self._parted_at is None:
            return
        old = sum(len(item.payload) for item in items if item.id <= self._parted_at)
        # New rows of high priority go with the backlog's turns as well: that is not on account of their share.
        new = sum(len(item.payload) for item in items) if live else 0
        balance = self._balance + old * self._share - new * (1 - self._share)
        self._balance = max(-self._most, min(self._most, balance))
        if not live and oldest_first and not old:
            self._parted_at = None  # the oldest of all was a new one: the backlog has gone
