"""From what the engine puts out to what is stored for the cloud and what is published on local MQTT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefn.events import to_json
from edgefn.fields import Field
from edgefn.manifest import HandlerManifest
from edgefn.monitor.topics import Topics
from edgefn.policies import StreamPolicy
from edgefn.store import NewItem
from edgefn.timestamps import to_iso


@dataclass(frozen=True, slots=True)
class Publication:
    """One message for the local broker."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One summary, alert or transformed event, ready to go out."""

    handler: HandlerManifest
    key: str
    ts: int
    payload: bytes
    is_raised: bool = False  # of an alert
    own_clock: bool = True  # `ts` is gateway time, and moves with it
    summary: bytes | None = None  # what merging it with its neighbours takes

    @property
    def is_alert(self) -> bool:
        return self.handler.kind == "anomaly"

    def item(self) -> NewItem | None:
        """For the outbox, None where the handler does not forward."""
        options, stream = self.handler.options, self.handler.stream
        if stream is None:
            return None
        return NewItem(
            stream,
            self.payload,
            self.ts,
            options.priority,
            ttl=options.ttl,
            own_clock=self.own_clock,
            summary=self.summary,
            policy=StreamPolicy(options.quota, options.on_full),
        )

    def publications(self, topics: Topics) -> Iterator[Publication]:
        options = self.handler.options
        for target in options.to:
            if target == "uplink":
                continue
            if target != "local":
                yield Publication(target, self.payload, options.qos, False)
            elif self.is_alert:
                yield Publication(topics.alert(self.handler.name, self.key), self.payload, options.qos, True)
            else:
                yield Publication(topics.summary(self.handler.name, self.key), self.payload, options.qos, False)


def rows(
    outputs: list[dict[str, Any]],
    find: Callable[[str, str], HandlerManifest],
    correction: Callable[[int], int | None],
) -> Iterator[Row]:
    """The rows of a commit or of alerts, in order. `find` gives a handler by name and version, also when it has gone since.

    `correction`: what to add to times that were stamped by gateway time of an offset; None where they stay for good.
    """
    for output in outputs:
        handler = find(output["handler"], output["version"])
        shift = correction(output["offset"])
        labels, moves = output["labels"], output["own"].astype(bool) & (shift is not None)
        times = np.where(moves, output["ts"] + (shift or 0), output["ts"]).tolist()
        lengths, revised = output["n"].tolist(), output["revised"].tolist()
        columns = [column.tolist() for column in output["values"]]
        summaries = output.get("summaries")
        for i, (key, ts, own_clock) in enumerate(zip(labels, times, moves.tolist(), strict=True)):
            values = {
                field.name: _value(field, column[i]) for field, column in zip(handler.outputs, columns, strict=True)
            }
            raised = False
            body: dict[str, Any] = {"ts": to_iso(ts), "handler": handler.name, "key": key}
            if handler.kind == "anomaly":
                raised = bool(values.pop("raised"))
                body["state"] = "raised" if raised else "cleared"
            elif lengths:
                body["samples"] = lengths[i]
                if revised[i]:
                    body["revision"] = True
                if handler.window is not None and handler.window.kind == "time":
                    body["window_s"] = handler.window.size / 1e9
            summary = summaries[i] if summaries else None
            yield Row(handler, key, ts, to_json({**body, "values": values}), raised, own_clock, summary)


def _value(field: Field, value: float) -> float | int | bool | None:
    """JSON has no word for what is not finite."""
    if not math.isfinite(value):
        return None
    if field.type == "int":
        return int(value)
    return bool(value) if field.type == "bool" else value
