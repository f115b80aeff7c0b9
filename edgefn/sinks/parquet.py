"""From a file of envelopes, a line each, to a Parquet file; a process of its own, which ends with the file.

Arrow takes 30 MB of memory once it is imported and gives none of it back. A gateway that needs it once an hour would
be two thirds larger all the time, and would end with it where Arrow does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from edgefn.processes import die_with_parent

ROWS = 2_000  # of one row group: what is in memory at a time
TIMEOUT = 600.0  # seconds for a file
MISSING = "format = 'parquet' needs pyarrow, which is not installed: pip install 'edgefn[parquet]'"

_SCALARS = {"handler": str, "key": str, "state": str, "samples": int, "window_s": float, "revision": bool}
_EXACT = 1 << 53  # whole numbers up to here are doubles as well


class ConversionError(Exception):
    """The Parquet file was not made; the message is the last that the process said."""


def is_installed() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def convert(lines: Path, target: Path) -> None:
    """Writes `target`, synced to the disk, and blocks until then. Raises ConversionError; `target` may be there in part."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "edgefn.sinks.parquet", str(lines), str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            preexec_fn=_begin,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(str(error)) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ConversionError(said[-1] if said else f"it ended with status {done.returncode}")


def _begin() -> None:
    # systemd and Ctrl-C tell every process of ours to end. The gateway waits for this one, so that its last file is made.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    os.nice(10)  # the engine and the store come first


def rows(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The envelopes as rows. What the columns cannot hold exactly stays, as JSON, in `data`; else that is null."""
    for line in lines:
        whole = json.loads(line)
        data = whole.pop("data")
        columns = _columns(data)
        yield {**whole, **(columns or {}), "data": None if columns else json.dumps(data, separators=(",", ":"))}


def _columns(data: Any) -> dict[str, Any] | None:
    """The members of a summary or an alert by column; None for anything else, and for what would lose something."""
    if not isinstance(data, dict) or not data.keys() <= _SCALARS.keys() | {"ts", "values"}:
        return None
    found = {name: value for name, value in data.items() if name in _SCALARS}
    for name, value in found.items():
        kinds = (int, float) if _SCALARS[name] is float else (_SCALARS[name],)
        if type(value) not in kinds:
            return None
    values = data.get("values")
    if not isinstance(values, dict) or not all(_is_double(value) for value in values.values()):
        return None
    found["values"] = [(name, None if value is None else float(value)) for name, value in values.items()]
    return found


def _is_double(value: Any) -> bool:
    if value is None or isinstance(value, (bool, float)):
        return True
    return isinstance(value, int) and -_EXACT <= value <= _EXACT


def write(lines: Iterator[bytes], target: Path, rows_per_group: int = ROWS) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("gateway", name, nullable=False),
            pa.field("epoch", name, nullable=False),
            pa.field("stream", name, nullable=False),
            pa.field("seq", pa.int64(), nullable=False),
            pa.field("ts", pa.timestamp("ns", tz="UTC"), nullable=False),
            pa.field("unsynced", pa.bool_()),
            pa.field("handler", name),
            pa.field("key", name),
            pa.field("state", name),
            pa.field("samples", pa.int64()),
            pa.field("window_s", pa.float64()),
            pa.field("revision", pa.bool_()),
            pa.field("values", pa.map_(pa.string(), pa.float64())),
            pa.field("data", pa.string()),
        ]
    )
    made = rows(lines)
    with target.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", version="2.6") as writer:
            while group := list(islice(made, rows_per_group)):
                writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def main(arguments: Sequence[str]) -> None:
    lines, target = map(Path, arguments)
    with lines.open("rb") as file:
        write(iter(file), target)


if __name__ == "__main__":
    main(sys.argv[1:])
