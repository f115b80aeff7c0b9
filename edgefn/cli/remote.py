"""Who carries out what an operator asks: the gateway that runs, asked over MQTT, or this process on a store that stands still."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from edgefn.bus import Bus, Subscription
from edgefn.clock import SystemClock
from edgefn.config import Config
from edgefn.errors import ConfigError, EdgefnError, NotConnectedError, StoreError, StoreInUseError
from edgefn.events import from_json, to_json
from edgefn.gateway.commands import CommandError
from edgefn.gateway.handler_commands import HandlerCommands
from edgefn.gateway.operations import Operations
from edgefn.gateway.standing import StandingHandlers
from edgefn.metrics import Metrics
from edgefn.monitor import Topics
from edgefn.resources import bundled
from edgefn.store import Store, open_store

CONNECT = 5.0  # seconds for the broker, and for what it retains of the gateway
SILENCE = 60.0  # seconds without a word until the gateway counts as gone
LOCAL_PAGE = 16 << 20  # bytes of rows at a time where no answer has to fit into a message

News = Callable[[Any], None]


class UnreachableError(EdgefnError, ConnectionError):
    """There is no gateway that can be asked: none runs, or its broker is not there. The message says which, and why."""


class Operator(Protocol):
    """Carries out one verb after the other. `running`: by a gateway that is at work."""

    running: bool

    async def ask(self, verb: str, arguments: Mapping[str, Any], news: News = lambda _: None) -> Any:
        """The result; `news` gets what is told before. Raises CommandError where it is refused, UnreachableError."""

    async def say(self, verb: str) -> None:
        """Says something while an answer to something else is waited for; there is none to this."""


@asynccontextmanager
async def operator(settings: Config) -> AsyncIterator[Operator]:
    """Raises StoreError where there is no store, or it cannot be opened, and UnreachableError."""
    path = settings.store_path
    try:
        path.stat()
    except FileNotFoundError as error:
        raise StoreError(f"{path}: there is no store; a gateway makes one when it starts (`edgefn run`)") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; run this as root or as the user of the service") from error
    names = [entry.name for entry in settings.uplink]
    store = open_store(
        path,
        gateway=settings.gateway.id,
        clock=SystemClock(),
        metrics=Metrics(),
        max_bytes=settings.store.max_size,
        ballast=settings.store.ballast,
        salvage_for=names,
    )
    try:
        with _as_owner(path):
            async with store:
                yield _Here(store, names, settings)
        return
    except StoreInUseError as error:
        holder = error.holder
    async with _reached(settings, f"{path} is in use by {holder}") as there:
        yield there


@contextmanager
def _as_owner(path: Path) -> Iterator[None]:
    """Root becomes the owner of a file meanwhile: what is made beside it must be the service's to change and remove."""
    if os.geteuid() != 0:
        yield
        return
    owner, group = path.stat(), os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


class _Here:
    running = False

    def __init__(self, store: Store, uplinks: list[str], settings: Config) -> None:
        self._store = store
        self._uplinks = uplinks
        handlers = Path(settings.gateway.handlers) if settings.gateway.handlers else bundled("handlers")
        standing = StandingHandlers(handlers, Path(settings.gateway.state))
        self._verbs = {**Operations(store, self._states, page=LOCAL_PAGE).verbs, **HandlerCommands(standing).verbs}

    async def ask(self, verb: str, arguments: Mapping[str, Any], news: News = lambda _: None) -> Any:
        async def tell(value: Any) -> None:
            news(value)

        if verb not in self._verbs:
            raise UnreachableError("no gateway runs on this store; start it with `edgefn run`")
        return from_json(to_json(await self._verbs[verb](dict(arguments), tell)))

    async def say(self, verb: str) -> None:
        raise UnreachableError(f"{verb}: no gateway runs on this store")

    async def _states(self) -> dict[str, dict[str, Any]]:
        states = {}
        for name in self._uplinks:
            try:
                waiting = await self._store.stats(name)
            except ConfigError:
                continue  # added to the settings since the gateway last ran: nothing waits for it yet
            spent = await self._store.spent(name)
            states[name] = {
                "state": "stopped",
                "rows": waiting.rows,
                "bytes": waiting.bytes,
                "oldest_s": waiting.oldest_s,
                **({"spent": {"day": spent.day, "bytes": spent.bytes}} if spent else {}),
            }
        return states


@asynccontextmanager
async def _reached(settings: Config, in_use: str) -> AsyncIterator[Operator]:
    """A gateway that is known to run, over the broker of its settings."""
    address, topics = settings.address(), Topics(settings.gateway.id)
    reply = topics.reply(secrets.token_hex(8))
    async with Bus(address) as bus:
        try:
            await bus.wait_connected(CONNECT)
        except NotConnectedError as error:
            raise UnreachableError(
                f"{in_use}: a gateway runs there, but its broker cannot be reached: {error}"
            ) from error
        async with bus.subscribe(reply, topics.status, qos=1) as messages:
            there = _There(bus, topics, messages, reply, f"{in_use}, but no gateway {topics.gateway!r}")
            await there.expect_online()
            yield there


class _There:
    running = True

    def __init__(self, bus: Bus, topics: Topics, messages: Subscription, reply: str, trouble: str) -> None:
        self._bus = bus
        self._topics = topics
        self._messages = messages
        self._reply = reply
        self._trouble = trouble
        self._asked = 0

    async def expect_online(self) -> None:
        """Raises UnreachableError where the broker retains nothing of the gateway, or that it is offline."""
        try:
            async with asyncio.timeout(CONNECT):
                async for message in self._messages:
                    if message.topic == self._topics.status:
                        self._check_status(message.payload)
                        return
        except TimeoutError as error:
            raise UnreachableError(
                f"{self._trouble} has ever been heard at {self._bus.address}; "
                "were gateway.id or the broker changed since it was started?"
            ) from error

    async def ask(self, verb: str, arguments: Mapping[str, Any], news: News = lambda _: None) -> Any:
        self._asked += 1
        number = self._asked
        body = {**arguments, "reply_to": self._reply, "id": number}
        try:
            await self._bus.publish(self._topics.command(verb), to_json(body), qos=1)
            while True:
                async with asyncio.timeout(SILENCE):
                    answer = await self._answer_to(number)
                if not answer["ok"]:
                    raise CommandError(answer["error"])
                if answer["done"]:
                    return answer["result"]
                news(answer["result"])
        except TimeoutError as error:
            raise UnreachableError(f"{self._trouble} has answered cmd/{verb} within {SILENCE:g} s") from error
        except NotConnectedError as error:
            raise UnreachableError(f"cmd/{verb}: {error}; whether it was carried out is not known") from error

    async def say(self, verb: str) -> None:
        await self._bus.publish(self._topics.command(verb), b"{}", qos=1)

    async def _answer_to(self, number: int) -> dict[str, Any]:
        async for message in self._messages:
            if message.topic == self._topics.status:
                self._check_status(message.payload)
                continue
            answer = from_json(message.payload)
            if isinstance(answer, dict) and answer.get("id") == number:
                return answer
        raise NotConnectedError(f"{self._bus.address}: the connection was closed")

    def _check_status(self, payload: bytes) -> None:
        if payload != b"online":
            raise UnreachableError(f"{self._trouble} is connected to the broker at {self._bus.address} now")
