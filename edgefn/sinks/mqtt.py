"""Items to an MQTT broker in the cloud: one message each at QoS 1, in order, many under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from edgefn.bus import BrokerAddress, Bus, Properties, PublishRefusedError, TlsFiles
from edgefn.certificates import check_tls
from edgefn.clock import NS, Clock, SystemClock
from edgefn.errors import AccessError, ConfigError, NotConnectedError, PayloadError, TopicError, Trouble
from edgefn.metrics import Metrics
from edgefn.sinks import LOCAL, FilePath, Refusal
from edgefn.sinks.envelope import MEDIA_TYPES, Encoding, envelope
from edgefn.sinks.secrets import check_secret, secret
from edgefn.sinks.template import check_template, fill
from edgefn.topics import check_topic, level

if TYPE_CHECKING:
    from edgefn.store import Item

HEADER = 7  # bytes of a PUBLISH beside topic, properties and payload: fixed header, length of the topic, packet id
# MQTT 5 reason codes that say not now, and not never: unspecified, implementation specific, quota exceeded (3.4.2.1).
PASSING = frozenset({0x80, 0x83, 0x97})


class MqttOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    username: str | None = None
    password: str | None = None
    password_file: FilePath | None = None
    tls: bool = False  # implied by the three files
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    client_id: str = ""  # empty: edgefn-<gateway>-uplink
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    session_s: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0  # 0: the session ends with the connection
    topic: str = "edgefn/{gateway}/{stream}"
    encoding: Encoding = "json"
    properties: bool = True  # MQTT 5: expiry, content type and user properties with each message
    window: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 100  # messages that may wait for their PUBACK
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # for a connection, and for the next PUBACK


class TopicTemplate:
    """A topic with `{gateway}`, `{stream}`, `{kind}` and `{handler}` in it: a stream is `<kind>/<handler>[/…]`.

    Raises ConfigError for another name, and for what is not a topic.
    """

    def __init__(self, text: str, gateway: str) -> None:
        bare = check_template("topic", text, ("gateway", "stream", "handler", "kind"))
        try:
            check_topic(bare)
        except TopicError as error:
            raise ConfigError(f"topic = {text!r}: {error}") from error
        self._text = text
        self._gateway = gateway

    def topic(self, stream: str) -> str:
        levels = [level(part) for part in stream.split("/")]
        return fill(
            self._text,
            {
                "gateway": self._gateway,
                "stream": "/".join(levels),
                "kind": levels[0],
                "handler": levels[1] if len(levels) > 1 else levels[0],
            },
        )


class MqttSink:
    """Sends over a `Bus`, which reconnects by itself; an item is delivered at its PUBACK."""

    Options: ClassVar[type[msgspec.Struct]] = MqttOptions

    def __init__(self, options: MqttOptions, *, gateway: str, metrics: Metrics, clock: Clock | None = None) -> None:
        self._template = TopicTemplate(options.topic, gateway)
        if options.password and options.password_file:
            raise ConfigError("password and password_file: one of the two is enough")
        if (options.password or options.password_file) and options.username is None:
            raise ConfigError("a password without a username: set both, or none")
        self._options = options
        self._client_id = options.client_id or f"edgefn-{gateway}-uplink"
        self._tls: TlsFiles | None = None
        if options.tls or options.ca or options.cert or options.key:
            self._tls = TlsFiles(options.ca, options.cert, options.key)
        self._where = f"{options.host}:{options.port}"
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._bus: Bus | None = None
        self.bytes_sent = 0

    def check(self, now: int) -> Iterator[Trouble]:
        options = self._options
        if self._tls:
            yield from check_tls(self._tls, now)
        elif options.username is not None and options.host not in LOCAL:
            yield Trouble("the password travels unencrypted; set tls = true where the broker can", fatal=False)
        if options.password_file:
            yield from check_secret("password_file", options.password_file)

    async def connect(self) -> None:
        if self._bus is None:
            try:
                self._bus = await self._make_bus().__aenter__()
            except ConfigError as error:
                raise AccessError(str(error)) from error
        try:
            await self._bus.wait_connected(self._options.timeout_s)
        except AccessError:
            await self.close()  # the next one reads the files again, which somebody may have mended
            raise
        except NotConnectedError as error:
            # A broker that does not take our certificate ends the connection, and hardly ever says why.
            if self._tls and (wrong := [one for one in check_tls(self._tls, self._clock.now()) if one.fatal]):
                await self.close()
                raise AccessError(f"{error}; {wrong[0]}") from error
            raise

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        if self._bus is None:
            raise NotConnectedError(f"{self._where}: not connected yet; call connect first")
        now = asyncio.get_running_loop().time
        patience = self._options.timeout_s
        try:
            # A broker that keeps the connection and forgets its PUBACKs must not stop the uplink for ever; over a slow
            # line a batch takes minutes, and each PUBACK is a sign of life.
            async with asyncio.timeout(patience) as limit:
                # Tasks begin in the order they are made, so each is handed to this one connection in order; a
                # connection that comes after it gets none of them.
                sending = [asyncio.create_task(self._send(self._bus, item)) for item in items]
                for task in sending:
                    task.add_done_callback(lambda _: None if limit.expired() else limit.reschedule(now() + patience))
                results = await asyncio.gather(*sending, return_exceptions=True)
        except TimeoutError as error:
            raise NotConnectedError(f"{self._where}: no PUBACK within {patience:g} s") from error
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Refusal)]

    async def _send(self, bus: Bus, item: Item) -> Refusal | None:
        try:
            topic, data = self._template.topic(item.stream), envelope(item, self._options.encoding)
            properties = self._properties(item)
            self.bytes_sent += len(topic) + len(data) + HEADER + (len(properties.pack()) if properties else 0)
            await bus.publish(topic, data, qos=1, properties=properties)
        except PayloadError as error:
            return Refusal(item.id, error.reason, str(error))
        except TopicError as error:  # too long with this stream in it
            return Refusal(item.id, "bad_topic", str(error))
        except PublishRefusedError as error:
            if error.code in PASSING:
                raise NotConnectedError(f"{self._where} will not take more now (reason {error.code:#x})") from error
            return Refusal(item.id, f"mqtt_{error.code}", str(error))
        return None

    async def close(self) -> None:
        bus, self._bus = self._bus, None
        if bus:
            await bus.close()

    def _make_bus(self) -> Bus:
        options = self._options
        password = options.password
        if options.password_file:
            password = secret("password_file", options.password_file)
        return Bus(
            BrokerAddress(options.host, options.port, options.username, password, self._tls),
            client_id=self._client_id,
            protocol=options.protocol,
            clean=options.session_s == 0,
            session_expiry=options.session_s,
            window=options.window,
            metrics=self._metrics,
        )

    def _properties(self, item: Item) -> Properties | None:
        options = self._options
        if options.protocol != "5" or not options.properties:
            return None
        expiry = None
        if item.expires is not None:
            # In seconds, and rounded up: 0 would mean that it has expired on its way (MQTT 5, 3.3.2.3.3).
            expiry = min(max(-(-(item.expires - self._clock.now()) // NS), 1), 0xFFFFFFFF)
        user = (("id", item.key), ("gateway", item.gateway), ("stream", item.stream), ("seq", str(item.seq)))
        return Properties(user=user, message_expiry=expiry, content_type=MEDIA_TYPES[options.encoding])
