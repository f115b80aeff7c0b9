"""Where events enter the plan: topics are resolved once to their sources, and each source numbers its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.engine import loops
from edgefn.engine.columns import NO_ROWS, Table
from edgefn.errors import TopicError
from edgefn.metrics import Metrics
from edgefn.topics import Pattern, topic_of

MAX_KEYS = 100_000
MAX_TOPICS = 200_000
MAX_TOPIC_BYTES = 32 << 20  # of all of them: somebody may make up topics of a kilobyte each


class Keys:
    """Small numbers for the labels of one source, reused when the least recently used label has to give way."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.labels: list[str] = []
        self.by_gateway = bytearray()  # 1: the key's events are stamped by the gateway's clock, and move with it
        self.evicted = 0
        self.generation = np.zeros(64, np.int64)  # of each number: how often it was given to another label
        self.on_evict: list[Callable[[int], None]] = []
        self.pending: Callable[[], npt.NDArray[np.int32]] = lambda: NO_ROWS  # keys of rows that have not run yet
        self._limit = limit
        self._numbers: dict[str, int] = {}
        self._used = np.zeros(64, np.int64)
        self._clock = 0
        self._changed: set[int] = set()  # numbers given out since the last checkpoint

    def __len__(self) -> int:
        return len(self.labels)

    def number(self, label: str) -> int:
        """The label's number, a new one where it has none."""
        number = self._numbers.get(label)
        if number is not None:
            return number
        if len(self.labels) < self._limit:
            number = len(self.labels)
            self.labels.append(label)
            self.by_gateway.append(0)
            if number >= self._used.size:
                self._used = np.concatenate([self._used, np.zeros(self._used.size, np.int64)])
                self.generation = np.concatenate([self.generation, np.zeros(self.generation.size, np.int64)])
        else:
            self.touch(self.pending())  # else a row would run under the label that its key is given to
            number = int(self._used[: len(self.labels)].argmin())
            del self._numbers[self.labels[number]]
            self.labels[number] = label
            self.evicted += 1
            self.generation[number] += 1
            for forget in self.on_evict:
                forget(number)
        self._numbers[label] = number
        self._changed.add(number)
        self._clock += 1
        self._used[number] = self._clock
        return number

    def note_clock(self, number: int, by_gateway: bool) -> None:
        """Whose clock has stamped the key's newest event."""
        if self.by_gateway[number] != by_gateway:
            self.by_gateway[number] = by_gateway
            self._changed.add(number)

    def note_clocks(self, numbers: npt.NDArray[np.int64], by_gateway: npt.NDArray[np.uint8]) -> None:
        """The same of many events in their order."""
        if np.count_nonzero(self.moving(numbers) != by_gateway):
            for number, flag in zip(numbers.tolist(), by_gateway.tolist(), strict=True):
                self.note_clock(number, bool(flag))

    def moving(self, numbers: npt.NDArray[np.integer[Any]] | slice = slice(None)) -> npt.NDArray[np.uint8]:
        """For each of the keys, 1 where it goes by the gateway's clock."""
        return np.frombuffer(self.by_gateway, np.uint8)[numbers].copy()

    def find(self, label: str) -> int | None:
        """The label's number, None where it has none."""
        return self._numbers.get(label)

    def touch(self, numbers: npt.NDArray[np.int32]) -> None:
        """Notes that these keys were used just now."""
        self._clock += 1
        loops.stamp(numbers.size, numbers, self._used, self._clock)

    def checkpoint(self, everything: bool = False) -> dict[str, list[Any]] | None:
        """The labels numbered since the last one (or all), None where there are none."""
        changed = list(range(len(self.labels))) if everything else sorted(self._changed)
        self._changed = set()
        if not changed:
            return None
        return {
            "numbers": changed,
            "labels": [self.labels[number] for number in changed],
            "by_gateway": [self.by_gateway[number] for number in changed],
        }

    def restore(self, parts: list[dict[str, list[Any]]]) -> bool:
        """Takes up checkpoints in their order; returns True."""
        for part in parts:
            for number, label, by_gateway in zip(part["numbers"], part["labels"], part["by_gateway"], strict=True):
                if number < len(self.labels):
                    self._numbers.pop(self.labels[number], None)
                    self.labels[number] = label
                else:
                    self.labels.append(label)
                    self.by_gateway.append(0)
                self.by_gateway[number] = by_gateway
                self._numbers[label] = number
        if len(self.labels) > self._used.size:
            self._used = np.zeros(2 * len(self.labels), np.int64)
            self.generation = np.zeros(2 * len(self.labels), np.int64)
        return True


class Source:
    """One topic pattern: its keys and the table that collects its events."""

    def __init__(
        self, pattern: Pattern, fields: list[str], *, name: str = "", ts: str = "auto", retained: bool = False
    ) -> None:
        self.pattern = pattern
        self.name = name or pattern.text
        self.ts = ts
        self.retained = retained
        self.keys = Keys()
        self.table = Table(fields)
        self.initial = Table(fields, 16)  # retained messages: they initialise state and are in no window
        self.keys.pending = lambda: np.concatenate([one.key[: one.n] for one in (self.initial, self.table)])

    def label(self, topic: str) -> str | None:
        """What the topic's events are kept apart by, None where the pattern does not match."""
        captures = self.pattern.match(topic)
        if captures is None:
            return None
        return "/".join(captures) if self.pattern.captures else topic


Route = list[tuple[Source, str]]


class Router:
    """Topics to sources and labels, by a bounded table of the topics that have been seen."""

    def __init__(self, sources: list[Source], metrics: Metrics) -> None:
        self._sources = sources
        self._metrics = metrics
        self._routes: dict[bytes, Route] = {}
        self._bytes = 0

    def route(self, topic: bytes) -> Route:
        """The sources whose pattern matches; an empty list for a topic that nobody wants or that is no topic."""
        route = self._routes.get(topic)
        if route is None:
            route = self._resolve(topic)
            if len(self._routes) >= MAX_TOPICS or self._bytes > MAX_TOPIC_BYTES:
                self._metrics.count("topics.forgotten", len(self._routes))
                self._routes.clear()
                self._bytes = 0
            self._routes[topic] = route
            self._bytes += len(topic)
        return route

    def _resolve(self, topic: bytes) -> Route:
        try:
            text = topic_of(topic)
        except TopicError:
            self._metrics.count("events.failed", reason="bad_topic")
            return []
        return [(source, label) for source in self._sources if (label := source.label(text)) is not None]
