"""What is told of each handler, and of each file that has none yet: its state, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgefn import durations, manifest
from edgefn.gateway.halted import Halted
from edgefn.gateway.strikes import Strikes
from edgefn.manifest import FunctionManifest, HandlerManifest, Manifest, Progress
from edgefn.triggers import Cron, Every, OnFile, OnOccasion, OnOutput, OnTopic, Trigger


@dataclass(slots=True)
class HandlerFile:
    """One file: the version that runs, and what becomes of the newest."""

    path: Path
    active: Manifest | None = None
    source: Path | None = None  # what holds the text of `active`
    latest: Manifest | None = None
    under_way: Literal["new"] | Progress | None = "new"
    rolled_back: bool = False  # `active` is what an operator went back to

    @property
    def progress(self) -> dict[str, Any] | None:
        """What goes on with the newest version."""
        if isinstance(self.under_way, Progress):
            return msgspec.to_builtins(self.under_way)  # type: ignore[no-any-return]
        return {"state": "new"} if self.under_way else None


def states(
    files: Iterable[HandlerFile],
    running: Collection[str],
    halted: Halted,
    strikes: Strikes,
    meters: Mapping[str, Any],
    samples: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """By the name of the handler, or of a file that has none. Those of handlers have a `kind`."""
    told: dict[str, dict[str, Any]] = {}
    files = list(files)
    twice = {
        (finding.file, finding.line): finding
        for finding in manifest.conflicts([one.active for one in files if one.active is not None])
    }
    for file in files:
        if file.active is None:
            continue
        for handler in file.active.everything:
            if finding := twice.get((file.active.file, handler.line)):
                told[f"{handler.name}-{file.path.stem}"] = {
                    "state": "failed", "file": str(file.path), "error": str(finding)
                }  # fmt: skip
                continue
            n = strikes.of(handler.name)
            told[handler.name] = {
                "state": _state(handler, file.active.version, running, halted),
                **_nature(handler),
                "file": str(file.path),
                "version": file.active.version,
                **({"rolled_back": True} if file.rolled_back else {}),
                **({"strikes": n} if n else {}),
                **({"newest": newest} if (newest := _newest(file)) else {}),
                **({"meter": meters[handler.name]} if handler.name in meters else {}),
                **({"last_failure": samples[handler.name]} if handler.name in samples else {}),
            }
    for file in files:
        if file.active is None and (newest := _newest(file)):
            # Its name may be that of a handler in another file.
            told[file.path.name if file.path.stem in told else file.path.stem] = {"file": str(file.path), **newest}
    return told


def _state(handler: HandlerManifest | FunctionManifest, version: str, running: Collection[str], halted: Halted) -> str:
    if halted.is_quarantined(handler.name, version):
        return "quarantined"
    if halted.is_paused(handler.name):
        return "paused"
    if not handler.options.enabled:
        return "disabled"
    return "active" if handler.name in running else "stopped"  # with one that it builds on


def _nature(handler: HandlerManifest | FunctionManifest) -> dict[str, Any]:
    if isinstance(handler, FunctionManifest):
        return {"kind": "python", "triggers": [in_words(one) for one in handler.triggers]}
    return {"kind": handler.kind, "source": handler.pattern or handler.parent}


def _newest(file: HandlerFile) -> dict[str, Any] | None:
    if progress := file.progress:
        return progress
    return failure(file.latest) if file.latest is not None and not file.latest.ok else None


def failure(latest: Manifest) -> dict[str, Any]:
    return {
        "state": "failed",
        "error": "\n".join(str(finding) for finding in latest.findings),
        **({"traceback": latest.traceback} if latest.traceback else {}),
    }


def in_words(trigger: Trigger) -> str:
    """As the author wrote it, without quotes: `cron 0 6 * * * Europe/Berlin`."""
    match trigger:
        case OnTopic(pattern):
            return f"on {pattern}"
        case OnOutput(handler):
            return f"on output of {handler}"
        case Every(interval):
            return f"every {durations.show(interval)}"
        case Cron(line, zone):
            return f"cron {line} {zone}".rstrip()
        case OnFile(folder, name):
            return f"watch {folder.rstrip('/')}/{name}"
        case OnOccasion(occasion):
            return f"system {occasion}"
