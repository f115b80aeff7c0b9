"""Items to an MQTT broker in the cloud: one message each at QoS 1, in order, many under way at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from edgefn.bus import BrokerAddress, Bus, PublishRefusedError, TlsFiles
from edgefn.errors import ConfigError, NotConnectedError, PayloadError, TopicError
from edgefn.metrics import Metrics
from edgefn.sinks import Refusal
from edgefn.sinks.envelope import envelope
from edgefn.topics import check_topic, level

if TYPE_CHECKING:
    from edgefn.store import Item

_NAME = re.compile(r"\{([^{}]*)\}")
# MQTT 5 reason codes that say not now, and not never: unspecified, implementation specific, quota exceeded (3.4.2.1).
PASSING = frozenset({0x80, 0x83, 0x97})
_NAMES = ("gateway", "stream", "handler", "kind")


class MqttOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    username: str | None = None
    password: str | None = None
    tls: bool = False  # implied by the three files
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    client_id: str = ""  # empty: edgefn-<gateway>-uplink
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    topic: str = "edgefn/{gateway}/{stream}"
    window: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 100  # messages that may wait for their PUBACK
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # for a connection, and for the PUBACKs of a batch


class TopicTemplate:
    """A topic with `{gateway}`, `{stream}`, `{kind}` and `{handler}` in it: a stream is `<kind>/<handler>[/…]`.

    Raises ConfigError for another name, and for what is not a topic.
    """

    def __init__(self, text: str, gateway: str) -> None:
        for name in _NAME.findall(text):
            if name not in _NAMES:
                raise ConfigError(f"topic = {text!r}: {{{name}}} is not known; use {{{'}, {'.join(_NAMES)}}}")
        bare = _NAME.sub("x", text)
        if "{" in bare or "}" in bare:
            raise ConfigError(f"topic = {text!r}: a brace without its partner")
        try:
            check_topic(bare)
        except TopicError as error:
            raise ConfigError(f"topic = {text!r}: {error}") from error
        self._text = text
        self._gateway = gateway

    def topic(self, stream: str) -> str:
        levels = [level(part) for part in stream.split("/")]
        values = {
            "gateway": self._gateway,
            "stream": "/".join(levels),
            "kind": levels[0],
            "handler": levels[1] if len(levels) > 1 else levels[0],
        }
        return _NAME.sub(lambda match: values[match[1]], self._text)


class MqttSink:
    """Sends over a `Bus`, which reconnects by itself; an item is delivered at its PUBACK."""

    Options: ClassVar[type[msgspec.Struct]] = MqttOptions

    def __init__(self, options: MqttOptions, *, gateway: str, metrics: Metrics) -> None:
        self._template = TopicTemplate(options.topic, gateway)
        self._timeout = options.timeout_s
        tls = None
        if options.tls or options.ca or options.cert or options.key:
            tls = TlsFiles(options.ca, options.cert, options.key)
        address = BrokerAddress(options.host, options.port, options.username, options.password, tls)
        self._bus = Bus(
            address,
            client_id=options.client_id or f"edgefn-{gateway}-uplink",
            protocol=options.protocol,
            window=options.window,
            metrics=metrics,
        )
        self._entered = False

    async def connect(self) -> None:
        if not self._entered:
            await self._bus.__aenter__()
            self._entered = True
        await self._bus.wait_connected(self._timeout)

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        if not self._entered:
            raise NotConnectedError(f"{self._bus.address}: not connected yet; call connect first")
        # Tasks begin in the order they are made, so each is handed to this one connection in order; a connection that
        # comes after it gets none of them.
        sending = [asyncio.create_task(self._send(item)) for item in items]
        try:
            # A broker that keeps the connection and forgets its PUBACKs must not stop the uplink for ever.
            async with asyncio.timeout(self._timeout):
                results = await asyncio.gather(*sending, return_exceptions=True)
        except TimeoutError as error:
            raise NotConnectedError(f"{self._bus.address}: no PUBACK within {self._timeout:g} s") from error
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Refusal)]

    async def _send(self, item: Item) -> Refusal | None:
        try:
            await self._bus.publish(self._template.topic(item.stream), envelope(item), qos=1)
        except PayloadError as error:
            return Refusal(item.id, error.reason)
        except TopicError:  # too long with this stream in it
            return Refusal(item.id, "bad_topic")
        except PublishRefusedError as error:
            if error.code in PASSING:
                raise NotConnectedError(
                    f"{self._bus.address} will not take more now (reason {error.code:#x})"
                ) from error
            return Refusal(item.id, f"mqtt_{error.code}")
        return None

    async def close(self) -> None:
        if self._entered:
            await self._bus.close()
