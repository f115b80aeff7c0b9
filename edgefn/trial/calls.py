"""What a trial asks of whoever calls Python handlers, and the one that does so in this process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from edgefn.functions.context import Context, State, to_json
from edgefn.functions.event import Event
from edgefn.functions.protocol import Call, Outcome
from edgefn.manifest import FunctionManifest
from edgefn.trial.clock import ManualClock

Publish = Callable[[str, bytes, int, bool], None]


class Caller(Protocol):
    """Calls a function of a file once. What it publishes is handed on at once, the rest is in the outcome."""

    def call(self, file: Path, function: FunctionManifest, call: Call, publish: Publish) -> Outcome: ...

    def close(self) -> None: ...


class Here:
    """In this process and by the trial's clock: what a handler raises comes out as it is."""

    def __init__(self, clock: ManualClock, secrets: Path, gateway: str) -> None:
        self._clock = clock
        self._secrets = secrets
        self._gateway = gateway
        self._modules: dict[Path, ModuleType] = {}

    def call(self, file: Path, function: FunctionManifest, call: Call, publish: Publish) -> Outcome:
        if file not in self._modules:
            from edgefn.loader import read_source, run

            self._modules[file] = run(file, read_source(file))
        event = Event(
            call.topic, call.payload, key=call.key, captures=call.captures, arrival=call.ts, id=call.id,
            attempt=call.attempt, retained=call.retained,
        )  # fmt: skip
        context = Context(
            event, State(call.state or {}), publish, name=call.name, gateway=self._gateway, secrets=self._secrets,
            deadline=self._clock.monotonic() + function.policy.timeout, monotonic=self._clock.monotonic,
        )  # fmt: skip
        value = getattr(self._modules[file], call.function)(*(event, context)[: call.takes])
        if inspect.iscoroutine(value):
            value = _wait(value)
        data = None if value is None else to_json(value, f"what {call.name} returned")
        return Outcome(
            call.id, "done", value=data, forwards=context.forwards, invokes=context.invokes, state=context.state.changes
        )

    def close(self) -> None:
        self._modules.clear()


def _wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:  # an async test has a loop of its own, and one thread runs one
        return pool.submit(asyncio.run, coroutine).result()
