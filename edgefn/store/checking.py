"""A store looked over from outside, while no gateway runs: nothing in it is changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefn.errors import StoreError
from edgefn.store import asides, checkpoint
from edgefn.store.files import Lock, wal_path
from edgefn.store.reserve import Ballast, free_room
from edgefn.store.rows import COLUMNS, intact
from edgefn.store.source import Source

_MOST = 20  # messages of SQLite's own check


@dataclass(slots=True)
class Check:
    """What was found. Sizes in bytes; `streams` are (epoch, name, rows, given up so far)."""

    path: str
    version: int = 0
    epoch: str = ""
    size: int = 0
    log_size: int = 0
    free_inside: int = 0  # pages that new rows will use
    free_on_disk: int = 0
    ballast: int = 0
    rows: int = 0
    dead_letters: int = 0
    state_of: int = 0  # handlers and windows
    streams: list[tuple[str, str, int, int]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def check(path: Path) -> Check:
    """Reads all of the store at `path`. Raises StoreError where it cannot: in use, not there, of another program, newer."""
    if not path.exists():
        raise StoreError(f"{path}: there is no store; name the folder of the settings or of the store")
    with Lock(path):
        report = Check(
            str(path),
            size=path.stat().st_size,
            log_size=wal_path(path).stat().st_size if wal_path(path).exists() else 0,
            free_on_disk=free_room(path.parent),
            ballast=Ballast(path, 0).held,
        )
        if asides.suspect(path).exists():
            report.findings.append("damage was met while it was open: the next start looks for it")
        report.findings += [
            f"{file.name}: not everything that can be read of it is taken over yet" for file in asides.pending(path)
        ]
        with Source(path, mend=False) as source:
            _look(source, report)
    return report


def _look(source: Source, report: Check) -> None:
    meta = dict(source.small("meta", {"name": str, "value": str}))
    report.version = next(iter(source.pragma("user_version")), 0)
    report.epoch = str(meta.get("epoch", ""))
    report.free_inside = next(iter(source.pragma("freelist_count")), 0) * next(iter(source.pragma("page_size")), 0)
    for finding in source.pragma(f"integrity_check({_MOST})") or ["its structure cannot be followed"]:
        if finding != "ok":
            report.findings.append(f"structure: {finding}")
    if not report.epoch:
        report.findings.append("its epoch cannot be read")
    present = _look_at_rows(source, report)
    _look_at_accounts(source, report, present)
    _look_at_state(source, report)
    for _, stream, seq, ts, uplink, crc, payload in source.rows(
        "dead", ["stream", "seq", "ts", "uplink", "crc", "payload"]
    ):
        report.dead_letters += 1
        if not intact((0, stream, seq, ts, None, 0, 0, 0, crc, payload, None)):
            report.findings.append(f"a dead letter of uplink {uplink} fails its checksum")


def _look_at_rows(source: Source, report: Check) -> dict[Any, list[int]]:
    """How many intact rows a stream has, and the highest number among them."""
    present: dict[Any, list[int]] = {}
    for priority in range(3):
        damaged = 0
        for row in source.rows(f"item_{priority}", COLUMNS.split(", ")[1:]):
            if not intact(row):
                damaged += 1
                continue
            report.rows += 1
            one = present.setdefault(row[1], [0, 0])
            one[0] += 1
            one[1] = max(one[1], row[2])
        if damaged:
            report.findings.append(f"{damaged} rows of priority {priority} fail their checksum")
    return present


def _look_at_accounts(source: Source, report: Check, present: dict[Any, list[int]]) -> None:
    accounts = {id_: account for id_, *account in source.sealed("account", {"id": int, "next_seq": int, "gone": int})}
    dropped = Counter[Any]()
    for stream, n in source.small("dropped", {"stream": int, "n": int}):
        dropped[stream] += n
    names = {id_: (epoch, name) for id_, epoch, name in source.sealed("stream", {"id": int, "epoch": str, "name": str})}
    for table in ("stream", "account"):
        if spoilt := len(source.small(table, {"id": int})) - len(source.sealed(table, {"id": int})):
            report.findings.append(f"{spoilt} rows of the table {table} fail their checksum")
    for id_ in sorted(set(present) - set(names)):
        report.findings.append(f"{present[id_][0]} rows are of a stream that the store does not know")
    for id_, (epoch, name) in names.items():
        rows, newest = present.get(id_, (0, 0))
        report.streams.append((epoch, name, rows, dropped[id_]))
        if id_ not in accounts:
            continue
        next_seq, gone = accounts[id_]
        if missing := next_seq - 1 - gone - rows:
            what = f"{missing} rows are missing" if missing > 0 else f"{-missing} rows are there that should be gone"
            report.findings.append(f"stream {name} of epoch {epoch}: {what}")
        if newest >= next_seq:
            report.findings.append(f"stream {name} of epoch {epoch}: number {newest} was never given out")


def _look_at_state(source: Source, report: Check) -> None:
    parts = Counter[str]()
    damaged: set[str] = set()
    for _, owner, n, crc, data in source.rows("checkpoint", ["owner", "n", "crc", "data"]):
        if n != parts[owner] or not isinstance(data, bytes) or checkpoint.checksum(owner, n, data) != crc:
            damaged.add(owner)
        parts[owner] += 1
    report.state_of = len(parts)
    report.findings += [f"the saved state of {owner} fails its checksum" for owner in sorted(damaged)]
