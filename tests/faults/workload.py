"""The handlers under test, and what they must put out for the first n events of a load, worked out the slow way."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from tests.faults.cloud import Cloud, Row
from tests.faults.load import Load, Truth

HANDLERS = """
from dataclasses import dataclass
from typing import NamedTuple
from edgefn import aggregate, anomaly, count, filter, tumbling

@filter("machines/{machine}")
def plausible(v):
    return v < 900

class Row(NamedTuple):
    total: float
    n: int

# Nothing is late, and no key is taken for silent while nobody is there to listen to it.
@aggregate(plausible, tumbling("100ms", lateness="500ms", idle="1h"), to="uplink")
def tenth(v) -> Row:
    return Row(v.sum(), v.size)

@aggregate(tenth, tumbling("1s", idle="1h"), to="uplink")
def second(total) -> Row:
    return Row(total.sum(), total.size)

@aggregate(plausible, count(10), to="uplink")
def ten(v) -> Row:
    return Row(v.sum(), v.size)

@dataclass
class Seen:
    n: int = 0

# An event that is lost, or goes into the state twice, moves every alert after it.
@anomaly(plausible, threshold=1.0, clear=0.5, to="uplink")
def fiftieth(v, state: Seen) -> float:
    state.n += 1
    return 1.0 if state.n % 50 == 0 else 0.0
"""
TENTH, SECOND, LATENESS = 100_000_000, 1_000_000_000, 500_000_000
COMMIT = 0.25  # seconds from one commit to the next
STREAMS = ("summary/tenth", "summary/second", "summary/ten", "alert/fiftieth")

Rows = dict[str, dict[tuple[str, int], Row]]


def expected(truth: Truth, n: int) -> Rows:
    """Every row of every stream after events 0 to n - 1: key and end (or time) → count and sum, or whether it is raised."""
    samples: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i in range(n):
        if truth.value(i) < 900:
            samples[truth.key(i)].append((truth.ts(i), truth.value(i)))
    rows: Rows = {stream: {} for stream in STREAMS}
    for key, events in samples.items():
        newest = max(ts for ts, _ in events)
        tenths = _windows(events, TENTH, newest - LATENESS)
        rows["summary/tenth"].update(((key, end), (len(vs), sum(vs))) for end, vs in tenths.items())
        totals = [(end, sum(vs)) for end, vs in tenths.items()]
        seconds = _windows(totals, SECOND, max(tenths, default=0))
        rows["summary/second"].update(((key, end), (len(vs), sum(vs))) for end, vs in seconds.items())
        for at in range(10, len(events) + 1, 10):
            rows["summary/ten"][key, events[at - 1][0]] = 10, sum(v for _, v in events[at - 10 : at])
        for at in range(50, len(events) + 1, 50):
            rows["alert/fiftieth"][key, events[at - 1][0]] = (True,)
            if at < len(events):
                rows["alert/fiftieth"][key, events[at][0]] = (False,)
    return rows


def _windows(samples: list[tuple[int, int]], size: int, watermark: int) -> dict[int, list[int]]:
    """The values of each window, by its end; those that the watermark has not closed are left out."""
    windows: dict[int, list[int]] = defaultdict(list)
    for ts, value in samples:
        windows[(ts // size + 1) * size].append(value)
    return {end: windows[end] for end in sorted(windows) if end <= watermark}


def differences(want: Rows, got: Rows) -> dict[str, dict[str, list[object]]]:
    """Up to five examples of what is lost, invented or wrong in each stream; empty where all is as it must be."""
    found: dict[str, dict[str, list[object]]] = {}
    for stream in {*want, *got}:
        wanted, there = want.get(stream, {}), got.get(stream, {})
        lost = sorted(wanted.keys() - there.keys())
        invented = sorted(there.keys() - wanted.keys())
        wrong = sorted(key for key in wanted.keys() & there.keys() if wanted[key] != there[key])
        if lost or invented or wrong:
            found[stream] = {
                f"{len(lost)} lost": [*lost[:5]],
                f"{len(invented)} invented": [*invented[:5]],
                f"{len(wrong)} wrong": [(key, wanted[key], there[key]) for key in wrong[:5]],
            }
    return found


async def settled(cloud: Cloud, load: Load, patience: float = 60.0) -> Rows:
    """Waits until as much has reached the cloud as the load must bring (or for `patience`); returns what it must bring."""
    want = await asyncio.to_thread(expected, load.truth, load.sent)
    total = sum(map(len, want.values()))
    try:
        async with asyncio.timeout(patience):
            while cloud.count < total:
                await cloud.grown(patience)
    except TimeoutError:
        pass  # what is missing is the finding
    return want


async def exact(cloud: Cloud, load: Load, patience: float = 60.0) -> None:
    """Everything has come that had to, once, and nothing else."""
    want = await settled(cloud, load, patience)
    print(f"{load.sent} events, {cloud.count} rows, {cloud.duplicates} came again")  # noqa: T201 - of a long run
    assert not cloud.findings
    assert not differences(want, cloud.rows)


async def caught_up(cloud: Cloud, load: Load) -> None:
    """What reaches the cloud is at most two seconds old."""
    while load.now - cloud.newest > 2 * SECOND:
        await cloud.grown(60)


def settings(broker: int, folder: Path, uplink: str) -> str:
    """edgefn.toml of a gateway without drivers, with one uplink given in TOML."""
    return (
        f'version = 1\ndriver = []\n[gateway]\nid = "testbed"\nstate = "{folder / "state"}"\n'
        f'[broker]\nport = {broker}\nprivate = "never"\n[monitor]\ninterval = "1s"\n'
        f'[engine]\ncommit_interval = "{COMMIT * 1000:g}ms"\n[[uplink]]\n{uplink}\n'
    )
