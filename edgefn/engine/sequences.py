"""Events of edgefn's own drivers, by source and sequence number: each is taken once, whatever the broker did.

A driver host numbers the events of each source without gaps and sends again what the gateway has not confirmed. Below the
newest number of a source a window of bits remembers which are missing, as the anti-replay window of IPsec does
(RFC 4303, 3.4.3), so that of a tail that is sent again exactly the missing ones are taken, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefn.engine import saved
from edgefn.metrics import Metrics

WINDOW = 1000  # numbers below the newest that may still come: as many events as a driver keeps
MAX_SOURCES = 4096  # a driver has one for each channel, and new ones with each start of the driver host
MAX_NAME = 64  # characters
MAX_NUMBER = 2**40  # a thousand events a second for 35 years; sums of gaps stay far from the 64 bits of msgpack
SNAPSHOT_EVERY = 64 << 10  # bytes of increments, at least, before all is written anew


@dataclass(slots=True)
class _Source:
    newest: int
    missing: int = 0  # bit i: the event newest - 1 - i is missing

    @property
    def confirmed(self) -> int:
        """Everything up to this number has come, or will not come any more."""
        return self.newest - self.missing.bit_length() - bool(self.missing)


class Sequences:
    """What has been taken of each source, at most `limit` of them: the one longest unheard of gives way.

    A source is followed from the first of its events that arrives: what it sent before was before the subscription.
    Missing events that are given up are counted under `events.gaps`, sources under `sequences.evicted`.
    """

    def __init__(self, metrics: Metrics, limit: int = MAX_SOURCES) -> None:
        self._metrics = metrics
        self._limit = limit
        self._sources: dict[str, _Source] = {}  # the one longest unheard of first
        self._heard: dict[str, None] = {}  # sources heard of since the last checkpoint
        self._saved: dict[str, None] = {}  # sources in checkpoints since `confirmed` was asked
        self._written: int | None = None  # bytes of increments since the last snapshot, None before the first

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def missing(self) -> int:
        """How many events are missing and may still come."""
        return sum(source.missing.bit_count() for source in self._sources.values())

    def take(self, src: str, seq: int, floor: int = 0) -> bool:
        """Whether the event is new; one that is not is to be acknowledged and left out.

        `floor` is the driver's word that it has given up all events below that number. `src` and `seq` are such as
        `belongs` accepts.
        """
        source = self._sources.get(src)
        if source is None:
            self._add(src, _Source(seq))
            return True
        if src not in self._heard:
            self._heard[src] = None
            self._sources[src] = self._sources.pop(src)
        ahead = seq - source.newest
        if ahead > 0:
            self._advance(source, ahead)
            new = True
        else:
            bit = 1 << (-ahead - 1) if 0 < -ahead <= WINDOW else 0
            new = bool(source.missing & bit)
            source.missing &= ~bit
        if source.missing and floor:
            self._give_up(source, max(0, source.newest - floor))
        return new

    def _advance(self, source: _Source, ahead: int) -> None:
        source.newest += ahead
        if source.missing or ahead > 1:
            skipped = min(ahead - 1, WINDOW)
            self._count_gaps(ahead - 1 - skipped)
            # More than a window ahead nothing of the old one is left, and a shift by any number a device sends is too far.
            source.missing = source.missing << min(ahead, WINDOW) | (1 << skipped) - 1
            self._give_up(source, WINDOW)

    def _give_up(self, source: _Source, keep: int) -> None:
        """Gives up what is missing further below the newest than `keep`."""
        kept = source.missing & ((1 << min(keep, WINDOW)) - 1)
        self._count_gaps((source.missing ^ kept).bit_count())
        source.missing = kept

    def _count_gaps(self, n: int) -> None:
        if n:
            self._metrics.count("events.gaps", n)

    def _add(self, src: str, source: _Source) -> None:
        self._sources[src] = source
        self._heard[src] = None
        if len(self._sources) > self._limit:
            oldest = next(iter(self._sources))
            self._give_up(self._sources.pop(oldest), 0)
            self._heard.pop(oldest, None)
            self._saved.pop(oldest, None)
            self._metrics.count("sequences.evicted")

    def confirmed(self) -> dict[str, int]:
        """For each source in the checkpoints since the last call: everything up to this number is in them.

        A source is named again, with the same number, when an event came that was no progress: its driver knows by that
        that something below is missing, or that an earlier confirmation was lost.
        """
        saved, self._saved = self._saved, {}
        return {src: self._sources[src].confirmed for src in saved}

    def checkpoint(self) -> tuple[bool, bytes] | None:
        """What changed since the last one, and whether it is all there is (a snapshot); None where nothing has."""
        if not self._heard:
            return None
        heard, self._heard = self._heard, {}
        self._saved |= heard
        data = self._pack(heard)
        # As with other owners' parts: the increments may grow to as much as the snapshot, and a life begins with one.
        if self._written is not None and self._written + len(data) <= SNAPSHOT_EVERY:
            self._written += len(data)
            return False, data
        data = self._pack(self._sources)
        self._written = min(0, SNAPSHOT_EVERY - 2 * len(data))
        return True, data

    def _pack(self, names: dict[str, Any]) -> bytes:
        sources = [(src, self._sources[src]) for src in names]
        return saved.pack([(src, source.newest, _to_bytes(source.missing)) for src, source in sources])

    def restore(self, parts: list[bytes]) -> None:
        """Takes up checkpoints in their order."""
        for part in parts:
            for src, newest, missing in saved.unpack(part):
                self._sources.pop(src, None)
                self._add(src, _Source(newest, int.from_bytes(missing, "little")))
        self._heard.clear()


def belongs(src: Any, seq: Any, floor: Any = 0) -> bool:
    """Whether these are fields that a driver host sets. On the topics of drivers anybody may publish anything."""
    return type(src) is str and 0 < len(src) <= MAX_NAME and _is_number(seq) and _is_number(floor)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER


def _to_bytes(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
