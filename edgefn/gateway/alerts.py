"""Retained alerts on the local broker, held against what is committed: what a crash left there is cleared."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgefn.bus import Bus
from edgefn.errors import PayloadError
from edgefn.events import from_json
from edgefn.monitor import Topics

MAX_ALERTS = 100_000


class Alerts:
    """Follows the alert topics, and knows which of them should say that something is raised.

    An alert goes out at once and is provisional until a commit holds it. Where the engine dies in between, its topic says
    what the committed state does not know.
    """

    def __init__(self, bus: Bus, topics: Topics) -> None:
        self._bus = bus
        self._topics = topics
        self._told: dict[str, str] = {}  # raised on the broker: topic → handler
        self._right: dict[str, str] = {}  # raised by the engine
        self._handlers: set[str] = set()  # whose alerts the engine has told all about
        self._is_told = False

    async def run(self) -> None:
        async with self._bus.subscribe(f"{self._topics.root}/alert/#", max_queue=MAX_ALERTS) as messages:
            async for message in messages:
                if message.payload and _is_raised(message.payload):
                    self._told[message.topic] = message.topic.split("/")[3]
                else:
                    self._told.pop(message.topic, None)

    def restart(self, committed: Mapping[str, Collection[str]]) -> None:
        """A plan runs: `committed` has the keys raised by the state that it took up, of each of its anomaly handlers."""
        self._handlers, self._is_told = set(committed), True
        self._right = {self._topics.alert(handler, key): handler for handler, keys in committed.items() for key in keys}

    def note(self, topic: str, handler: str, raised: bool) -> None:
        """The engine has raised or cleared an alert just now."""
        if raised:
            self._right[topic] = handler
        else:
            self._right.pop(topic, None)
            self._told.pop(topic, None)  # what says so is on its way

    async def settle(self, known: Collection[str]) -> list[str]:
        """Clears what is raised on the broker and not by the engine; returns the topics.

        `known`: all handlers there are, whether they run or not. What belongs to none of them is cleared; what belongs to
        one that does not run is left as it is. Does nothing before the engine has told what is raised.
        """
        if not self._is_told:
            return []
        wrong = [
            topic
            for topic, handler in self._told.items()
            if topic not in self._right and (handler in self._handlers or handler not in known)
        ]
        for topic in wrong:
            self._told.pop(topic, None)
            await self._bus.publish(topic, b"", retain=True)
        return wrong


def _is_raised(payload: bytes) -> bool:
    try:
        alert = from_json(payload)
    except PayloadError:
        return False
    return isinstance(alert, dict) and alert.get("state") == "raised"
