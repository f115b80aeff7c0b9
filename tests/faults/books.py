"""What a store must hold, from the notes of those that wrote to it; and what is wrong with what it does hold."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from edgefn.store import Item, Store

Part = tuple[int, int]  # which item of which commit


def part(item: Item) -> Part:
    payload = json.loads(item.payload)
    return payload["n"], payload["i"]


@dataclass(slots=True)
class Books:
    """`enter` each note in order; after a cut, `check`. Whatever was under way then may be in the store, but only whole."""

    wanted: dict[int, tuple[str, int]] = field(default_factory=dict)  # commit → how its state is saved, number of items
    stored: set[int] = field(default_factory=set)  # confirmed
    unsure: set[int] = field(default_factory=set)  # not confirmed
    keys: dict[str, Part] = field(default_factory=dict)  # every key that was ever seen
    sent: set[Part] = field(default_factory=set)
    told: set[Part] = field(default_factory=set)  # sent, and the store has confirmed that it knows
    findings: list[str] = field(default_factory=list)

    @property
    def next(self) -> int:
        """The number of a commit that never was."""
        return max(self.wanted, default=0) + 1

    def copy(self) -> Books:
        return Books(*(copy.copy(getattr(self, one.name)) for one in fields(self)))

    def enter(self, **note: Any) -> None:
        match note:
            case {"wanted": n, "kind": kind, "items": items}:
                self.wanted[n] = kind, items
                self.unsure.add(n)
            case {"stored": n, "keys": keys}:
                self.unsure.discard(n)
                self.stored.add(n)
                for i, key in enumerate(keys):
                    self._see(key, (n, i))
            case {"sent": batch}:
                for key, n, i in batch:
                    self._see(key, (n, i))
                    self.sent.add((n, i))
            case {"told": keys}:
                self.told.update(self.keys[key] for key in keys)

    def _see(self, key: str, what: Part) -> None:
        if self.keys.setdefault(key, what) != what:
            self.findings.append(f"{key} is item {what} and was item {self.keys[key]}")

    async def check(self, store: Store, *, losses: Iterable[str] = ()) -> list[str]:
        """What is wrong with the store; empty where all is as promised.

        `losses` names the reasons for which items may be missing, besides the quota. What was not confirmed counts as
        stored from now on, or as never done.
        """
        drops = Counter[str]()
        for drop in await store.drops():
            drops[drop.reason] += drop.n
        waiting = await store.read("cloud", 1_000_000, max_bytes=1 << 40, oldest_first=True)
        state = [int(data) for data in (await store.load_checkpoint()).get("handler", [])]
        there = {part(item) for item in waiting}
        for n in sorted(self.unsure):
            if n in state or any((n, i) in there or (n, i) in self.sent for i in range(self.wanted[n][1])):
                self.stored.add(n)
        self.unsure.clear()
        self._check_rows(waiting)
        if state != self.state():
            self.findings.append(f"the state is {state} and must be {self.state()}")
        missing = self.items() - there - self.sent
        again = self.sent - self.told
        given_up = drops.total()
        if not len(missing) <= given_up <= len(missing) + len(again):
            self.findings.append(
                f"{len(missing)} items are missing and {dict(drops)} are counted: {sorted(missing)[:5]}"
            )
        if unforeseen := drops.keys() - {"quota", *losses}:
            self.findings.append(f"{sorted(missing)[:5]} are dropped: {[(why, drops[why]) for why in unforeseen]}")
        return self.findings

    def _check_rows(self, waiting: list[Item]) -> None:
        numbers: dict[tuple[str, str], Part] = {}
        seen: set[Part] = set()
        for item in waiting:
            what = part(item)
            self._see(item.key, what)
            if what[0] not in self.stored or what[1] >= self.wanted[what[0]][1]:
                self.findings.append(f"{item.key}: {what} is invented")
            if what in seen:
                self.findings.append(f"{item.key}: {what} is there twice")
            if what in self.told:
                self.findings.append(f"{item.key}: {what} was acknowledged and waits again")
            stream = item.epoch, item.stream
            if numbers.get(stream, (0, 0)) >= what:
                self.findings.append(f"{item.key}: {what} comes after {numbers[stream]}")
            numbers[stream] = what
            seen.add(what)
        for what in self.sent:
            if what[0] not in self.stored:
                self.findings.append(f"{what} was sent and never stored")

    def items(self) -> set[Part]:
        return {(n, i) for n in self.stored for i in range(self.wanted[n][1])}

    def state(self) -> list[int]:
        """The numbers of the last snapshot and the deltas after it."""
        state: list[int] = []
        for n in sorted(self.stored):
            state = [n] if self.wanted[n][0] == "snapshot" else [*state, n]
        return state
