"""Retained alerts on the local broker, held against what is committed: what a crash left there is cleared."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgefn.bus import Bus
from edgefn.errors import PayloadError
from edgefn.events import from_json
from edgefn.monitor import Topics

MAX_ALERTS = 100_000


class Alerts:
    """Follows the alert topics, and knows which say that something is raised.

    An alert goes out at once and is provisional until a commit holds it. Where the engine dies in between, its topic says
    what the committed state does not know.
    """

    def __init__(self, bus: Bus, topics: Topics) -> None:
        self._bus = bus
        self._topics = topics
        self._raised: dict[str, str] = {}  # topic → handler

    async def run(self) -> None:
        async with self._bus.subscribe(f"{self._topics.root}/alert/#", max_queue=MAX_ALERTS) as messages:
            async for message in messages:
                if message.payload and _is_raised(message.payload):
                    self._raised[message.topic] = message.topic.split("/")[3]
                else:
                    self._raised.pop(message.topic, None)

    async def settle(self, committed: Mapping[str, Collection[str]], known: Collection[str]) -> list[str]:
        """Clears what is raised though no commit says so; returns the topics.

        `committed`: the keys raised, of each anomaly handler of the plan. `known`: all handlers there are, whether they run or
        not: what belongs to none of them is cleared too.
        """
        right = {self._topics.alert(handler, key) for handler, keys in committed.items() for key in keys}
        wrong = [
            topic
            for topic, handler in self._raised.items()
            if topic not in right and (handler in committed or handler not in known)
        ]
        for topic in wrong:
            self._raised.pop(topic, None)
            await self._bus.publish(topic, b"", retain=True)
        return wrong


def _is_raised(payload: bytes) -> bool:
    try:
        alert = from_json(payload)
    except PayloadError:
        return False
    return isinstance(alert, dict) and alert.get("state") == "raised"
