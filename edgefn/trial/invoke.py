"""One handler, once: a compiled one in the engine's plan, a Python one in a worker, and what came of it as plain values."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgefn import durations
from edgefn.errors import EdgefnError
from edgefn.functions.event import Event
from edgefn.functions.protocol import Call
from edgefn.manifest import FunctionManifest, HandlerManifest, Manifest
from edgefn.topics import Pattern
from edgefn.trial.workers import Workers
from edgefn.triggers import Cron, Every, OnFile, OnOccasion, OnOutput, OnTopic

ENGINE_DEADLINE = 1.0  # seconds, as engine.deadline is by default
LOADING = 120.0


class InvokeError(EdgefnError, ValueError):
    """What was asked for cannot be tried: no such handler, or a topic that is not its own."""


class Asked(msgspec.Struct):
    """The event for a compiled handler, on its way to the process that runs it."""

    topic: str
    payload: bytes


class Answer(msgspec.Struct, omit_defaults=True):
    """What came of it: rows, a filter's verdict, or what was in the way."""

    rows: list[dict[str, Any]] = []
    kept: bool | None = None
    error: str = ""  # it raised, or could not run over this event
    traceback: str = ""
    note: str = ""  # why there is no row, though all went well
    seconds: float = 0.0


@dataclass(slots=True)
class Invoked:
    """What came of it. Where `error` says something, there was no other effect than what was published."""

    handler: str
    topic: str
    error: str = ""
    traceback: str = ""
    note: str = ""
    kept: bool | None = None  # by a filter
    rows: list[dict[str, Any]] = field(default_factory=list)
    returned: Any = None
    published: list[dict[str, Any]] = field(default_factory=list)
    forwarded: list[dict[str, Any]] = field(default_factory=list)
    invoked: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(manifest: Manifest, name: str | None) -> HandlerManifest | FunctionManifest:
    """The handler of that name, or the only one."""
    everything: list[HandlerManifest | FunctionManifest] = [*manifest.handlers, *manifest.functions]
    known = ", ".join(one.name for one in everything)
    if name is None:
        if len(everything) == 1:
            return everything[0]
        raise InvokeError(
            f"{manifest.file} has {len(everything)} handlers; write which: {manifest.file}:NAME with {known}"
        )
    for one in everything:
        if one.name == name or (isinstance(one, FunctionManifest) and one.function == name):
            return one
    raise InvokeError(f"{manifest.file} has no handler {name!r}; it has {known}")


def topic_of(pattern: str) -> str:
    """Some topic that the pattern matches: its captures stand for themselves."""
    levels = [re.sub(r"^\{(.*)\}$", r"\1", level) for level in pattern.split("/")]
    return "/".join("x" if level in ("+", "#") else level for level in levels)


# Compiled


def way(manifest: Manifest, name: str) -> list[HandlerManifest]:
    """The handler and all that it builds on, from the topic on."""
    by_name = {one.name: one for one in manifest.handlers}
    found = [by_name[name]]
    while (parent := found[0].parent) is not None:
        found.insert(0, by_name[parent])
    return found


def compiled(manifest: Manifest, handler: HandlerManifest, topic: str | None, payload: bytes) -> Invoked:
    """Sends the event to the topic from which the handler's events come. Raises InvokeError."""
    pattern = way(manifest, handler.name)[0].pattern or ""
    topic = topic or topic_of(pattern)
    if Pattern(pattern).match(topic) is None:
        raise InvokeError(f"{handler.name} listens to {pattern}, which {topic} does not match")
    result = Invoked(handler.name, topic)
    command = [sys.executable, "-P", "-m", "edgefn.trial.once", manifest.file, handler.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(msgspec.msgpack.encode(Asked(topic, payload)))
            child.stdin.close()
            ready = _line(child, LOADING)
            answer = _line(child, ENGINE_DEADLINE) if ready else ready
        finally:
            child.kill()
    if answer is None and ready:
        result.error = f"it ran for longer than {ENGINE_DEADLINE:g} s, after which the engine is started again"
    elif answer is None:
        result.error = f"its file did not load within {LOADING:g} s"
    elif not answer:
        result.error = f"its process ended with status {child.returncode}"
    else:
        told = msgspec.json.decode(answer, type=Answer)
        for name in ("rows", "kept", "error", "traceback", "note", "seconds"):
            setattr(result, name, getattr(told, name))
        result.traceback = own_frames(told.traceback, manifest.file)
    return result


def _line(child: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """The child's next line; empty where it has ended, None where it takes too long."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    return child.stdout.readline() if ready else None


# Python


def function(
    manifest: Manifest, one: FunctionManifest, topic: str | None, payload: bytes, state: Mapping[str, Any], *,
    gateway: str, secrets: Path,
) -> Invoked:  # fmt: skip
    """Calls it in a worker, with its timeout and its memory limit. Raises InvokeError."""
    topic, key, captures = _address(one, topic)
    result = Invoked(one.name, topic)
    stored = {name: msgspec.json.encode(value) for name, value in state.items()}
    call = Call(
        "invoke", one.function, one.name, one.takes, topic, key, captures, payload, time.time_ns(), 1, False, 0, stored
    )

    def publish(topic: str, payload: bytes, qos: int, retain: bool) -> None:
        result.published.append({"topic": topic, "payload": _shown(payload), "qos": qos, "retain": retain})

    workers = Workers(gateway, secrets, lambda name, level, line: result.output.append(line))
    try:
        outcome = workers.call(Path(manifest.file), one, call, publish)
    finally:
        workers.close()
    result.error, result.seconds = outcome.error, outcome.wall / 1e9
    result.traceback = own_frames(outcome.traceback, manifest.file)
    if outcome.result == "done":
        result.returned = None if outcome.value is None else msgspec.json.decode(outcome.value)
        result.forwarded = [
            {"key": key if row.key is None else row.key, "values": msgspec.json.decode(row.values)}
            for row in outcome.forwards
        ]
        result.invoked = [
            {"handler": other.name, "data": msgspec.json.decode(other.payload)} for other in outcome.invokes
        ]
        for name, raw in outcome.state.items():
            if raw is None:
                stored.pop(name, None)
            else:
                stored[name] = raw
    result.state = {name: msgspec.json.decode(raw) for name, raw in stored.items()}
    return result


def _address(one: FunctionManifest, topic: str | None) -> tuple[str, str, dict[str, str]]:
    """The topic, the key and its captures, as a trigger of the handler would have them."""
    patterns = [Pattern(trigger.pattern) for trigger in one.triggers if isinstance(trigger, OnTopic)]
    if topic is None and patterns:
        topic = topic_of(patterns[0].text)
    for pattern in patterns:
        if topic is not None and (captured := pattern.match(topic)) is not None:
            return topic, "/".join(captured) or topic, dict(zip(pattern.captures, captured, strict=True))
    if topic is not None and patterns:
        listens = ", ".join(pattern.text for pattern in patterns)
        raise InvokeError(f"{one.name} listens to {listens}, which {topic} does not match")
    return topic or _said_by(one), "", {}


def _said_by(one: FunctionManifest) -> str:
    trigger = one.triggers[0]
    if isinstance(trigger, OnOutput):
        return f"output/{trigger.handler}"
    if isinstance(trigger, Every):
        return f"every/{durations.show(trigger.interval)}"
    if isinstance(trigger, Cron):
        return f"cron/{trigger.line}"
    if isinstance(trigger, OnFile):
        return f"file/{trigger.folder}/{trigger.name}"
    assert isinstance(trigger, OnOccasion)
    return f"system/{trigger.occasion}"


def _shown(payload: bytes) -> Any:
    data = Event("", payload).data
    return data.hex() if isinstance(data, bytes) else data


def own_frames(text: str, file: str) -> str:
    """A traceback without the frames of other files; empty where there is none of this one."""
    entries = re.split(r'(?m)^(?=  File ")', text)
    head, frames = entries[0], entries[1:]
    if not any(entry.startswith(f'  File "{file}"') for entry in frames):
        return ""
    kept = []
    for number, entry in enumerate(frames):
        if entry.startswith(f'  File "{file}"'):
            kept.append(entry)
        elif number == len(frames) - 1:  # what follows the last frame is the exception itself
            kept.append("".join(line for line in entry.splitlines(keepends=True)[1:] if not line.startswith("    ")))
    return head + "".join(kept)
