"""Workers come when they are wanted and go when they are idle; a template that dies takes all with it, and nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgefn.functions.pool import Pool
from edgefn.functions.protocol import FromWorker, Ready
from edgefn.functions.workers import Program, Worker
from edgefn.metrics import Metrics

FILE = "from edgefn import on\n@on('a')\ndef a(): pass\n"


class Crowd:
    """A pool, and what it has told."""

    def __init__(self, size: int, idle: float) -> None:
        self.ready: list[Worker] = []
        self.ended: list[Worker] = []
        self.pool = Pool(
            size,
            Metrics(),
            gateway="gw",
            secrets=Path("/nowhere"),
            heard=self._heard,
            ended=self.ended.append,
            idle=idle,
        )

    def _heard(self, worker: Worker, message: FromWorker) -> None:
        if isinstance(message, Ready):
            self.ready.append(worker)

    async def until_ready(self, worker: Worker) -> None:
        async with asyncio.timeout(20):
            while worker not in self.ready:
                await asyncio.sleep(0.005)

    async def until_ended(self, worker: Worker) -> None:
        async with asyncio.timeout(20):
            while worker not in self.ended:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def crowd(size: int = 4, idle: float = 60.0) -> AsyncIterator[Crowd]:
    one = Crowd(size, idle)
    one.pool.want()
    task = asyncio.create_task(one.pool.run())
    try:
        yield one
    finally:
        await one.pool.stop(0)
        await one.pool.stop(0)
        task.cancel()


def program(folder: Path, name: str = "a", *, is_async: bool = False) -> Program:
    file = folder / f"{name}.py"
    file.write_text(FILE)
    return Program(str(file), str(file), "1", is_async, 32 << 20)


async def test_an_idle_worker_is_used_again_and_goes_after_a_while(tmp_path: Path) -> None:
    async with crowd(idle=0.2) as one:
        worker = one.pool.find(program(tmp_path), 1)
        assert worker is not None
        await one.until_ready(worker)
        one.pool.begin(worker, "1", "a")
        assert one.pool.find(program(tmp_path), 1) is not worker
        one.pool.returned(worker, "1")
        assert one.pool.find(program(tmp_path), 1) is worker
        await one.until_ended(worker)
        assert (worker.status, worker.why) == (0, "")


async def test_an_async_program_has_one_worker_for_many_calls(tmp_path: Path) -> None:
    async with crowd() as one:
        worker = one.pool.find(program(tmp_path, is_async=True), 2)
        assert worker is not None
        one.pool.begin(worker, "1", "a")
        assert one.pool.find(program(tmp_path, is_async=True), 2) is worker
        one.pool.begin(worker, "2", "a")
        assert one.pool.find(program(tmp_path, is_async=True), 2) is None


async def test_when_all_places_are_taken_the_one_that_has_been_idle_for_longest_makes_room(tmp_path: Path) -> None:
    async with crowd(size=2) as one:
        first, second = (one.pool.find(program(tmp_path, name), 1) for name in ("a", "b"))
        assert first is not None
        assert second is not None
        one.pool.begin(second, "1", "b")
        await one.until_ready(first)
        assert one.pool.find(program(tmp_path, "c"), 1) is None  # its place is not free before it has gone
        await one.until_ended(first)
        assert one.pool.find(program(tmp_path, "c"), 1) is not None
        assert second not in one.ended


async def test_a_template_that_dies_while_it_makes_a_worker_leaves_none_that_two_processes_answer_for(
    tmp_path: Path,
) -> None:
    """Such a worker got its state once from each side: the second process went on without any."""
    async with crowd() as one:
        ready = one.pool.find(program(tmp_path), 1)
        assert ready is not None
        await one.until_ready(ready)
        one.pool.begin(ready, "1", "a")
        os.kill(one.pool.template_pid, signal.SIGSTOP)
        made = one.pool.find(program(tmp_path), 1)
        assert made is not None
        assert not made.pid
        os.kill(one.pool.template_pid, signal.SIGKILL)
        await one.until_ended(made)
        await one.until_ended(ready)
        assert not one.pool.workers
        again = one.pool.find(program(tmp_path), 1)
        assert again is not None
        await one.until_ready(again)


async def test_a_template_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a handler has used up all processes that the user may have: the gateway goes on."""
    start, refused = asyncio.create_subprocess_exec, []

    async def refuse_once(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        if not refused:
            refused.append(1)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await start(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)
    monkeypatch.setattr("edgefn.functions.pool.RESTART", 0.01)
    async with crowd() as one:
        worker = one.pool.find(program(tmp_path), 1)
        assert worker is not None
        await one.until_ready(worker)
    assert "cannot be started: [Errno 11] Resource temporarily unavailable" in caplog.text
