"""What a gateway costs that has nothing to do: CPU and wake-ups, with the shipped handlers and no driver."""

from __future__ import annotations

import time

from bench import proc
from bench.memory import shipped
from bench.rig import Rig
from bench.rows import Options, Row, Target


def run(options: Options) -> list[Row]:
    seconds = 6.0 if options.quick else 20.0
    with Rig(shipped(), interval="10s") as rig:
        rig.listen(2.0)  # the start has settled, and the windows that the first marks opened are closed
        family = rig.family()
        before = {name: (proc.cpu_seconds(pid), proc.voluntary_switches(pid)) for name, pid in family.items()}
        started = time.monotonic()
        rig.listen(seconds)
        elapsed = time.monotonic() - started
        after = {name: (proc.cpu_seconds(pid), proc.voluntary_switches(pid)) for name, pid in family.items()}
    cpu = {name: (after[name][0] - before[name][0]) / elapsed * 100 for name in family}
    switches = {name: (after[name][1] - before[name][1]) / elapsed for name in family}

    def parts(values: dict[str, float]) -> str:
        return ", ".join(f"{name.removeprefix('edgefn.')} {value:.2g}" for name, value in values.items())

    return [
        Row(
            "idle, drivers off: CPU of all processes",
            sum(cpu.values()),
            "% of a core",
            target=Target(1.0, 0.2, "lower", "value"),
            note=parts(cpu),
        ),
        Row(
            "idle, drivers off: voluntary context switches",
            sum(switches.values()),
            "1/s",
            target=Target(50, 10, "lower", "value"),
            note=parts(switches),
        ),
    ]
