"""Everything that the store counts, read at one moment, so that the sums can be held against one another."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgefn.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Totals:
    """What was made, what waits and what was given up, of one epoch."""

    epoch: str
    position: int  # above all rows stored so far
    bytes: int  # of all that waits
    dead: int  # letters
    made: Mapping[str, int]  # by stream: items that were given a number
    waiting: Mapping[str, int]  # by uplink: rows
    dropped: Mapping[tuple[str, str, str], int]  # by stream, uplink and reason, as in `Drop`


def take(db: sqlite3.Connection, ledger: Ledger) -> Totals:
    """Runs in SQLite's thread. The cost does not depend on how much waits."""
    dropped: Counter[tuple[str, str, str]] = Counter()
    for stream_id, uplink, reason, n in db.execute("SELECT stream, uplink, reason, n FROM dropped"):
        stream = ledger.by_id.get(stream_id)
        if stream is not None and stream.epoch == ledger.epoch:
            dropped[stream.name, uplink, reason] += n
    return Totals(
        ledger.epoch,
        (ledger.next_item << 2) - 1,
        ledger.bytes,
        ledger.dead_rows,
        {stream.name: stream.next_seq - 1 for stream in ledger.streams.values()},
        {uplink.name: uplink.rows for uplink in ledger.uplinks if not uplink.retired},
        dropped,
    )
