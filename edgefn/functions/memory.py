"""What Python handlers keep from one invocation to the next, and how it gets into the store: as changes, now and then whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edgefn.functions.invocation import FUNCTION
from edgefn.store import CheckpointPart

WHOLE_AFTER = 16 << 10  # bytes of changes, after which the whole is written anew

Change = Mapping[str, bytes | None]

_decode = msgspec.msgpack.Decoder(dict[str, bytes | None]).decode


class Memory:
    """Names and JSON values of one handler. `values` is what the next invocation sees; the store may be behind."""

    def __init__(self, function: str) -> None:
        self.values: dict[str, bytes] = {}
        self.version = 0
        self._owner = FUNCTION + function
        self._stored: dict[str, bytes] = {}  # what the store has, or is about to have
        self._written = 0  # bytes of changes since it was written whole

    def restore(self, parts: Sequence[bytes]) -> None:
        """Takes up what the store has. Raises msgspec.DecodeError for something else."""
        for part in parts:
            _apply(self._stored, _decode(part))
            self._written += len(part)
        self.values = dict(self._stored)
        self.version += 1

    def change(self, change: Change) -> None:
        """An invocation is done: the next one sees this."""
        if change:
            _apply(self.values, change)
            self.version += 1

    def part(self, change: Change) -> CheckpointPart | None:
        """What the next commit holds of changes that are done; None for no change."""
        if not change:
            return None
        _apply(self._stored, change)
        data = msgspec.msgpack.encode(dict(change))
        self._written += len(data)
        if self._written > WHOLE_AFTER and self._written > 2 * sum(map(len, self._stored.values())):
            data = msgspec.msgpack.encode(self._stored)
            self._written = 0
            return CheckpointPart(self._owner, "snapshot", data)
        return CheckpointPart(self._owner, "delta", data)


def _apply(values: dict[str, bytes], change: Change) -> None:
    for name, raw in change.items():
        if raw is None:
            values.pop(name, None)
        else:
            values[name] = raw
