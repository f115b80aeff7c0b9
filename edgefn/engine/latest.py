"""The newest values of topics that handlers read beside their events, such as set-points."""

from __future__ import annotations

from typing import Any

from edgefn.engine.columns import Table
from edgefn.engine.decode import number, value_at, why_unusable
from edgefn.fields import Field


class LatestValues:
    """One value for each topic and field that a handler asks for with `latest`."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}  # by the name of its column
        self._wanted: dict[bytes, dict[str, str]] = {}  # topic → column → field
        self._changed = False

    def want(self, field: Field) -> None:
        assert field.latest is not None
        self._wanted.setdefault(field.latest.encode(), {})[field.column] = field.of

    @property
    def topics(self) -> set[str]:
        return {topic.decode() for topic in self._wanted}

    def wants(self, topic: bytes) -> bool:
        return topic in self._wanted

    def update(self, topic: bytes, fields: dict[str, Any]) -> list[str]:
        """Takes what a message on the topic says; a field that is no number leaves the value before, and its reason is told."""
        unusable = []
        for column, name in self._wanted[topic].items():
            value = number(given := value_at(fields, name))
            if value is not None:
                self._values[column] = value
                self._changed = True
            elif given is not None:
                unusable.append(why_unusable(given))
        return unusable

    def fill(self, table: Table, rows: int) -> None:
        """Writes the values as they are now into the newest rows of a table."""
        for column, number_ in table.latest.items():
            value = self._values.get(column)
            if value is not None:
                newest = slice(table.n - rows, table.n)
                table.columns[number_, newest] = value
                table.present[newest] |= 1 << number_

    def adopt(self, other: LatestValues) -> None:
        columns = {column for wanted in self._wanted.values() for column in wanted}
        self._values = {column: value for column, value in other._values.items() if column in columns}

    def checkpoint(self) -> dict[str, float] | None:
        changed, self._changed = self._changed, False
        return dict(self._values) if changed else None

    def restore(self, parts: list[dict[str, float]]) -> bool:
        for part in parts:
            self._values.update(part)
        return True
