"""The durable state of a gateway: what must reach the cloud and what must survive a power cut, in one SQLite file."""

from edgefn.store.records import CheckpointPart, Commit, Drop, Item, NewItem, OpenReport, Stats
from edgefn.store.store import Store, open_store

__all__ = [
    "CheckpointPart",
    "Commit",
    "Drop",
    "Item",
    "NewItem",
    "OpenReport",
    "Stats",
    "Store",
    "open_store",
]
