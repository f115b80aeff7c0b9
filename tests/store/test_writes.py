"""What a commit costs the card: a second of 100 events and 10 summaries, its state, and the summaries that have left."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from edgefn.store import CheckpointPart, Commit
from tests.store.helpers import a_store, item

COMMITS = 100


async def test_a_usual_commit_costs_nine_kilobytes(tmp_path: Path) -> None:
    path, bytes_of = tmp_path / "edgefn.db", random.Random(1).randbytes
    log = path.with_name(path.name + "-wal")
    async with a_store(path) as store:
        left: list[int] = []
        before = 0
        for n in range(COMMITS + 20):
            if n == 20:
                before = log.stat().st_size
            parts = [
                CheckpointPart("panes", "delta" if n % 60 else "snapshot", bytes_of(700 if n % 60 else 4000)),
                CheckpointPart("session", "snapshot", bytes_of(900)),
            ]
            leaving = asyncio.create_task(store.acknowledge("cloud", left, patience=60.0))
            await asyncio.sleep(0)
            left = [one.id for one in await store.commit(Commit([item(size=140) for _ in range(10)], parts))]
            await leaving
        assert (log.stat().st_size - before) / COMMITS < 9_400  # 9,044; 18,828 with pages of 4 kB
