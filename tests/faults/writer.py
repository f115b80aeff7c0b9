"""A process that commits, sends and acknowledges through the real store, and notes each step where no power cut reaches.

    python -m tests.faults.writer FOLDER NOTES SEED FIRST STEPS [SYNCHRONOUS]

Commit number n brings some items and the state of a handler, which is n. A note is one line of JSON in the file NOTES, written
at once: {"wanted": n, "kind": "snapshot", "items": k} before a commit, {"stored": n, "keys": […]} after it or {"refused": n},
{"sent": [[key, n, i], …]} when the far side has got a batch, {"told": […]} when the store knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgefn.clock import SystemClock
from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Commit, Item, NewItem, Store, open_store

GATEWAY = "gw-1"
STREAMS = {"summary/a": 0, "summary/b": 1, "alert/c": 2}
QUOTA = 64 << 10  # bytes: small enough to be met

Note = Callable[..., None]


def a_commit(n: int, rng: random.Random) -> Commit:
    items = []
    for i in range(rng.randrange(1, 9)):
        stream = rng.choice(list(STREAMS))
        payload = json.dumps({"n": n, "i": i}).encode().ljust(rng.choice((60, 200, 3000)))
        items.append(NewItem(stream, payload, SystemClock().now(), STREAMS[stream]))
    kind = "snapshot" if n % 8 == 1 or rng.random() < 0.2 else "delta"
    return Commit(items, [CheckpointPart("handler", kind, str(n).encode())])


def name(item: Item) -> list[Any]:
    """The key of an item, and which one of which commit it is."""
    payload = json.loads(item.payload)
    return [item.key, payload["n"], payload["i"]]


def the_store(folder: Path, *, quota: int = 1 << 24) -> Store:
    return open_store(
        folder / "edgefn.db",
        gateway=GATEWAY,
        clock=SystemClock(),
        metrics=Metrics(),
        max_bytes=quota,
        uplinks=["cloud"],
    )


async def commit(store: Store, n: int, rng: random.Random, note: Note) -> None:
    new = a_commit(n, rng)
    note(wanted=n, kind=new.checkpoint[0].kind, items=len(new.items))
    try:
        stored = await store.commit(new)
    except StoreError as error:
        note(refused=n, why=str(error))
    else:
        note(stored=n, keys=[item.key for item in stored])


async def send(store: Store, rng: random.Random, note: Note) -> None:
    """One batch to a far side that takes everything. An acknowledgement that the store refuses is forgotten."""
    try:
        batch = await store.read("cloud", rng.randrange(1, 40), oldest_first=rng.random() < 0.3)
        if batch:
            note(sent=[name(item) for item in batch])
            await store.acknowledge("cloud", [item.id for item in batch])
            note(told=[item.key for item in batch])
    except StoreError as error:
        note(unheard=str(error))


async def work(store: Store, rng: random.Random, first: int, steps: int, note: Note) -> None:
    """Some steps, each a batch that is sent or commits, alone or a few that share a transaction; `first` numbers them."""
    n = first
    for _ in range(steps):
        if rng.random() < 0.3:
            await send(store, rng, note)
            continue
        together = 1 if rng.random() < 0.8 else rng.randrange(2, 5)
        await asyncio.gather(*(commit(store, n + i, rng, note) for i in range(together)))
        n += together


async def main(folder: Path, to: Path, seed: int, first: int, steps: int, synchronous: str = "FULL") -> None:
    rng = random.Random(seed)
    notes = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(**what: Any) -> None:
        os.write(notes, json.dumps(what).encode() + b"\n")

    async with the_store(folder, quota=QUOTA if seed % 3 == 0 else 1 << 24) as store:
        await store._database.read(lambda db, _: db.execute(f"PRAGMA synchronous = {synchronous}"))
        await work(store, rng, first, steps, note)
        if rng.random() < 0.5:
            os._exit(9)  # not every run ends well


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6]), *sys.argv[6:]))
