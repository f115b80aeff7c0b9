"""What operators ask over MQTT, edgefn/<gateway>/cmd/<verb> with a JSON object, and what they are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from edgefn.bus import Bus, Message
from edgefn.errors import EdgefnError, PayloadError, TopicError
from edgefn.events import from_json, to_json
from edgefn.metrics import Metrics
from edgefn.monitor import Topics
from edgefn.topics import check_topic

log = logging.getLogger(__name__)

MAX_COMMAND = 64 << 10  # bytes of a command
MAX_ANSWER = 256 << 10  # bytes of an answer; what is longer is asked for in pages

Tell = Callable[[Any], Awaitable[None]]
Verb = Callable[[dict[str, Any], Tell], Awaitable[Any]]


class CommandError(EdgefnError, ValueError):
    """A command that cannot be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    arguments: dict[str, Any]
    reply_to: str  # empty: nobody waits for an answer
    id: Any


class Commands:
    """Carries out one command after the other, and those of `beside`, which take long, beside the others.

    A verb gets the arguments and a function for news of its progress; what it returns is the answer. What is wrong with
    a command is logged, which is on MQTT as well, and answered where the command says where to (`reply_to`).
    """

    def __init__(
        self, bus: Bus, topics: Topics, metrics: Metrics, verbs: Mapping[str, Verb], beside: Collection[str] = ()
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._metrics = metrics
        self._verbs = verbs
        self._beside = beside
        self._under_way: set[str] = set()

    async def run(self) -> None:
        async with (
            asyncio.TaskGroup() as tasks,
            self._bus.subscribe(self._topics.command("+"), qos=1, max_queue=100) as messages,
        ):
            async for message in messages:
                command = self._read(message)
                if command is None:
                    continue
                if command.name not in self._beside:
                    await self._carry_out(command)
                elif command.name in self._under_way:
                    await self._refuse(command, CommandError("one is under way; wait for its end, or stop it"))
                else:
                    self._under_way.add(command.name)
                    tasks.create_task(self._carry_out(command), name=f"cmd/{command.name}")

    def _read(self, message: Message) -> _Command | None:
        """None for what is no command, which is logged: whom to answer is not known."""
        name = message.topic.split("/")[-1]
        if message.retain:
            log.warning("cmd/%s: a retained command is not carried out: it would come again at each start", name)
            return None
        try:
            if len(message.payload) > MAX_COMMAND:
                raise CommandError(f"its payload has {len(message.payload)} bytes; {MAX_COMMAND} are allowed")
            arguments = from_json(message.payload) if message.payload else {}
            if not isinstance(arguments, dict):
                raise CommandError('its payload is no JSON object such as {"handler": "spike"}')
            reply_to = _reply_topic(arguments.pop("reply_to", ""))
            return _Command(name, arguments, reply_to, arguments.pop("id", None))
        except (CommandError, PayloadError) as error:
            self._note(name, error)
            return None

    async def _carry_out(self, command: _Command) -> None:
        try:
            verb = self._verbs.get(command.name)
            if verb is None:
                raise CommandError(f"it is not known; known are {', '.join(sorted(self._verbs))}")
            result = await verb(command.arguments, lambda news: self._answer(command, True, news, done=False))
        except EdgefnError as error:
            await self._refuse(command, error)
        except Exception as error:  # of one command; the gateway goes on
            log.exception("cmd/%s failed", command.name)
            await self._refuse(command, error)
        else:
            await self._answer(command, True, result)
        finally:
            self._under_way.discard(command.name)

    async def _refuse(self, command: _Command, error: Exception) -> None:
        self._note(command.name, error)
        await self._answer(command, False, str(error) or repr(error))

    def _note(self, name: str, error: Exception) -> None:
        self._metrics.count("commands.failed", reason=type(error).__name__)
        log.warning("cmd/%s: %s", name, error)

    async def _answer(self, command: _Command, ok: bool, value: Any, *, done: bool = True) -> None:
        if not command.reply_to:
            return
        what = "result" if ok else "error"
        answer = to_json({"id": command.id, "ok": ok, what: value, "done": done})
        if len(answer) > MAX_ANSWER:
            error = f"the answer has {len(answer)} bytes, and {MAX_ANSWER} are allowed; ask for less at a time"
            answer = to_json({"id": command.id, "ok": False, "error": error, "done": done})
        try:
            await self._bus.publish(command.reply_to, answer, qos=1)
        except EdgefnError as error:  # what was asked is done; who asked will ask again
            log.warning("cmd/%s: its answer is lost: %s", command.name, error)


def _reply_topic(value: Any) -> str:
    """A topic that takes answers. Raises CommandError for one that somebody else's words are expected on."""
    if value == "":
        return ""
    try:
        topic = check_topic(value) if isinstance(value, str) else ""
    except TopicError as error:
        raise CommandError(f"reply_to: {error}") from error
    levels = topic.split("/")
    if not topic or topic.startswith("$") or (levels[0] == "edgefn" and levels[2:3] != ["reply"]):
        raise CommandError(
            f"reply_to = {value!r}: answers go to a topic that begins neither with $ nor with edgefn/, "
            "or to one below edgefn/<gateway>/reply/"
        )
    return topic


def text(arguments: Mapping[str, Any], name: str) -> str:
    """An argument that must be a text. Raises CommandError."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise CommandError(f'it needs {{"{name}": "…"}}')
    return value
