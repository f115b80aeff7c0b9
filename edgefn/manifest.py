"""What the loader found in a handler file, as plain data: it goes from the loader to the gateway and on to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edgefn.api import Handler, Kind
from edgefn.errors import Finding
from edgefn.fields import Field
from edgefn.options import Options, Timestamps
from edgefn.topics import Pattern
from edgefn.triggers import FunctionSpec, Policy, Trigger
from edgefn.windows import Window

ASYNC_CONCURRENCY = 8  # invocations of one async function at once
MAX_COLUMNS = 62  # fields that the handlers of one source may take: their presence is one bit each


class HandlerManifest(msgspec.Struct, frozen=True):
    """One handler: what it listens to, what it takes and what it puts out."""

    name: str
    kind: Kind
    pattern: str | None  # a topic pattern, or
    parent: str | None  # the name of the handler that it builds on
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    options: Options
    line: int
    window: Window | None = None
    threshold: float = 0.0
    clear: float = 0.0
    stats: tuple[str, ...] = ()
    doc: str = ""
    ts: Timestamps = "auto"
    retained: bool = False

    @property
    def listens(self) -> str:
        """Names the source of one that listens to topics: those of the same pattern, read the same way, share one."""
        return f"{self.pattern}" + (f" ts={self.ts}" if self.ts != "auto" else "") + (" retained" * self.retained)

    @property
    def stream(self) -> str | None:
        """What its rows are called on their way to the cloud; None where they stay here."""
        return (
            f"{'alert' if self.kind == 'anomaly' else 'summary'}/{self.name}" if "uplink" in self.options.to else None
        )

    @classmethod
    def of(cls, handler: Handler) -> HandlerManifest:
        source = handler.source
        doc = (handler.function.__doc__ or "") if handler.function else ""
        return cls(
            name=handler.name,
            kind=handler.kind,
            pattern=source.text if isinstance(source, Pattern) else None,
            parent=source if isinstance(source, str) else None,
            inputs=handler.inputs,
            outputs=handler.outputs,
            options=handler.options,
            line=handler.line,
            window=handler.window,
            threshold=handler.threshold,
            clear=handler.clear,
            stats=handler.parameters if handler.kind == "summarize" else (),
            doc=doc.strip().split("\n")[0],
            ts=handler.ts,
            retained=handler.retained,
        )


class FunctionManifest(msgspec.Struct, frozen=True):
    """One Python handler: what starts it, and how it is run."""

    name: str
    function: str  # what the file calls it
    triggers: tuple[Trigger, ...]
    options: Options
    policy: Policy
    takes: int
    is_async: bool
    line: int
    doc: str = ""

    @property
    def kind(self) -> Literal["python"]:
        return "python"

    @property
    def stream(self) -> str | None:
        """What the values that it returns are called on their way to the cloud; None where they stay here."""
        return f"summary/{self.name}" if "uplink" in self.options.to else None

    @property
    def concurrency(self) -> int:
        return self.policy.concurrency or (ASYNC_CONCURRENCY if self.is_async else 1)

    @classmethod
    def of(cls, spec: FunctionSpec) -> FunctionManifest:
        return cls(
            name=spec.name,
            function=spec.function.__name__,
            triggers=spec.triggers,
            options=spec.options,
            policy=spec.policy,
            takes=spec.takes,
            is_async=spec.is_async,
            line=spec.line,
            doc=(spec.function.__doc__ or "").strip().split("\n")[0],
        )


class Manifest(msgspec.Struct, frozen=True):
    """One file: either what was made of it and its handlers, or what is wrong with it."""

    file: str
    version: str = ""
    module: str = ""  # of the compiled handlers; empty where there are none
    handlers: tuple[HandlerManifest, ...] = ()  # the compiled ones
    functions: tuple[FunctionManifest, ...] = ()  # the Python ones
    findings: tuple[Finding, ...] = ()
    traceback: str = ""
    seconds: float = 0.0  # what compiling took; 0 where the cache had it
    just_in_time: str = ""  # why its machine code cannot be made ahead of time, where that of other files can

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def everything(self) -> tuple[HandlerManifest | FunctionManifest, ...]:
        """All handlers, whatever runs them."""
        return (*self.handlers, *self.functions)


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the loader is with one file."""

    state: Literal["compiling", "self-test"]
    done: int  # compiled handlers
    of: int


@dataclass(frozen=True, slots=True)
class ActiveFunction:
    """A Python handler that runs now."""

    manifest: FunctionManifest
    path: Path  # the handler file, as people know it
    version: str
    source: Path  # what holds this version's text: the file may have been changed since, or be half written


def duplicates(manifests: Sequence[Manifest]) -> list[Finding]:
    """Handlers of one name in several files: a name is a topic, so the second one is refused."""
    seen: dict[str, Manifest] = {}
    findings = []
    for manifest in manifests:
        for handler in manifest.everything:
            first = seen.setdefault(handler.name, manifest)
            if first is not manifest:
                findings.append(
                    Finding(
                        manifest.file,
                        handler.line,
                        f"{handler.name}: a handler of this name is already defined in {first.file}",
                        'rename one of them, or write name="…" in its decorator',
                    )
                )
    return findings


def conflicts(manifests: Sequence[Manifest]) -> list[Finding]:
    """What is wrong with files together, though each is right by itself."""
    return duplicates(manifests) + circles(manifests) + crowds(manifests)


def crowds(manifests: Sequence[Manifest]) -> list[Finding]:
    """Handlers of several files that together take more fields of one source than it has columns."""
    taken: dict[str, set[str]] = {}
    findings = []
    for manifest in manifests:
        by_name = {handler.name: handler for handler in manifest.handlers}
        for handler in manifest.handlers:
            top = handler
            while top.parent in by_name and top.parent is not None and by_name[top.parent].kind == "filter":
                top = by_name[top.parent]
            if top.parent is not None:
                continue
            columns = taken.setdefault(top.listens, set())
            new = columns | {entry.column for entry in handler.inputs}
            if len(new) > MAX_COLUMNS:
                message = (
                    f"{handler.name}: with it {len(new)} fields of {top.pattern} are taken; {MAX_COLUMNS} are possible"
                )
                findings.append(Finding(manifest.file, handler.line, message, "publish to several topics"))
            else:
                columns |= new
    return findings


def circles(manifests: Sequence[Manifest]) -> list[Finding]:
    """Handlers that feed themselves over a topic, at once or by way of others: one event would go round for ever."""
    where = {handler.name: (manifest, handler) for manifest in manifests for handler in manifest.handlers}
    feeds = {
        name: [other for other in where if _feeds(handler, where[other][1])] for name, (_, handler) in where.items()
    }
    findings = []
    for name, (manifest, handler) in where.items():
        topics = [target for target in handler.options.to if target not in ("local", "uplink")]
        todo, seen = list(feeds[name]), set()
        while todo:
            other = todo.pop()
            if other not in seen:
                seen.add(other)
                todo += feeds[other]
        if name in seen and topics:
            findings.append(
                Finding(
                    manifest.file,
                    handler.line,
                    f"{name}: what it publishes to {', '.join(topics)} comes back to it",
                    "publish to a topic that no handler above it listens to",
                )
            )
    return findings


def _feeds(handler: HandlerManifest, other: HandlerManifest) -> bool:
    if other.parent is not None:
        return other.parent == handler.name
    pattern = Pattern(other.pattern or "")
    topics = [target for target in handler.options.to if target not in ("local", "uplink")]
    if "local" in handler.options.to:
        topics.append(f"edgefn/gateway/{'alert' if handler.kind == 'anomaly' else 'summary'}/{handler.name}/key")
    return any(pattern.match(topic) is not None for topic in topics)
