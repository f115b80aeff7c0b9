"""Python handlers: how many a second, how soon they start, warm and from nothing, and what a worker and its neighbours cost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from bench import proc
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.wire import Connection, publish
from edgefn.functions.pool import Pool
from edgefn.functions.workers import Program, Worker
from edgefn.metrics import Metrics

TRIVIAL = """
import time
from edgefn import on

@on("fn/{name}/x", max_queue=100000)
def {name}(event):
    return {{"sent": event["t"], "at": time.monotonic_ns()}} if event["t"] else None
"""
LOOPS = """
from edgefn import on

@on("fn/loops/x", timeout="1s", retries=0)
def loops():
    while True:
        pass
"""
MANY = 20
SETTINGS = "[functions]\nworkers = 32\n"


def run(options: Options) -> list[Row]:
    files = {f"f{n:02}.py": TRIVIAL.format(name=f"f{n:02}") for n in range(MANY)}
    with Rig({**files, "loops.py": LOOPS}, settings=SETTINGS, interval="10s") as rig:
        rig.kept.update(name.removesuffix(".py") for name in files)
        rig.wait(
            "all handlers",
            lambda: all(rig.states.get(f"f{n:02}", {}).get("state") == "active" for n in range(MANY)),
            60,
        )
        rows = [*_idle(rig, options)]
        before = _memory(rig)
        cold = np.array([_latency(rig, f"f{n:02}") for n in range(MANY)])
        extra = (_memory(rig) - before) / MANY
        warm = np.array([_latency(rig, "f00") for _ in range(100 if options.quick else 400)])
        rows += [
            Row("event → start of a Python handler, warm, p50", _ms(warm, 50), "ms", note=f"{warm.size} events"),
            Row(
                "event → start of a Python handler, warm, p99",
                _ms(warm, 99),
                "ms",
                target=Target(5, 2.5, "lower", "value"),
            ),
            Row("event → start, no worker yet, p50", _ms(cold, 50), "ms", note=f"{cold.size} files"),
            Row("event → start, no worker yet, p99", _ms(cold, 99), "ms", target=Target(50, 20, "lower", "value")),
            Row("proportional memory of one more worker", extra, "MB", target=Target(10, 5, "lower", "value")),
        ]
        for qos, name in ((0, "QoS 0"), (1, "durable")):
            rates = [_rate(rig, qos, 2_000 if options.quick else 6_000) for _ in range(options.repeats)]
            target = Target(1_000, 3_000, "higher", "value") if qos else None
            rows.append(
                Row(f"invocations of a trivial Python handler, {name}", float(np.median(rates)), "1/s", target=target)
            )
        rows.append(_beside_a_loop(rig, options))
        rows.append(_dropped(rig))
    rows.append(asyncio.run(_forks(50)))
    return rows


def _ms(latencies: np.ndarray[tuple[int], np.dtype[np.float64]], share: int) -> float:
    return float(np.percentile(latencies, share))


def _latency(rig: Rig, name: str) -> float:
    """One event, from its write to the first line of the handler, in ms."""
    n = len(rig.rows)
    rig.send(f"fn/{name}/x", b'{"t":%d}' % time.monotonic_ns())
    rig.wait(f"a row of {name}", lambda: len(rig.rows) > n, 20)
    values = rig.rows[-1]["values"]
    return float(values["at"] - values["sent"]) / 1e6


def _memory(rig: Rig) -> float:
    return sum(proc.pss(pid) for pid in rig.family().values()) / 2**20


def _idle(rig: Rig, options: Options) -> list[Row]:
    family = rig.family()
    before = [(proc.cpu_seconds(pid), proc.voluntary_switches(pid)) for pid in family.values()]
    started = time.monotonic()
    rig.listen(5.0 if options.quick else 15.0)
    elapsed = time.monotonic() - started
    after = [(proc.cpu_seconds(pid), proc.voluntary_switches(pid)) for pid in family.values()]
    cpu = sum(b[0] - a[0] for a, b in zip(before, after, strict=True)) / elapsed * 100
    switches = sum(b[1] - a[1] for a, b in zip(before, after, strict=True)) / elapsed
    note = f"{switches:.1f} switches/s; metrics each 10 s"
    return [Row(f"idle with {MANY} Python handlers: CPU of all processes", cpu, "% of a core", note=note)]


def _rate(rig: Rig, qos: int, n: int) -> float:
    """Events a second from the first write until the handler has the last one; it takes them in their order."""
    frames = [publish("fn/f00/x", b'{"t":0}', (i % 60_000 + 1) if qos else 0) for i in range(n)]
    # At QoS 0 the engine lets 2,000 be under way and drops what is beyond, so the load is held to what is taken.
    piece = 500 if qos else 100
    seen = len(rig.rows)
    with Connection(rig.broker.port, "bench-functions") as load:
        started = time.monotonic()
        for at in range(0, n, piece):
            load.send(b"".join(frames[at : at + piece]))
            if not qos:
                rig.send("fn/f00/x", b'{"t":1}')
                expected = seen + at // piece + 1
                rig.wait("a piece", lambda expected=expected: len(rig.rows) >= expected, 60)  # type: ignore[misc]
        load.send(publish("fn/f00/x", b'{"t":1}', 65_000 if qos else 0))
        last = seen + (n + piece - 1) // piece + 1 if not qos else seen + 1
        rig.wait("the last one", lambda: len(rig.rows) >= last, 120)
        return n / (time.monotonic() - started)


def _beside_a_loop(rig: Rig, options: Options) -> Row:
    """The p99 of one handler while another one loops until its deadline, over its p99 alone; in turns."""
    alone, beside = [], []
    for _ in range(3 if options.quick else 8):
        alone += [_latency(rig, "f01") for _ in range(100)]
        rig.send("fn/loops/x", b"{}")
        rig.listen(0.05)
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            beside.append(_latency(rig, "f01"))
        rig.listen(0.5)
    ratio = float(np.percentile(beside, 99) / np.percentile(alone, 99))
    note = f"{len(beside)} events, p50 {np.median(beside):.2f} against {np.median(alone):.2f} ms"
    return Row(
        "p99 of a Python handler beside one that loops for ever", float(np.percentile(beside, 99)), "ms",
        peer=f"alone {np.percentile(alone, 99):.2f} ms", ratio=ratio, target=Target(1.2, 1.05, "lower", "ratio"), note=note,
    )  # fmt: skip


def _dropped(rig: Rig) -> Row:
    """From the appearance of a file in the folder until its handler is active."""
    started = time.monotonic()
    (rig.folder / "handlers" / "late.py").write_text(TRIVIAL.format(name="late"))
    rig.wait("late", lambda: rig.states.get("late", {}).get("state") == "active", 60)
    return Row(
        "Python handler file dropped → active", time.monotonic() - started, "s", target=Target(15, 5, "lower", "value")
    )


async def _forks(n: int) -> Row:
    """From the request to the answer, with the process in between."""
    pool = Pool(n, Metrics(), gateway="bench", secrets=Path("/"), heard=lambda *_: None, ended=lambda _: None)
    pool.want()
    task = asyncio.create_task(pool.run())
    times = []
    program = Program("x.py", __file__, "1", False, 32 << 20)

    async def forked(worker: Worker) -> float:
        started = time.perf_counter()
        while not worker.pid:  # noqa: ASYNC110 - a timer would be in the measurement
            await asyncio.sleep(0)
        return (time.perf_counter() - started) * 1e3

    for _ in range(n):
        worker = pool.find(program, 0)
        assert worker is not None
        times.append(await forked(worker))
    await pool.stop(0)
    task.cancel()
    warm = sorted(times[1:])
    return Row("fork of a worker", warm[len(warm) // 2], "ms", note=f"worst of {len(warm)}: {warm[-1]:.1f} ms")
