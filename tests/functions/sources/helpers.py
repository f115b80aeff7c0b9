"""What the tests of triggers share: functions made of triggers, and a fire that keeps what it was told."""

from __future__ import annotations

from typing import Any

from edgefn.events import from_json
from edgefn.functions.sources import Occurrence
from edgefn.manifest import FunctionManifest
from edgefn.options import Options
from edgefn.store.records import CheckpointPart
from edgefn.triggers import Policy, Trigger


def function(name: str, *triggers: Trigger) -> FunctionManifest:
    return FunctionManifest(name, name, triggers, Options(("local",)), Policy(), takes=1, is_async=False, line=1)


class Fired:
    """Called as `fire`; reads aloud what came."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Occurrence]] = []
        self.parts: list[CheckpointPart] = []
        self.room = 1_000_000

    def __call__(self, name: str, occurrence: Occurrence) -> None:
        self.all.append((name, occurrence))
        self.parts += occurrence.parts
        self.room -= 1

    def has_room(self, name: str) -> bool:
        return self.room > 0

    def save(self, part: CheckpointPart) -> None:
        self.parts.append(part)

    @property
    def topics(self) -> list[str]:
        return [occurrence.topic for _, occurrence in self.all]

    @property
    def keys(self) -> list[str]:
        return [occurrence.key for _, occurrence in self.all]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.all]

    def data(self, n: int = -1) -> dict[str, Any]:
        return from_json(self.all[n][1].payload)

    def scheduled(self) -> list[str]:
        return [from_json(occurrence.payload)["scheduled"] for _, occurrence in self.all]

    def take(self) -> list[tuple[str, str]]:
        """What came since the last take: function and topic."""
        taken = [(name, occurrence.topic) for name, occurrence in self.all]
        self.all.clear()
        return taken

    def saved(self) -> dict[str, list[bytes]]:
        """The parts as a store gives them back after a restart."""
        kept: dict[str, list[bytes]] = {}
        for part in self.parts:
            if part.kind != "delta":
                kept.pop(part.owner, None)
            if part.kind != "drop":
                kept.setdefault(part.owner, []).append(part.data)
        return kept
