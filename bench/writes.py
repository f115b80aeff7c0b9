"""Bytes that reach the card in a day: 10 summaries a second from 100 keys whose events come at QoS 1."""

from __future__ import annotations

import time

from bench import proc
from bench.rig import Rig
from bench.rows import Options, Row, Target
from bench.wire import publish

KEYS = 100
DAY = 86_400
GB = 1e9

HANDLER = '''\
"""One summary of each room every ten seconds."""

from edgefn import summarize

ten = summarize("bench/{room}/slow", "10s", stats=("mean", "min", "max"), fields=("temperature",))
'''


def run(options: Options) -> list[Row]:
    seconds = 20 if options.quick else 40
    written, note = _measure(seconds, "1s")
    seldom, _ = _measure(seconds, "5s")
    return [
        Row(
            "written in a day, 10 summaries/s from 100 keys at QoS 1",
            written,
            "GB",
            target=Target(2.0, 0.5, "lower", "value"),
            note=f"{note}; with a commit each 5 s {seldom:.2f} GB" if written else note,
        )
    ]


def _measure(seconds: float, commit_interval: str) -> tuple[float | None, str]:
    """Gigabytes a day that the gateway has sent to the disk, and from what that follows."""
    settings = f'[engine]\ncommit_interval = "{commit_interval}"'
    with Rig({"ten.py": HANDLER}, interval="10s", settings=settings) as rig:
        packet_id = _publish(rig, 14.0, 0)  # until the first windows close
        before, summaries, started = proc.io(rig.gateway), rig.summaries["ten"], time.monotonic()
        _publish(rig, seconds, packet_id)
        elapsed = time.monotonic() - started
        after = proc.io(rig.gateway)
        made = (rig.summaries["ten"] - summaries) / elapsed
        if not made:
            raise RuntimeError(f"no summary came; the end of the log:\n{rig.log[-2000:]}")
    if not after["write_bytes"]:
        return None, "this file system does not count what it writes"
    written = (after["write_bytes"] - before["write_bytes"]) / elapsed
    return written * DAY / GB, f"{written / made:,.0f} bytes a summary, from {elapsed:.0f} s with {made:.1f} a second"


def _publish(rig: Rig, seconds: float, packet_id: int) -> int:
    """An event a second from each key, evenly spread; their clocks are apart, so that their windows close evenly too."""
    started = due = time.monotonic()
    n = 0
    while due < started + seconds:
        rig.listen(due - time.monotonic())
        key = n % KEYS
        packet_id = packet_id % 65535 + 1
        ts = time.time_ns() - key * 100_000_000
        rig.connection.send(
            publish(f"bench/room{key:02d}/slow", b'{"ts":%d,"temperature":%d.5}' % (ts, 18 + key % 9), packet_id)
        )
        n += 1
        due += 1 / KEYS
    return packet_id
