"""The set of uplinks of one gateway: made from the settings, told of new items, asked how they are, cut and restored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from edgefn.clock import Clock
from edgefn.config import Config
from edgefn.errors import StoreError
from edgefn.metrics import Metrics
from edgefn.sinks import Sink, load_sink
from edgefn.store import NewItem, Store
from edgefn.uplink import Uplink, UplinkOptions, split_options, wants

log = logging.getLogger(__name__)

DRAIN = 1.0  # seconds that a stopping gateway gives its uplinks


class Uplinks:
    """All uplinks of a gateway. Made before the store, which must know their names; `open` gives them the store.

    Raises ConfigError for settings that no uplink can be made of.
    """

    def __init__(self, config: Config, *, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._options: dict[str, UplinkOptions] = {}
        self._sinks: dict[str, Sink] = {}
        for entry in config.uplink:
            self._options[entry.name], rest = split_options(entry.name, entry.options)
            sink = load_sink(
                entry.type, rest, gateway=config.gateway.id, metrics=metrics, clock=clock, folder=config.folder
            )
            for trouble in sink.check(clock.now()):
                log.warning("uplink %s: %s", entry.name, trouble)
            self._sinks[entry.name] = sink
        self._uplinks: dict[str, Uplink] = {}
        self._wanted_by: dict[str, frozenset[str]] = {}  # stream → uplinks; there are as many streams as handlers

    @property
    def names(self) -> list[str]:
        return list(self._options)

    def open(self, store: Store) -> None:
        self._uplinks = {
            name: Uplink(name, store, sink, clock=self._clock, metrics=self._metrics, options=self._options[name])
            for name, sink in self._sinks.items()
        }

    def items(self, items: Iterable[NewItem | None]) -> list[NewItem]:
        """What of these goes into the outbox, and for which uplinks; nothing for what none of them wants."""
        found = []
        for item in items:
            if item is None:
                continue
            names = self._wanting(item.stream)
            if names:
                found.append(item if len(names) == len(self._options) else replace(item, uplinks=names))
        return found

    def _wanting(self, stream: str) -> frozenset[str]:
        names = self._wanted_by.get(stream)
        if names is None:
            names = frozenset(name for name, options in self._options.items() if wants(options.streams, stream))
            self._wanted_by[stream] = names
        return names

    def wanted(self, name: str, stream: str) -> bool:
        """Whether items of that stream are made for this uplink."""
        return name in self._wanting(stream)

    async def run(self) -> None:
        """Works until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, uplink in self._uplinks.items():
                tasks.create_task(uplink.run(), name=f"uplink {name}")

    def expect_commits(self, interval: float) -> None:
        """The engine commits each `interval` seconds: acknowledgements wait to go along."""
        for uplink in self._uplinks.values():
            uplink.commit_interval = interval

    def kick(self) -> None:
        """New items were committed."""
        for uplink in self._uplinks.values():
            uplink.kick()

    async def states(self) -> dict[str, dict[str, Any]]:
        """For the monitor: the state of each uplink by its name."""
        return {name: await uplink.state() for name, uplink in self._uplinks.items()}

    async def drain(self) -> None:
        """Gives those that are connected a moment to send what waits."""
        with suppress(TimeoutError, StoreError):  # a store that fails now is told with the last metrics
            async with asyncio.timeout(DRAIN):
                while await self._sending():  # noqa: ASYNC110 - for a second at most, on the way out
                    await asyncio.sleep(0.05)

    async def _sending(self) -> bool:
        return any(one["state"] == "connected" and one["rows"] for one in (await self.states()).values())

    async def cut(self, name: str) -> None:
        """Takes an uplink off its line until `restore`; what is committed meanwhile waits. Raises KeyError for another name."""
        await self._uplinks[name].cut()

    def restore(self, name: str) -> None:
        self._uplinks[name].restore()

    def settled(self, name: str) -> int:
        """How many items the uplink is done with since it was made: the far side has or refused them, and the store knows."""
        return self._uplinks[name].settled
