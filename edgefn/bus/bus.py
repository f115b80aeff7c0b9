"""Messages between edgefn and an MQTT broker, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from edgefn.address import BrokerAddress
from edgefn.bus.connection import Connection
from edgefn.bus.model import Backoff, Message
from edgefn.bus.properties import Properties
from edgefn.errors import AccessError, ConfigError, EdgefnError, NotConnectedError
from edgefn.metrics import Metrics
from edgefn.topics import Pattern, check_topic

log = logging.getLogger(__name__)

STEADY = 5.0  # seconds after which a connection counts as good; two clients of one id kick each other out sooner
RETAINED = 1000  # topics whose last retained value is kept for the next connection


class Subscription:
    """An async context manager, and an iterator over the messages that match while it is open.

    A full queue gives up its oldest message and counts it under `bus.dropped.queue_full`. The iteration ends when the
    bus closes. Filters of one bus should not overlap: a broker may send a message once for each filter it matches.
    """

    def __init__(self, bus: Bus, filters: tuple[str, ...], qos: int, max_queue: int) -> None:
        self.qos = qos
        self.patterns = tuple(Pattern(text) for text in filters)
        self.filters = tuple(pattern.filter for pattern in self.patterns)
        self._bus = bus
        self._queue: deque[Message] = deque(maxlen=max_queue)
        self._filled = asyncio.Event()
        self._closed = False

    def _offer(self, message: Message) -> None:
        if not any(pattern.match(message.topic) is not None for pattern in self.patterns):
            return
        if len(self._queue) == self._queue.maxlen:
            self._bus.metrics.count("bus.dropped", reason="queue_full")
        self._queue.append(message)
        self._filled.set()

    def _close(self) -> None:
        self._closed = True
        self._filled.set()

    async def __aenter__(self) -> Subscription:
        await self._bus._add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus._remove(self)
        self._close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        return self._queue.popleft()


class Bus:
    """A client of one broker that keeps reconnecting until it is closed.

    Use it as `async with Bus(address) as bus`: entering does not wait for the broker (`wait_connected` does).
    `connected` is an `asyncio.Event`; the callables in `on_connect` are awaited after each connection is made.
    Received QoS 1 messages are acknowledged when they enter the queue of their subscription.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        client_id: str = "",
        will: Message | None = None,
        metrics: Metrics | None = None,
        clean: bool = True,
        session_expiry: int = 0xFFFFFFFF,
        protocol: Literal["3.1.1", "5"] = "3.1.1",
        window: int = 100,
        keepalive: int = 30,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        access_backoff: Backoff = Backoff(base=30.0, cap=30.0),  # noqa: B008 - frozen
    ) -> None:
        """`window` is how many QoS 1 messages may wait for their PUBACK; `keepalive` is in seconds.

        `session_expiry`: seconds that a session that is kept (not `clean`) outlives its connection, with MQTT 5.

        Raises ConfigError for TLS files that cannot be used, and for a session that is kept without a client id.
        """
        if not clean and not client_id:
            raise ConfigError("clean = false needs a client_id: the broker keeps the session under it")
        self.address = address
        self.client_id = client_id
        self.metrics = metrics or Metrics()
        self.protocol = protocol
        self.connected = asyncio.Event()
        self.on_connect: list[Callable[[], Awaitable[None]]] = []
        tls = address.tls.context() if address.tls else None
        self._make_connection = partial(
            Connection,
            address,
            client_id=client_id,
            protocol=protocol,
            clean=clean,
            session_expiry=session_expiry,
            keepalive=keepalive,
            window=window,
            will=will,
            tls=tls,
            metrics=self.metrics,
            on_message=self._deliver,
            on_lost=self._forget,
        )
        self._backoff, self._access_backoff = backoff, access_backoff
        self._subscriptions: list[Subscription] = []
        self._retained: OrderedDict[str, tuple[bytes, Properties | None]] = OrderedDict()
        self._connection: Connection | None = None
        self._answered = asyncio.Event()  # connected, or refused for a reason that waiting does not mend
        self._trouble: EdgefnError = NotConnectedError(f"{address}: not connected yet")
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Bus:
        self._task = asyncio.create_task(self._run(), name=f"bus {self.address}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Sends what was handed over, and a DISCONNECT so that the broker forgets the will. Twice is harmless."""
        if self._task is None:
            return
        task, self._task = self._task, None
        if self._connection:
            await self._connection.disconnect()
        task.cancel()
        await asyncio.wait({task})
        for subscription in self._subscriptions:
            subscription._close()

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Raises AccessError as soon as the broker refuses us, and NotConnectedError after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), timeout)
        if not self.connected.is_set():
            raise self._trouble

    async def publish(
        self,
        topic: str,
        payload: bytes | str = b"",
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """Publishes one message.

        QoS 0 returns when the message is handed over; without a connection it is dropped and counted under
        `bus.dropped.offline`, except with `retain`: the last value of each topic is kept and sent on each reconnect.
        QoS 1 returns at the PUBACK; NotConnectedError says that the connection was lost before it, so that the message
        may or may not have arrived and is the caller's to send again. An empty payload with `retain` clears the topic.
        Raises TopicError, PublishRefusedError, and ValueError for another QoS or properties without MQTT 5.
        """
        check_topic(topic)
        if qos not in (0, 1):
            raise ValueError(f"{topic}: QoS {qos} cannot be published; 0 and 1 can")
        if properties and self.protocol != "5":
            raise ValueError(f"{topic}: properties need protocol 5, and {self.address} is used with 3.1.1")
        data = payload.encode() if isinstance(payload, str) else payload
        connection = self._connection
        if retain:
            self._remember(topic, data, qos, properties, offline=connection is None)
        if connection:
            await connection.publish(topic, data, qos, retain, properties)
        elif qos:
            raise NotConnectedError(f"{topic} not published: {self._trouble}")
        elif not retain:
            self.metrics.count("bus.dropped", reason="offline")

    def subscribe(self, *filters: str, qos: int = 0, max_queue: int = 1000) -> Subscription:
        """`async with bus.subscribe("a/+") as messages` and then `async for message in messages`.

        Entering waits for the broker's answer where there is a connection, and raises AccessError where it is no.
        Raises TopicError for filters that are none.
        """
        return Subscription(self, filters, qos, max_queue)

    def _remember(self, topic: str, data: bytes, qos: int, properties: Properties | None, *, offline: bool) -> None:
        self._retained.pop(topic, None)
        # QoS 1 is its caller's to repeat. A topic that is cleared is forgotten once the broker could be told.
        if qos == 0 and (data or offline):
            self._retained[topic] = (data, properties)
            if len(self._retained) > RETAINED:
                self._retained.popitem(last=False)
                self.metrics.count("bus.dropped", reason="retained_full")

    async def _add(self, subscription: Subscription) -> None:
        self._subscriptions.append(subscription)
        if self._connection:
            try:
                await self._connection.subscribe([(name, subscription.qos) for name in subscription.filters])
            except AccessError:
                self._subscriptions.remove(subscription)
                raise
            except NotConnectedError:
                log.debug("%s: lost while subscribing; the next connection subscribes", self.address)

    def _remove(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            still = {name for other in self._subscriptions for name in other.filters}
            if self._connection and (unused := [name for name in subscription.filters if name not in still]):
                self._connection.client.unsubscribe(unused)

    def _forget(self) -> None:
        # At once, not when `_run` comes to it: who waits for `connected` to publish again would turn without a pause.
        self._connection = None
        self.connected.clear()

    def _deliver(self, message: Message) -> None:
        for subscription in self._subscriptions:
            subscription._offer(message)

    async def _run(self) -> None:
        attempt = 0
        now = asyncio.get_running_loop().time
        while True:
            began, backoff = now(), self._backoff
            connection = self._make_connection()
            try:
                await connection.open()
                await self._serve(connection)
            except AccessError as error:
                self._fail(error, logging.ERROR)
                self._answered.set()
                backoff = self._access_backoff
            except NotConnectedError as error:
                self._fail(error, logging.WARNING)
            except Exception as error:
                log.exception("%s: a bug in the connection; connecting again", self.address)
                self.metrics.count("bus.failed", reason=type(error).__name__)
                self._fail(NotConnectedError(f"{self.address}: {error!r}"), logging.WARNING)
            finally:
                connection.close()
                self._forget()
            attempt = 0 if now() - began > STEADY else attempt + 1
            await asyncio.sleep(backoff.delay(attempt))

    def _fail(self, error: EdgefnError, level: int) -> None:
        self._answered.clear()
        self._trouble = error
        if str(error) != self._told:  # once per change, not once per attempt
            self._told = str(error)
            log.log(level, "%s", error)

    async def _serve(self, connection: Connection) -> None:
        """Lives as long as the connection, and ends with NotConnectedError."""
        self._connection = connection
        wanted = {name: s.qos for s in sorted(self._subscriptions, key=lambda s: s.qos) for name in s.filters}
        answer = connection.subscribe(list(wanted.items())) if wanted else None
        for topic, (data, properties) in list(self._retained.items()):
            connection.send(topic, data, 0, True, properties)
            if not data:
                del self._retained[topic]
        log.info("%s: connected", self.address)
        self._told = ""
        self.connected.set()
        self._answered.set()
        hooks = asyncio.create_task(self._run_hooks(answer))
        try:
            await connection.keep()
        finally:
            hooks.cancel()
            await asyncio.wait({hooks})

    async def _run_hooks(self, subscribed: asyncio.Future[None] | None) -> None:
        steps: list[Callable[[], Awaitable[None]]] = [*self.on_connect]
        if subscribed:
            steps.insert(0, lambda: subscribed)
        for step in steps:
            try:
                await step()
            except AccessError as error:
                log.error("%s", error)
            except NotConnectedError as error:
                log.debug("%s: the next connection does what was to be done: %s", self.address, error)
            except Exception:
                log.exception("%s: what was to be done after connecting failed", self.address)
                self.metrics.count("bus.failed", reason="on_connect")
