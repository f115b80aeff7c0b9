"""One connection to a broker: the socket, paho's client on top of it, and the messages that wait for an answer.

Packet ids, the window and the waiting futures die with the connection. After a broker restart packet ids begin
again, so that an acknowledgement kept from before would acknowledge a new message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from edgefn.address import BrokerAddress
from edgefn.bus.dial import DialledSocket, dial
from edgefn.bus.model import Message, PublishRefusedError
from edgefn.bus.properties import Properties, from_paho, keep_session, packet_size, to_paho
from edgefn.certificates import why_untrusted
from edgefn.errors import AccessError, NotConnectedError
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds from the first SYN to CONNACK
CLOSE_TIMEOUT = 1.0  # seconds that what was handed over has to leave the machine
UNWRITTEN = 256  # QoS 0 messages handed over but not yet written to the socket; past it, publish() waits
BAD_PASSWORD, NOT_AUTHORIZED = 134, 135  # paho reports the codes 4 and 5 of MQTT 3.1.1 as these
TOO_LARGE = 0x95  # reason code of a packet beyond what the broker takes (MQTT 5, 2.4)
LARGEST = 268_435_460  # bytes of a packet: the largest remaining length and its header (MQTT 5, 1.5.5)
_SETTINGS = {
    132: "set protocol to a version that it speaks",
    133: "set client_id to one that it allows",
    138: "it has banned this client",
}


class _Client(paho.Client):
    """paho's client over a socket that is connected already; paho's own way blocks the loop while it connects."""

    prepared: DialledSocket

    def _create_socket(self) -> DialledSocket:
        return self.prepared


class Connection:
    """From the first SYN to the last FIN. `lost` is done when it is over; its result says why."""

    def __init__(
        self,
        address: BrokerAddress,
        *,
        client_id: str,
        protocol: str,
        clean: bool,
        session_expiry: int,
        keepalive: int,
        window: int,
        will: Message | None,
        tls: ssl.SSLContext | None,
        metrics: Metrics,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.address = address
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._unacknowledged: dict[int, asyncio.Future[None]] = {}
        self._subscribing: dict[int, tuple[list[str], asyncio.Future[None]]] = {}
        self._unwritten = 0
        self._room = asyncio.Event()
        self._window = window
        self._free = asyncio.Semaphore(window)
        self._largest = LARGEST
        self._tls = tls
        self._keepalive = keepalive
        self._clean = clean
        self._session_expiry = session_expiry
        self._v5 = protocol == "5"
        self._metrics = metrics
        self._on_message = on_message
        self._on_lost = on_lost
        self._socket: DialledSocket | None = None
        self.client = self._make_client(client_id, will)

    def _make_client(self, client_id: str, will: Message | None) -> _Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._v5 else self._clean,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            reconnect_on_failure=False,  # else paho connects again by itself, as MQTT 3.1, where 3.1.1 is refused
        )
        client.max_inflight_messages_set(0)  # `_free` is the window: paho's costs a scan of it for each PUBACK
        if self.address.username is not None:
            client.username_pw_set(self.address.username, self.address.password)
        if will:
            client.will_set(will.topic, will.payload, will.qos, will.retain, to_paho(will.properties))
        client.on_connect = self._on_connack
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_publish_in
        client.on_publish = self._on_publish_out
        client.on_subscribe = self._on_suback
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        return client

    async def open(self) -> None:
        """Returns at the CONNACK. Raises NotConnectedError, and AccessError where trying again alone will not help."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                self.client.prepared = await dial(self.address, self._tls)
                clean_start = self._clean if self._v5 else paho.MQTT_CLEAN_START_FIRST_ONLY
                self.client.connect(
                    self.address.host,
                    self.address.port,
                    keepalive=self._keepalive,
                    clean_start=clean_start,
                    properties=None if self._clean or not self._v5 else keep_session(self._session_expiry),
                )
                await self._accepted
                if self.lost.done():  # in the same segment as the CONNACK
                    raise NotConnectedError(f"{self.address}: connection lost: {self.lost.result()}")
        except TimeoutError as error:
            raise NotConnectedError(
                f"{self.address}: no answer within {CONNECT_TIMEOUT:g} s; is there an MQTT broker, and a way to it?"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise AccessError(f"{self.address}: its certificate is not trusted: {why_untrusted(error)}") from error
        except (NotConnectedError, asyncio.CancelledError):
            raise
        except OSError as error:
            # asyncio says only "Connect call failed"; the number of a failed look-up of the name is negative.
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise NotConnectedError(f"{self.address}: {why}; is the broker running there?") from error

    async def keep(self) -> None:
        """Sends the pings, until the connection is lost: raises NotConnectedError."""
        while not self.lost.done():
            # A ping is due `keepalive` after the last packet, and the broker hangs up at 1.5 times that.
            await asyncio.wait({self.lost}, timeout=max(1.0, self.client.keepalive / 4))
            self._guard(self.client.loop_misc)
        raise NotConnectedError(f"{self.address}: connection lost: {self.lost.result()}")

    async def publish(self, topic: str, data: bytes, qos: int, retain: bool, properties: Properties | None) -> None:
        """As `Bus.publish` over this connection."""
        if qos == 0:
            while self._unwritten >= UNWRITTEN and not self.lost.done():
                self._room.clear()
                await self._room.wait()
            if not self.send(topic, data, 0, retain, properties) and not retain:
                self._metrics.count("bus.dropped", reason="offline")
            return
        if self._largest < LARGEST and (size := packet_size(topic, data, properties)) > self._largest:
            # MQTT 5, 3.2.2.3.6: the broker would end the connection, again and again for the same message.
            raise PublishRefusedError(
                f"{self.address} takes packets of {self._largest} bytes at the most; a message makes {size}", TOO_LARGE
            )
        await self._free.acquire()
        acknowledged = self.send(topic, data, 1, retain, properties)
        if acknowledged is None:
            self._free.release()
            raise NotConnectedError(f"{topic} not published: {self.address}: connection lost")
        await acknowledged

    def send(
        self, topic: str, data: bytes, qos: int, retain: bool, properties: Properties | None
    ) -> asyncio.Future[None] | None:
        """Hands a message over; the future is done at the PUBACK, or at once for QoS 0. None: no connection."""
        if self.lost.done():
            return None
        answer: asyncio.Future[None] = self._loop.create_future()
        while True:
            info = self.client.publish(topic, data, qos, retain, to_paho(properties))
            if info.rc != paho.MQTT_ERR_QUEUE_SIZE:
                break  # else 65,535 packet ids have gone round and met one that still waits: the next one is free
        if info.rc != paho.MQTT_ERR_SUCCESS:
            self._end(paho.error_string(info.rc))
            return None
        if qos:
            self._unacknowledged[info.mid] = answer
        else:
            self._unwritten += 1
            answer.set_result(None)
        return answer

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> asyncio.Future[None]:
        """The future is done at the SUBACK. It raises AccessError for a filter that the broker refuses."""
        answer: asyncio.Future[None] = self._loop.create_future()
        names = [name for name, _ in filters]
        code, mid = self.client.subscribe(list(filters))
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            answer.set_exception(NotConnectedError(f"{self.address}: not subscribed to {', '.join(names)}: {code}"))
        else:
            self._subscribing[mid] = names, answer
        return answer

    async def disconnect(self) -> None:
        """Writes what was handed over and a DISCONNECT, for at most CLOSE_TIMEOUT."""
        self._guard(self.client.disconnect)
        await asyncio.wait({self.lost}, timeout=CLOSE_TIMEOUT)
        self.close()

    def close(self) -> None:
        """Lets go of the socket, whatever the state. Twice is harmless."""
        # paho's client is left behind: without callbacks, it and this object are no longer held by each other.
        for name in ("connect", "disconnect", "message", "publish", "subscribe", "socket_open", "socket_close"):
            setattr(self.client, f"on_{name}", None)
        self.client.on_socket_register_write = self.client.on_socket_unregister_write = None
        if self._socket:
            self._let_go(self._socket)
            self._socket.close()
        self._end("closed")

    def _end(self, why: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(why)
        self._on_lost()
        error = NotConnectedError(f"{self.address}: connection lost before the broker answered: {why}")
        waiting = [*self._unacknowledged.values(), *(answer for _, answer in self._subscribing.values())]
        for _ in self._unacknowledged:
            self._free.release()
        self._unacknowledged.clear()
        self._subscribing.clear()
        for answer in (self._accepted, *waiting):
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # whoever waits gets it; where nobody does any more, it is no news
        self._room.set()

    def _guard(self, step: Callable[[], Any]) -> None:
        """An exception out of paho or a callback leaves half a packet behind: it is told, the connection ends."""
        try:
            step()
        except Exception as error:
            log.exception("%s: a bug while packets were read or written; connecting again", self.address)
            self._metrics.count("bus.failed", reason=type(error).__name__)
            self._end(repr(error))

    # What the event loop calls.

    def _readable(self) -> None:
        self._guard(self._read)

    def _read(self) -> None:
        self.client.loop_read()
        while self._socket and self._socket.pending and not self.lost.done():
            self.client.loop_read()

    def _writable(self) -> None:
        self._guard(self.client.loop_write)

    # What paho calls.

    def _on_socket_open(self, client: paho.Client, userdata: object, sock: Any) -> None:
        self._socket = self.client.prepared
        self._loop.add_reader(sock.fileno(), self._readable)

    def _on_socket_close(self, client: paho.Client, userdata: object, sock: Any) -> None:
        self._let_go(sock)

    def _on_register_write(self, client: paho.Client, userdata: object, sock: Any) -> None:
        self._loop.add_writer(sock.fileno(), self._writable)

    def _on_unregister_write(self, client: paho.Client, userdata: object, sock: Any) -> None:
        self._loop.remove_writer(sock.fileno())

    def _let_go(self, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())

    def _on_connack(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        code: ReasonCode,
        properties: PahoProperties | None,
    ) -> None:
        if self._accepted.done():
            return
        if not code.is_failure:
            # MQTT 5, 3.3.4: more than Receive Maximum unacknowledged messages end the connection.
            window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
            self._free = asyncio.Semaphore(window)
            self._largest = getattr(properties, "MaximumPacketSize", LARGEST)
            self._accepted.set_result(None)
        elif code.value in (BAD_PASSWORD, NOT_AUTHORIZED):
            who = f"user {self.address.username!r}" if self.address.username else "a client without user name"
            self._accepted.set_exception(
                AccessError(
                    f"{self.address}: the broker refuses {who}: {code}; "
                    "set the username and password of this broker to ones that it knows"
                )
            )
        elif code.value in _SETTINGS:
            self._accepted.set_exception(
                AccessError(f"{self.address}: the broker refuses: {code}; {_SETTINGS[code.value]}")
            )
        else:
            self._accepted.set_exception(NotConnectedError(f"{self.address}: the broker refuses: {code}"))

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        properties: PahoProperties | None,
    ) -> None:
        self._end(str(code))

    def _on_publish_out(
        self, client: paho.Client, userdata: object, mid: int, code: ReasonCode, properties: PahoProperties
    ) -> None:
        answer = self._unacknowledged.pop(mid, None)
        if answer is None:  # QoS 0: written to the socket
            self._unwritten -= 1
            self._room.set()
            return
        self._free.release()
        if answer.done():  # cancelled by its caller
            return
        if code.is_failure:
            answer.set_exception(PublishRefusedError(f"{self.address} refused a message: {code}", code.value))
        else:
            answer.set_result(None)

    def _on_suback(
        self,
        client: paho.Client,
        userdata: object,
        mid: int,
        codes: list[ReasonCode],
        properties: PahoProperties | None,
    ) -> None:
        names, answer = self._subscribing.pop(mid, ([], None))
        if answer is None or answer.done():
            return
        if refused := [f"{name} ({code})" for name, code in zip(names, codes, strict=False) if code.is_failure]:
            self._metrics.count("bus.subscribe_refused", len(refused))
            answer.set_exception(
                AccessError(f"{self.address} refuses to subscribe us to {', '.join(refused)}; see the broker's ACL")
            )
        else:
            answer.set_result(None)

    def _on_publish_in(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._metrics.count("bus.dropped", reason="topic_not_utf8")
            return
        properties = from_paho(message.properties) if message.properties else None
        payload = bytes(message.payload)
        self._on_message(Message(topic, payload, message.qos, message.retain, properties))
