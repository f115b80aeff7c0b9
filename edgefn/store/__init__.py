"""The durable state of a gateway: what must reach the cloud and what must survive a power cut, in one SQLite file."""

from edgefn.store.ledger import Era
from edgefn.store.records import (
    CALL,
    INVOCATION,
    CheckpointPart,
    Commit,
    DeadLetter,
    Drop,
    Item,
    Letter,
    NewItem,
    OpenReport,
    Refused,
    Spent,
    Stats,
    StreamStats,
)
from edgefn.store.store import Store, open_store
from edgefn.store.totals import Totals

__all__ = [
    "CALL",
    "INVOCATION",
    "CheckpointPart",
    "Commit",
    "DeadLetter",
    "Drop",
    "Era",
    "Item",
    "Letter",
    "NewItem",
    "OpenReport",
    "Refused",
    "Spent",
    "Stats",
    "Store",
    "StreamStats",
    "Totals",
    "open_store",
]
