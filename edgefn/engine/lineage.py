"""What a handler descends from: the pattern that it listens to in the end, and the handlers in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgefn.engine.nodes import Node
from edgefn.manifest import HandlerManifest


class Lineage:
    """Follows the parents of handlers, which are in `nodes` by name as long as they run."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes

    def _above(self, handler: HandlerManifest) -> Iterator[Node]:
        while handler.parent is not None:
            node = self._nodes[handler.parent]
            yield node
            handler = node.manifest

    def is_lost(self, handler: HandlerManifest) -> bool:
        """Whether one that it builds on does not run."""
        while handler.parent is not None:
            if handler.parent not in self._nodes:
                return True
            handler = self._nodes[handler.parent].manifest
        return False

    def top(self, handler: HandlerManifest) -> HandlerManifest:
        for node in self._above(handler):
            handler = node.manifest
        return handler

    def pattern(self, handler: HandlerManifest) -> str:
        """The pattern it descends from, as the source is called."""
        return self.top(handler).listens

    def root(self, handler: HandlerManifest) -> tuple[str, Node | None]:
        """The pattern, and the nearest handler above that makes columns of its own."""
        makers = (node for node in self._above(handler) if node.manifest.kind != "filter")
        return self.pattern(handler), next(makers, None)

    def behind_window(self, handler: HandlerManifest) -> bool:
        return any(node.manifest.window is not None for node in self._above(handler))
