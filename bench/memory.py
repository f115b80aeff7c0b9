"""Proportional memory of every process, with the handlers and the drivers that ship."""

from __future__ import annotations

from bench import proc
from bench.rig import Rig
from bench.rows import Options, Row, Target
from edgefn.resources import bundled

DRIVERS = "\n".join(f'[[driver]]\nname = "{name}"' for name in ("host", "boiler", "motor", "door", "climate"))


def shipped() -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(bundled("handlers").glob("*.py"))}


def run(options: Options) -> list[Row]:
    with Rig(shipped(), drivers=DRIVERS, interval="10s") as rig:
        rig.listen(3 if options.quick else 10)
        sizes = {name: proc.pss(pid) / 2**20 for name, pid in rig.family().items()}
        handlers = sum(state.get("state") == "active" for state in rig.states.values())
    parts = ", ".join(f"{name.removeprefix('edgefn.')} {size:.0f}" for name, size in sizes.items())
    return [
        Row(
            f"proportional memory, {handlers} handlers, 5 drivers",
            sum(sizes.values()),
            "MB",
            target=Target(250, 80, "lower", "value"),
            note=parts,
        )
    ]
