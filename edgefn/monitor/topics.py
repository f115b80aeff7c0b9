"""The topics of one gateway: the only place that spells them."""

from __future__ import annotations

from dataclasses import dataclass

from edgefn.topics import level


@dataclass(frozen=True, slots=True)
class Topics:
    """Below edgefn/<gateway>/; names and keys are made fit for a topic."""

    gateway: str

    @property
    def root(self) -> str:
        return f"edgefn/{self.gateway}"

    @property
    def status(self) -> str:
        return f"{self.root}/status"

    @property
    def info(self) -> str:
        return f"{self.root}/info"

    @property
    def metrics(self) -> str:
        return f"{self.root}/metrics"

    @property
    def log(self) -> str:
        return f"{self.root}/log"

    @property
    def confirmed(self) -> str:
        """What the store has of each driver's events; the driver host listens to it."""
        return f"{self.root}/confirmed"

    def handler(self, name: str) -> str:
        return f"{self.root}/handler/{level(name)}"

    def driver(self, name: str) -> str:
        return f"{self.root}/driver/{level(name)}"

    def summary(self, handler: str, key: str) -> str:
        return f"{self.root}/summary/{level(handler)}/{_levels(key)}"

    def alert(self, handler: str, key: str) -> str:
        return f"{self.root}/alert/{level(handler)}/{_levels(key)}"

    def command(self, verb: str) -> str:
        return f"{self.root}/cmd/{verb}"

    def reply(self, asker: str) -> str:
        """Where answers to commands may go; who asks chooses a name that nobody else has."""
        return f"{self.root}/reply/{level(asker)}"


def _levels(key: str) -> str:
    """A key keeps its levels: a topic or several captures."""
    return "/".join(level(part) for part in key.split("/"))
