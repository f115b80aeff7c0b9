"""What is given up of a stream when there is no room for all of it: the words that say so, and the policy made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WORDS = ("reject", "drop-oldest", "drop-lowest-priority", "thin")
DEFAULT = ("drop-lowest-priority",)
# A summary of one field takes 200 bytes. A quota that holds a few rows only would be full all the time.
MIN_QUOTA = 4096


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """`quota`: bytes that the stream may hold (None: what the store has). `on_full`: what is tried, in this order."""

    quota: int | None = None
    on_full: tuple[str, ...] = DEFAULT


USUAL = StreamPolicy()


def chain(words: str | Iterable[str]) -> tuple[str, ...]:
    """One word or several in their order; after `thin` alone the lowest priority goes. Raises ValueError."""
    chosen = (words,) if isinstance(words, str) else tuple(words)
    if not chosen:
        raise ValueError(f"it is empty; allowed are {', '.join(WORDS)}, or several of them in their order")
    for word in chosen:
        if word not in WORDS:
            raise ValueError(f"{word!r} is not among {', '.join(WORDS)}")
    return chosen + DEFAULT if chosen[-1] == "thin" else chosen
