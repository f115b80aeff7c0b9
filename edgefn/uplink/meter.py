"""What items cost on the line: guessed before they go, from what those before them took."""

from __future__ import annotations

from collections.abc import Iterable

from edgefn.store import Item

ENVELOPE = 220  # bytes that a JSON envelope, its topic and the header of its packet add to a payload
WEIGHT = 0.2  # of the newest batch in the ratio


class Meter:
    """Bytes that a sink writes for an item, as payload and envelope times a ratio that is learned: compression, headers."""

    def __init__(self) -> None:
        self._ratio = 1.0

    def guess(self, item: Item) -> int:
        return round(_plain(item) * self._ratio) + 1

    def learn(self, items: Iterable[Item], written: int) -> None:
        """These items went whole, and took so many bytes."""
        plain = sum(map(_plain, items))
        if plain:
            self._ratio += WEIGHT * (written / plain - self._ratio)


def _plain(item: Item) -> int:
    return len(item.payload) + ENVELOPE
