"""How long until something works: from the start of the process, and from a handler file that nobody has compiled."""

from __future__ import annotations

import os
import time
from statistics import median

from bench.memory import shipped
from bench.rig import Rig
from bench.rows import Options, Row, Target

# New content each time, which no cache has. Its alert is raised by every event, so the first one shows that it runs.
FRESH = """\
from edgefn import anomaly


@anomaly("fresh/+", threshold={threshold}, to="local")
def fresh(n, value) -> float:
    return value * 2.0 + {constant}
"""


def run(options: Options) -> list[Row]:
    starts, alone, drops = [], [], []
    with Rig(shipped()):
        pass  # the caches are warm from here on
    for _ in range(options.repeats):
        with Rig({}, wait=False) as rig:
            alone.append((rig.wait_ready() - rig.started) / 1e9)
        with Rig(shipped(), wait=False) as rig:
            starts.append((rig.wait_ready() - rig.started) / 1e9)
            drops.append(_drop(rig))
    return [
        Row(
            "start → first event handled, caches warm",
            median(starts),
            "s",
            target=Target(3.0, 0.7, "lower", "value"),
            note=f"shipped handlers; {median(alone):.2f} s with one handler file",
        ),
        Row(
            "handler file dropped → first event handled, cold",
            median(drops),
            "s",
            target=Target(15.0, 5.0, "lower", "value"),
            note="one anomaly handler, beside the shipped ones",
        ),
    ]


def _drop(rig: Rig) -> float:
    """Seconds from the file's appearance to the first alert of its handler."""
    constant = int.from_bytes(os.urandom(6)) / 2**48
    path = rig.folder / "handlers" / "fresh.py"
    rig.fresh_alerts = 0
    started = time.monotonic()
    path.with_suffix(".tmp").write_text(FRESH.format(threshold=constant + 1.0, constant=constant))
    path.with_suffix(".tmp").replace(path)
    while not rig.fresh_alerts:
        if time.monotonic() - started > 120:
            raise TimeoutError(f"the dropped file does not run; the log ends:\n{rig.log[-2000:]}")
        for value in (0, 1):
            rig.send("fresh/1", b'{"n":0,"value":%d}' % value)
        rig.listen(0.02)
    took = time.monotonic() - started
    path.unlink()
    rig.wait("the end of the dropped handler", lambda: not rig.states.get("fresh", {}), 30)
    return took
