"""The plan: which handlers run on which source, in which order, and what of them has to survive a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefn import loader
from edgefn.engine import loops, memory, rolling, saved
from edgefn.engine.codegen import PREFIX
from edgefn.engine.columns import Frame
from edgefn.engine.decode import Decoder
from edgefn.engine.latest import LatestValues
from edgefn.engine.lineage import Lineage
from edgefn.engine.nodes import MAX_ROWS, AggregateNode, AnomalyNode, Context, Node, PaneGroup, State, make
from edgefn.engine.panes import make_panes
from edgefn.engine.sources import Keys, Router, Source
from edgefn.engine.subscriptions import disjoint
from edgefn.engine.timeline import Limits
from edgefn.errors import EdgefnError
from edgefn.fields import Field
from edgefn.manifest import HandlerManifest, Manifest
from edgefn.metrics import Metrics
from edgefn.topics import Pattern

log = logging.getLogger(__name__)

SNAPSHOT_EVERY = 64 << 10  # bytes of increments of one owner, at least, before its snapshot is written anew


@dataclass(frozen=True, slots=True)
class Part:
    """What the store keeps for one owner: a snapshot replaces its earlier parts, an increment is added to them."""

    owner: str
    snapshot: bool
    data: bytes


class Plan:
    """All active handlers. Immutable in its shape: a changed set of files makes a new plan, which adopts from the old one."""

    def __init__(self, manifests: Iterable[Manifest], metrics: Metrics) -> None:
        self.metrics = metrics
        self.nodes: dict[str, Node] = {}
        self._lineage = Lineage(self.nodes)
        self.sources: dict[str, Source] = {}
        self.groups: dict[str, PaneGroup] = {}
        self.roots: dict[str, list[Node | PaneGroup]] = {}  # by pattern
        self.fresh: list[str] = []  # handlers whose state could not be taken over
        self._owned: dict[str, list[Node | PaneGroup]] = {}  # everything that numbers its rows by a source's keys
        self._written: dict[str, int] = {}  # bytes of increments since the owner's snapshot
        self.urgent: set[str] = set()  # patterns that brought durable events since the last checkpoint
        self.latest = LatestValues()
        self.decoder = Decoder(metrics)
        handlers = [handler for manifest in manifests for handler in self._load(manifest)]
        self._connect(handlers)
        self.router = Router(list(self.sources.values()), metrics)

    def _load(self, manifest: Manifest) -> list[HandlerManifest]:
        if not manifest.handlers:  # only Python ones, which the gateway runs
            return []
        try:
            with memory.uncounted():
                loops = getattr(loader.import_module(Path(manifest.module)), f"{PREFIX}LOOPS")
        except Exception:
            # The loader has compiled and tried it; what is wrong now is wrong with the cache. The others go on.
            log.exception(
                "%s: its module %s cannot be loaded; remove that file and save this one again",
                *(manifest.file, manifest.module),
            )
            return []
        enabled = [handler for handler in manifest.handlers if handler.options.enabled]
        for handler in enabled:
            loop, dtype, initial = loops.get(handler.name, (None, None, None))
            node = make(handler, loop, State(dtype, initial))
            node.number = len(self.nodes) + 1
            node.version = manifest.version
            self.nodes[handler.name] = node
        return enabled

    def _connect(self, handlers: list[HandlerManifest]) -> None:
        fields: dict[str, dict[str, None]] = {}
        tops: dict[str, HandlerManifest] = {}
        for handler in handlers:
            if not self._lineage.is_lost(handler):
                pattern, parent = self._lineage.root(handler)
                tops[pattern] = self._lineage.top(handler)
                if parent is None:
                    fields.setdefault(pattern, {}).update(dict.fromkeys(entry.column for entry in handler.inputs))
                for entry in handler.inputs:
                    if entry.latest is not None:
                        self.latest.want(entry)
        self.sources = {
            name: Source(
                Pattern(tops[name].pattern or ""),
                list(names),
                name=name,
                ts=tops[name].ts,
                retained=tops[name].retained,
            )
            for name, names in fields.items()
        }
        for handler in handlers:
            if self._lineage.is_lost(handler):
                del self.nodes[handler.name]  # it builds on a handler that is switched off
                continue
            node = self.nodes[handler.name]
            pattern, parent = self._lineage.root(handler)
            layout = self.sources[pattern].table.fields if parent is None else _names(parent.manifest.outputs)
            try:
                node.bind(layout)
            except ValueError:
                # The loader makes sure of it; an engine that cannot start would be worse than one handler less.
                log.error("%s: its source does not give it %s", handler.name, [one.column for one in handler.inputs])
                del self.nodes[handler.name]
                continue
            node.behind_window = isinstance(node, AggregateNode) or self._lineage.behind_window(handler)
            above = self.nodes[handler.parent] if handler.parent else None
            siblings = self.roots.setdefault(pattern, []) if above is None else above.children
            owner = self._lineage.pattern(handler)
            if isinstance(node, AggregateNode):
                group = self._group(handler, node, pattern)
                if group not in siblings:
                    siblings.append(group)
                    self._owned.setdefault(owner, []).append(group)
            else:
                siblings.append(node)
            self._owned.setdefault(owner, []).append(node)
        for pattern, owned in self._owned.items():
            self.sources[pattern].keys.on_evict += [item.forget for item in owned]

    def filters(self) -> frozenset[str]:
        """What has to be subscribed to, so that each message comes once."""
        wanted = {source.pattern.filter for source in self.sources.values()} | self.latest.topics
        return disjoint(wanted)

    def keys(self, node: Node) -> Keys:
        """The keys that the node's rows are numbered by."""
        return self.sources[self._lineage.pattern(node.manifest)].keys

    def labels(self, node: Node) -> list[str]:
        return self.keys(node).labels

    def raised(self) -> dict[str, list[str]]:
        """The keys of each anomaly handler whose alert is raised."""
        return {
            name: [self.labels(node)[key] for key in np.flatnonzero(node.active.rows["active"])]
            for name, node in self.nodes.items()
            if isinstance(node, AnomalyNode)
        }

    def owners(self) -> set[str]:
        """The names under which the store keeps what belongs to this plan."""
        owners = (
            {f"keys {pattern}" for pattern in self.sources} | {f"panes {name}" for name in self.groups} | {"latest"}
        )
        for node in self.nodes.values():
            owners.add(self._owner("state", node))
            if isinstance(node, AnomalyNode):
                owners.add(self._owner("alerts", node))
        return owners

    def _owner(self, what: str, node: Node) -> str:
        return f"{what} {node.name} {self._lineage.pattern(node.manifest)}"

    def _group(self, handler: HandlerManifest, node: AggregateNode, pattern: str) -> PaneGroup:
        assert handler.window is not None
        # A path may have the signs that stand between the parts of the name.
        fields = ",".join(entry.column.replace(",", ",,").replace("|", "||") for entry in handler.inputs)
        # With the pattern: keys are numbered by it, so windows of another pattern's keys are never taken over.
        name = f"{pattern}|{handler.parent or ''}|{handler.window.kind} {handler.window!r}|{fields}"
        rolls = (
            handler.kind == "summarize" and handler.window.step < handler.window.size and rolling.fits(handler.window)
        )
        if rolls:
            name += f"|{','.join(handler.stats)}"
        group = self.groups.get(name)
        if group is None:
            codes = [loops.code(stat) for stat in handler.stats]
            store = (
                rolling.Rolling(handler.window, [codes] * len(handler.inputs))
                if rolls
                else make_panes(handler.window, len(handler.inputs))
            )
            group = self.groups[name] = PaneGroup(name, store)
            group.behind_window = self._lineage.behind_window(handler)
        group.nodes.append(node)
        return group

    # Running

    def add(
        self,
        source: Source,
        label: str,
        fields: dict[str, Any],
        arrival: int,
        *,
        retained: bool = False,
        by_gateway: bool = False,
    ) -> int:
        """Puts one decoded event into its source's table; returns the number of rows.

        `by_gateway`: its time, if it has one, is of the gateway's clock.
        """
        table = source.initial if retained and not source.retained else source.table
        key = source.keys.number(label)
        rows = self.decoder.add(fields, table, key, arrival, source.ts)
        source.keys.note_clock(key, by_gateway or self.decoder.took_arrival)
        if table.latest:
            self.latest.fill(table, rows)
        return rows

    def grow(self, pattern: str) -> None:
        """Makes room for the keys that the source has got."""
        n = len(self.sources[pattern].keys)
        for item in self._owned.get(pattern, []):
            item.grow(n)

    def run(self, context: Context) -> int:
        """Runs all handlers over the events collected in the sources; returns how many rows there were."""
        total = 0
        for pattern, source in self.sources.items():
            for table in (source.initial, source.table):
                frame = table.take()
                if not frame.n:
                    continue
                total += frame.n
                context.initial = table is source.initial
                self.grow(pattern)
                source.keys.touch(frame.key[: frame.n])
                for start in range(0, frame.n, MAX_ROWS):
                    piece = _piece(frame, start)
                    for child in self.roots.get(pattern, []):
                        child.run(piece, context)
        context.initial = False
        return total

    def tick(self, context: Context) -> None:
        for group in self.groups.values():
            group.tick(context)

    def cut(self, context: Context, limits: Limits) -> None:
        """The gateway's clock was set: windows that have come further than the limits are closed as they are and begin anew.

        So no window holds samples of before and after, and after a step back nothing is late until the old time has come
        again. What is built on a window is cut after it.
        """
        for pattern, source in self.sources.items():
            self.grow(pattern)
            ahead_of = np.where(source.keys.moving(), limits.gateway, limits.devices)
            for item in self._owned.get(pattern, []):
                if isinstance(item, PaneGroup):
                    item.cut(ahead_of, context)

    def next_due(self) -> int | None:
        return min((due for group in self.groups.values() if (due := group.panes.next_due()) is not None), default=None)

    # Surviving

    def adopt(self, old: Plan) -> None:
        """Takes over keys, windows and states from the plan before, where their shape is unchanged."""
        owners = self.owners()
        self._written = {owner: n for owner, n in old._written.items() if owner in owners}
        self.urgent = {pattern for pattern in old.urgent if pattern in self.sources}
        for pattern, source in self.sources.items():
            if before := old.sources.get(pattern):
                keys = before.keys
                keys.on_evict, keys.pending = source.keys.on_evict, source.keys.pending
                source.keys = keys
        for name, group in self.groups.items():
            if same := old.groups.get(name):
                group.adopt(same)
        for name, node in self.nodes.items():
            earlier = old.nodes.get(name)
            if earlier is None or self._lineage.pattern(node.manifest) != old._lineage.pattern(earlier.manifest):
                continue
            node.meter = earlier.meter
            if not node.state.adopt(earlier.state):
                self.fresh.append(name)
                self._written.pop(self._owner("state", node), None)
            if isinstance(node, AnomalyNode) and isinstance(earlier, AnomalyNode):
                node.active = earlier.active
        for pattern in self.sources:
            self.grow(pattern)
        self.latest.adopt(old.latest)

    def checkpoint(self, *, everything: bool) -> list[Part]:
        """What changed since the last one, as parts for the store.

        Sources that brought durable (QoS 1) events are saved in full. For the others `everything`, once a minute, does
        that; until then only so much is saved that nothing already put out is put out again. What stands behind a window
        changes when one closes, which may be long after the last event: it is saved with what the window put out.
        """
        parts: list[Part] = []
        if (values := self.latest.checkpoint()) is not None:
            parts.append(Part("latest", True, saved.pack(values)))
        for pattern, source in self.sources.items():
            full = everything or pattern in self.urgent
            self._part(f"keys {pattern}", source.keys.checkpoint, parts)
            for item in self._owned.get(pattern, []):
                whole = full or item.behind_window
                if isinstance(item, PaneGroup):
                    self._part(f"panes {item.name}", item.panes.checkpoint, parts, rows=whole)
                else:
                    if whole:
                        self._part(self._owner("state", item), item.state.checkpoint, parts)
                    if isinstance(item, AnomalyNode):
                        self._part(self._owner("alerts", item), item.active.checkpoint, parts)
        self.urgent.clear()
        return parts

    def _numbered(self, node: Node) -> bool:
        """Whether the keys that its saved rows are numbered by are known: without them the rows are nobody's."""
        return bool(self.labels(node))

    def snapshots(self, owners: set[str]) -> list[Part]:
        """All that these owners have, whatever has been saved of it."""
        parts = []
        for owner, save in self._savers().items():
            change = save(everything=True) if owner in owners else None
            if change is not None:
                parts.append(Part(owner, True, saved.pack(change)))
        return parts

    def _savers(self) -> dict[str, Callable[..., dict[str, Any] | None]]:
        savers: dict[str, Callable[..., dict[str, Any] | None]] = {}
        for pattern, source in self.sources.items():
            savers[f"keys {pattern}"] = source.keys.checkpoint
        for name, group in self.groups.items():
            savers[f"panes {name}"] = group.panes.checkpoint
        for node in self.nodes.values():
            savers[self._owner("state", node)] = node.state.checkpoint
            if isinstance(node, AnomalyNode):
                savers[self._owner("alerts", node)] = node.active.checkpoint
        return savers

    def _part(self, owner: str, save: Any, parts: list[Part], **options: Any) -> None:
        change = save(**options)
        if change is None:
            return
        data = saved.pack(change)
        written = self._written.get(owner)
        # An owner's increments may grow to as much as its snapshot; so a byte is written about twice in all.
        # The first part of a life is a snapshot: the store may hold what an earlier handler of this name has left.
        if written is None or (options.get("rows", True) and written + len(data) > SNAPSHOT_EVERY):
            data = saved.pack(save(everything=True))
            parts.append(Part(owner, True, data))
            self._written[owner] = min(0, SNAPSHOT_EVERY - 2 * len(data))
        else:
            parts.append(Part(owner, False, data))
            self._written[owner] = (written or 0) + len(data)

    def restore(self, checkpoint: dict[str, list[bytes]], now: int) -> None:
        """Takes up what the store kept. What belongs to no handler of this plan is left alone.

        What cannot be taken up begins afresh and is listed in `fresh`: an engine that cannot start would be worse.
        """
        self._written |= {owner: sum(map(len, parts)) for owner, parts in checkpoint.items()}

        def take(owner: str, name: str, restore: Callable[[list[Any]], bool]) -> None:
            if owner not in checkpoint:
                return
            try:
                done = restore([saved.unpack(data) for data in checkpoint[owner]])
            except (EdgefnError, KeyError, ValueError, TypeError, IndexError):
                log.exception("%s: what was saved cannot be taken up", owner)
                done = False
            if not done:
                self.fresh.append(name)
                self._written.pop(owner, None)

        take("latest", "latest", self.latest.restore)
        for pattern, source in self.sources.items():
            take(f"keys {pattern}", pattern, source.keys.restore)
            self.grow(pattern)
        for name, group in self.groups.items():
            if self._numbered(group.nodes[0]):
                take(f"panes {name}", name, lambda parts, group=group: group.panes.restore(parts, now))  # type: ignore[misc]
        for name, node in self.nodes.items():
            if not self._numbered(node):
                continue
            take(self._owner("state", node), name, node.state.restore)
            if isinstance(node, AnomalyNode):
                take(self._owner("alerts", node), name, node.active.restore)


def _names(fields: Iterable[Field]) -> list[str]:
    return [entry.name for entry in fields]


def _piece(frame: Frame, start: int) -> Frame:
    sel = frame.sel[start : min(start + MAX_ROWS, frame.n)]
    return frame.select(len(sel), sel)
