"""A plan of real handler files without broker and processes: events go in as payloads, rows come out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefn import loader
from edgefn.engine.decode import Decoder, fields_of
from edgefn.engine.nodes import Context, Output
from edgefn.engine.plan import Part, Plan
from edgefn.events import encode
from edgefn.manifest import Manifest
from edgefn.metrics import Metrics

NOW = 1_800_000_000 * 10**9  # arrival of the first event, ns since the epoch
SECOND = 10**9


def compiled(folder: Path, name: str, source: str) -> Manifest:
    """Loads a handler file; files of the same content share the session's cache."""
    file = folder / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    manifest = loader.cached(file, folder / "cache") or loader.load(file, folder / "cache")
    assert manifest.ok, [str(finding) for finding in manifest.findings]
    return manifest


@dataclass
class Row:
    """One row that a handler put out."""

    handler: str
    key: str
    ts: int
    values: tuple[float, ...]
    samples: int


@dataclass
class Kept:
    """What the store keeps of the checkpoints: a snapshot replaces an owner's parts, an increment follows them."""

    parts: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def add(self, parts: list[Part]) -> None:
        for part in parts:
            if part.snapshot:
                self.parts[part.owner] = [part.data]
            else:
                self.parts[part.owner].append(part.data)


class Bench:
    """One engine's data plane, driven by hand. Times are nanoseconds after NOW."""

    def __init__(self, *manifests: Manifest, keys: int | None = None) -> None:
        self.metrics = Metrics()
        self.decoder = Decoder(self.metrics)
        self.plan = Plan(manifests, self.metrics)
        self.rows: list[Row] = []
        self.entered: list[int] = []
        self.context = Context(self._emit, self.entered.append, lambda: None)
        if keys is not None:
            for source in self.plan.sources.values():
                source.keys._limit = keys

    def _emit(self, output: Output) -> None:
        labels = self.plan.labels(output.node)
        for i, key in enumerate(output.key.tolist()):
            samples = int(output.length[i]) if output.length.size else 0
            values = tuple(float(value) for value in output.values[:, i])
            self.rows.append(Row(output.node.name, labels[key], int(output.ts[i]) - NOW, values, samples))

    def collect(self, topic: str, fields: dict[str, Any], ts: int = 0) -> None:
        """Decodes one event; it runs with the next batch. Raises PayloadError."""
        decoded = fields_of(encode({"ts": NOW + ts, **fields}))
        for source, label in self.plan.router.route(topic.encode()):
            self.decoder.add(decoded, source.table, source.keys.number(label), NOW + ts)

    def run(self) -> None:
        self.plan.run(self.context)

    def feed(self, topic: str, fields: dict[str, Any], ts: int = 0) -> None:
        self.collect(topic, fields, ts)
        self.run()

    def tick(self, now: int) -> None:
        """Lets the monotonic clock, which begins at 0, go on to `now`."""
        self.context.now = now
        self.plan.tick(self.context)

    def take(self, handler: str = "") -> list[Row]:
        """The rows put out since the last call: of one handler, or of all."""
        taken = [row for row in self.rows if not handler or row.handler == handler]
        self.rows = [row for row in self.rows if row not in taken]
        return taken

    def values(self, handler: str) -> list[tuple[float, ...]]:
        return [row.values for row in self.take(handler)]

    def reload(self, *manifests: Manifest) -> None:
        """What the engine does when the folder has changed."""
        plan = Plan(manifests, self.metrics)
        plan.adopt(self.plan)
        plan.restore({}, self.context.now)
        self.plan = plan
