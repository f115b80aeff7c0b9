"""The search for an item that a sink cannot digest: smaller and smaller batches, until it stands alone."""

from __future__ import annotations

TRIES = 3  # failures of a whole batch before it is divided: most troubles pass
MOST_TRIES = 64  # of an item that stands alone


class Bisection:
    """Told what became of each batch; says how large the next may be.

    An item that fails alone is the culprit if others pass. Where none passes the whole sink is broken, and giving up items
    would empty the outbox: each further one then takes twice as many failures.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._suspects = 0  # items at the head, among which the culprit is
        self._unproven = 0  # items given up since one passed

    def size(self, usual: int) -> int:
        return max(1, min(usual, self._suspects // 2)) if self._suspects else usual

    def failed(self, n: int) -> bool:
        """A batch of n items failed in a way that a sink must not. True: its only item is to be given up."""
        self._failures += 1
        if n > 1:
            if self._failures >= TRIES:
                self._suspects = n
            return False
        if self._failures < min(MOST_TRIES, TRIES << self._unproven):
            return False
        self._unproven += 1
        self._failures = self._suspects = 0
        return True

    def passed(self, n: int) -> None:
        self._unproven = 0
        self._suspects = max(0, self._suspects - n)
        if not self._suspects:
            self._failures = 0
