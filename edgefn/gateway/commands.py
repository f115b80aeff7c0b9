"""What operators say over MQTT: edgefn/<gateway>/cmd/<verb> with a JSON object."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edgefn.bus import Bus, Message
from edgefn.errors import EdgefnError, PayloadError
from edgefn.events import from_json
from edgefn.monitor import Topics

log = logging.getLogger(__name__)

Verb = Callable[[dict[str, Any]], Awaitable[None]]


class CommandError(EdgefnError, ValueError):
    """A command that cannot be carried out; the message says why."""


class Commands:
    """Carries out one command after the other. What is wrong with one is logged, which is on MQTT as well."""

    def __init__(self, bus: Bus, topics: Topics, verbs: Mapping[str, Verb]) -> None:
        self._bus = bus
        self._topics = topics
        self._verbs = verbs

    async def run(self) -> None:
        async with self._bus.subscribe(self._topics.command("+"), qos=1, max_queue=100) as messages:
            async for message in messages:
                await self._carry_out(message)

    async def _carry_out(self, message: Message) -> None:
        name = message.topic.split("/")[-1]
        if message.retain:
            log.warning("cmd/%s: a retained command is not carried out: it would come again at each start", name)
            return
        try:
            verb = self._verbs.get(name)
            if verb is None:
                raise CommandError(f"it is not known; known are {', '.join(sorted(self._verbs))}")
            arguments = from_json(message.payload) if message.payload else {}
            if not isinstance(arguments, dict):
                raise CommandError('its payload is no JSON object such as {"handler": "spike"}')
            await verb(arguments)
        except (CommandError, PayloadError) as error:
            log.warning("cmd/%s: %s", name, error)


def text(arguments: Mapping[str, Any], name: str) -> str:
    """An argument that must be a text. Raises CommandError."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise CommandError(f'it needs {{"{name}": "…"}}')
    return value
