"""What the kernel says a process has used: CPU, memory, wake-ups and bytes written, read from /proc."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads; a tick of 10 ms is the resolution."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def pss(pid: int) -> int:
    """Bytes of memory, where a page that n processes share counts as 1/n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10


def peak(pid: int) -> int:
    """The most bytes that it has had resident at once."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10


def voluntary_switches(pid: int) -> int:
    """How often its threads have gone to sleep: each is a wake-up of the CPU."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total


def io(pid: int) -> dict[str, int]:
    """write_bytes: sent to the disk. wchar: passed to write calls, sockets included."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, _, value in (line.partition(":") for line in lines)}


def family(pid: int) -> dict[int, str]:
    """The process and all that descend from it, with the module or script that each runs."""
    found = {pid: _name(pid)}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found |= family(int(child))
    return found


def _name(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    for flag, following in pairwise(arguments):
        if flag == "-m":
            return following if following != "edgefn" else "edgefn run"
    return Path(arguments[0]).name
