"""One compiled handler, once, in a process of its own: python -P -m edgefn.trial.once FILE NAME, the event on standard input.

Prints a line when the file is loaded and the time begins to count, and a line with what came of it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edgefn.config import cache_folder
from edgefn.engine.decode import fields_of, number, value_at
from edgefn.engine.nodes import Node
from edgefn.errors import PayloadError
from edgefn.fields import MAX_LEVELS
from edgefn.manifest import HandlerManifest, Manifest
from edgefn.processes import die_with_parent
from edgefn.trial import loading
from edgefn.trial.calls import Here
from edgefn.trial.clock import ManualClock
from edgefn.trial.invoke import Answer, Asked, way
from edgefn.trial.rows import Row, Told
from edgefn.trial.trial import Trial


def run(manifest: Manifest, name: str, event: Asked) -> Answer:
    """Sends the event through the file's handlers, and lets time pass until windows have closed."""
    rows: list[dict[str, Any]] = []

    def told(one: Told) -> None:
        if isinstance(one, Row) and one.handler == name:
            rows.append({"ts": one.ts, "key": one.key, "values": one.values})

    clock = ManualClock(time.time_ns())
    trial = Trial([_with_rows(manifest, name)], Here(clock, Path(), "gw"), clock, told)
    assert trial.compiled is not None
    started = time.perf_counter()
    trial.publish(event.topic, event.payload)
    trial.finish()
    result = Answer(rows, seconds=time.perf_counter() - started)
    nodes = trial.compiled.plan.nodes
    steps = way(manifest, name)
    if steps[-1].kind == "filter":
        result.kept = nodes[name].meter.rows > 0
    for one in steps:
        node = nodes[one.name]
        if _stopped(result, one, node, event, manifest):
            result.kept = None
            return result
        if one.kind == "filter" and not node.meter.rows and one.name != name:
            result.note = f"the filter {one.name} leaves it out"
            return result
    if not rows and result.kept is None:
        result.note = _why_no_row(steps[-1])
    return result


def _with_rows(manifest: Manifest, name: str) -> Manifest:
    """All are switched on; a transform whose rows stay inside shows them here; and no Python handler is started."""
    handlers = []
    for one in manifest.handlers:
        options = replace(one.options, enabled=True)
        if one.name == name and one.kind == "transform":
            options = replace(options, to=("local",))
        handlers.append(msgspec.structs.replace(one, options=options))
    return msgspec.structs.replace(manifest, handlers=tuple(handlers), functions=())


def _stopped(result: Answer, one: HandlerManifest, node: Node, event: Asked, manifest: Manifest) -> bool:
    """Whether the event did not get past this handler, and why."""
    try:
        fields = fields_of(event.payload)
    except PayloadError as error:
        result.error = f"the payload cannot be decoded: {error}"
        return True
    if node.meter.raised:
        shown = ", ".join(f"{name}={value:g}" for name, value in (node.failed_row or {}).items())
        result.error = f"{one.name} raised an exception on {shown or 'its event'}"
        result.traceback = _as_python(manifest, one, node.failed_row or {})
        return True
    if not node.meter.skipped:
        return False
    needed = [entry for entry in one.inputs if entry.default is None]
    if one.parent is None:
        missing = [
            f"latest({entry.latest})" if entry.latest else entry.column
            for entry in needed
            if entry.latest or not _has(value_at(fields, entry.column))
        ]
        result.error = f"{one.name} skips it: it has no number for {', '.join(missing)}; it has {_shown(fields)}"
    else:
        result.error = f"{one.name} skips it: a value that it takes is missing"
    return True


def _has(value: Any) -> bool:
    return number(value) is not None or (value is not None and not isinstance(value, (str, dict, bool)))


def _shown(fields: dict[str, Any]) -> str:
    return ", ".join(_paths(fields)) or "nothing"


def _paths(fields: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[str]:
    """The way to each value, as `field` takes it."""
    for name, value in fields.items():
        levels = (*before, str(name))
        if isinstance(value, dict) and value and len(levels) < MAX_LEVELS:
            yield from _paths(value, levels)
        else:
            yield ".".join(levels) + (" (a text)" if isinstance(value, str) else "")


def _as_python(manifest: Manifest, one: HandlerManifest, row: dict[str, float]) -> str:
    """Machine code names no line, so the function is called as the plain Python it is; empty where that raises nothing."""
    import numpy as np

    from edgefn import loader

    file = Path(manifest.file)
    handlers, _ = loader.describe(file, loader.read_source(file))
    handler = next(other for other in handlers if other.name == one.name)
    if handler.function is None:
        return ""
    values: dict[str, Any] = dict(row)
    if handler.state is not None:
        values["state"] = handler.state()
    values |= {name: 0 for name in ("ts", "key") if name in handler.uses}
    if handler.kind == "aggregate":
        values = {name: np.array([value]) if name in row or name == "ts" else value for name, value in values.items()}
    try:
        handler.function(**values)
    except Exception:
        return traceback.format_exc()
    return ""


def _why_no_row(one: HandlerManifest) -> str:
    if one.kind == "anomaly":
        return f"no alert: the score is below the threshold of {one.threshold:g}"
    if one.window is not None and one.window.kind == "count":
        return f"no row: its window takes {one.window.size} samples"
    return "no row"


def main(arguments: list[str]) -> int:
    die_with_parent()
    file, name = Path(arguments[1]), arguments[2]
    event = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Asked)
    # What the author's file prints must not get between our lines.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    manifest = loading.load([file], cache_folder())[0]
    out.write(b"ready\n")
    out.flush()
    out.write(msgspec.json.encode(run(manifest, name, event)) + b"\n")
    out.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
