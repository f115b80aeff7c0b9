"""The engine's own MQTT session: it reads events in large pieces and acknowledges in bulk, only what is committed.

It is persistent (stable client id, clean session off), comes back by itself with back-off and jitter, and never raises for
what a broker or a device sends: a broken stream ends the connection, and the session goes on with the next one.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.address import BrokerAddress
from edgefn.engine import frames, packets
from edgefn.engine.deliveries import Deliveries
from edgefn.engine.dialling import TIMEOUT, dial
from edgefn.engine.inbox import Inbox
from edgefn.engine.subscriptions import Subscriptions
from edgefn.errors import NotConnectedError, PayloadError
from edgefn.events import MAX_PAYLOAD
from edgefn.metrics import Metrics

KEEPALIVE = 60  # seconds
EXPIRY = 30 * 86400  # seconds for which an MQTT 5 broker keeps the session
MAX_FRAME = MAX_PAYLOAD + (64 << 10)
RECEIVE = 65535  # messages that a broker may send without our acknowledgement: as many as there are packet ids
MAX_DELIVERIES = 4 * RECEIVE  # and that are acknowledged without its PINGRESP
SECOND = 1_000_000_000
STEADY = 60 * SECOND  # how long a connection holds that forgives what ended those before it
HASTE = 4  # early ends without a reason that make the next attempt later: a broker that is restarted has the same
TURNED_AWAY = 2
_PROTOCOL_REFUSED = 0x84
_LOCKED_OUT = (0x86, 0x87)

Sample = Callable[[bytes, PayloadError, bytes], None]


@dataclass(slots=True)
class Arrived:
    """Messages in a buffer: `rows` is (n, frames.WORDS). Valid until the next read."""

    bytes: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]


class Session:
    """Not thread-safe; driven by the engine's loop, which waits for `sock` and calls `read` and `keep`."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        metrics: Metrics,
        *,
        on_change: Callable[[str, str], None],
        sample: Sample = lambda *_: None,
        protocol: int = 5,
    ) -> None:
        self.sock: socket.socket | ssl.SSLSocket | None = None
        self.connected = False
        self.got = 0  # bytes of the last read
        self.deliveries = Deliveries()
        self._address = address
        self._client_id = client_id
        self._metrics = metrics
        self._on_change = on_change  # told ("connected" | "offline" | "refused", why)
        self._sample = sample  # told of messages that cannot be taken
        self._v5 = self._prefers_v5 = protocol == 5
        self._turned_away = 0  # connections in a row that were ended before their CONNACK
        self.subscriptions = Subscriptions()
        self._known = False  # whether a broker has had a session of ours
        self._keepalive = KEEPALIVE
        self._committed = 0
        self._inbox = Inbox(MAX_FRAME)
        self._out = bytearray()
        self._attempt = 0
        self._broken = 0  # connections that the broker's fault has ended, since one that held
        self._retry_at = 0
        self._sent_at = self._heard_at = self._welcome_at = 0
        self._why = ""

    # Connection

    def subscribe(self, filters: frozenset[str]) -> None:
        """Sets the topics that are wanted; the difference is asked for at once, or when the session is there."""
        self.subscriptions.want(filters)
        if self.connected:
            self._resubscribe()

    def _resubscribe(self) -> None:
        self._send(self.subscriptions.questions(v5=self._v5))

    def restore(self, part: dict[str, Any]) -> None:
        """Takes up what the last commit knew: messages that may come again, and topics that are subscribed."""
        self.deliveries.restore(part)
        self._known = True
        self.subscriptions.restore(part.get("filters", ()))

    def checkpoint(self) -> dict[str, Any]:
        return {**self.deliveries.checkpoint(), "filters": self.subscriptions.checkpoint()}

    def connect(self, now: int) -> None:
        """Tries once. What fails is told to `on_change` and tried again later."""
        address = self._address
        try:
            sock = dial(address)
        except NotConnectedError as error:
            self._drop(str(error), now)
            return
        self.sock = sock
        self._sent_at = self._heard_at = now
        sock.setblocking(False)
        self._send(
            packets.connect(
                self._client_id,
                v5=self._v5,
                keepalive=KEEPALIVE,
                username=address.username,
                password=address.password,
                expiry=EXPIRY,
                receive=RECEIVE,
            )
        )

    def _drop(self, why: str, now: int, state: str = "offline") -> None:
        if self.connected and now - self._welcome_at >= STEADY:
            self._broken = 0
        if self.sock is not None:
            self.sock.close()
        self.sock, self.connected = None, False
        self._inbox.clear()
        self._out.clear()
        self.subscriptions.lost()
        ceiling = 30.0 if state == "refused" else min(30.0, 0.25 * 2.0 ** min(self._attempt, 10))
        self._attempt += 1
        self._retry_at = now + int(random.uniform(0.1, ceiling) * SECOND)
        if why != self._why:
            self._why = why
            self._on_change(state, why)

    def _break(self, reason: str, what: str, now: int, sample: bytes = b"") -> None:
        """Ends the connection for what the broker has sent. It will send it again: so each time we come back later."""
        self._metrics.count("session.broken", reason=reason)
        self._drop(f"{self._address} sent {what}" + (f"; it begins with {sample!r}" if sample else ""), now)
        self._broken += 1

    def close(self) -> None:
        """Says goodbye; the broker keeps the session."""
        if self.sock is not None:
            self._send(packets.GOODBYE)
            if self.sock is not None:
                self.sock.close()
        self.sock, self.connected = None, False

    # Time

    def due(self) -> int:
        """The monotonic time at which `keep` has something to do."""
        if self.sock is None:
            return self._retry_at
        if not self.connected:
            return self._sent_at + int(TIMEOUT * SECOND)
        return self._sent_at + self._keepalive * SECOND * 3 // 4

    def keep(self, now: int) -> None:
        """Connects, keeps alive, gives up on a silent broker."""
        if now < self.due():
            return
        if self.sock is None:
            self.connect(now)
        elif not self.connected:
            self._drop(f"{self._address} does not answer", now)
            self._turn_away(TURNED_AWAY, now)  # amqtt is silent where it hears of MQTT 5
        elif now - self._heard_at > 2 * self._keepalive * SECOND:
            self._drop(f"{self._address} has gone silent", now)
        else:
            self.deliveries.pinged()
            self._send(packets.PINGREQ)
            self._sent_at = now

    # Writing

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out)

    def _send(self, data: bytes) -> None:
        self._out += data
        self.flush()

    def flush(self) -> None:
        if self.sock is None or not self._out:
            return
        try:
            sent = self.sock.send(self._out)
            del self._out[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._drop(f"{self._address} broke off: {error}", time.monotonic_ns())

    def acknowledge(self, committed: int) -> None:
        """Acknowledges, in order, all that commits up to this one hold, and asks for proof that it arrived."""
        self._committed = committed
        if not self.connected:
            return
        ids = self.deliveries.acknowledge(committed)
        if len(ids):
            self._out += packets.pubacks(ids)
        if self.deliveries.barrier():
            self._out += packets.PINGREQ
        self.flush()

    # Reading

    def read(self, now: int) -> Iterator[Arrived]:
        """Reads once and gives the messages that are whole by then, in at most a few batches."""
        self.got = 0
        if self.sock is None:
            return
        inbox = self._inbox
        try:
            self.got = inbox.receive(self.sock)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ConnectionResetError:
            self._closed(now)
            return
        except OSError as error:
            self._drop(f"{self._address} broke off: {error}", now)
            return
        if not self.got:
            self._closed(now)
            return
        self._heard_at = now
        while self.sock is not None:
            why = inbox.scan(v5=self._v5)
            if len(inbox.rows) and self.connected:
                yield Arrived(inbox.bytes, inbox.rows)
            elif len(inbox.rows):
                self._break("early_message", "messages before it let us in", now)
                return
            if why == frames.CONTROL:
                self._control(now)
            elif why in frames.MALFORMED:
                reason, what = frames.MALFORMED[why]
                self._break(reason, f"a frame that is not MQTT: {what}", now, inbox.sample())
            elif why == frames.MORE or (why == frames.TOO_LARGE and not self._too_large(now)):
                break
        if len(self.deliveries) > MAX_DELIVERIES:
            self._break("unacknowledged", "more than may be under way without an acknowledgement", now)
        elif self.deliveries.unacknowledged:  # what came again may be committed already
            self.acknowledge(self._committed)
        inbox.tidy()

    def _downgrade(self, now: int) -> None:
        self._v5 = False
        self._drop(f"{self._address} does not speak MQTT 5; trying 3.1.1", now)
        self._retry_at = now

    def _closed(self, now: int) -> None:
        """The broker has ended the connection without a word.

        One that speaks 3.1.1 only may answer MQTT 5 like that (RabbitMQ before 3.13), and so may one that is about to stop:
        the second time in a row the other version is tried.
        """
        if not self.connected:
            self._drop(f"{self._address} closed the connection before it let us in", now)
            self._turn_away(1, now)
            return
        is_early = now - self._welcome_at < STEADY
        hint = ""
        if is_early and self._broken:  # mosquitto 2.0.11 does not say why it ends a session that another client takes
            hint = (
                f" soon after it let us in, again; if there is another client of the same id ({self._client_id}), "
                "give each gateway a gateway.id of its own"
            )
        self._drop(f"{self._address} closed the connection{hint}", now)
        self._turned_away = 0
        if is_early and self._broken < HASTE:
            self._broken += 1

    def _turn_away(self, weight: int, now: int) -> None:
        self._turned_away += weight
        if self._turned_away >= TURNED_AWAY and self._prefers_v5:
            self._turned_away, self._v5 = 0, not self._v5
            self._retry_at = now

    def _too_large(self, now: int) -> bool:
        """Throws an oversized message away as it comes; one of QoS 1 is acknowledged in its turn, or it would come for ever.

        Returns False while its topic and packet id are not here yet.
        """
        inbox = self._inbox
        first, size, length = inbox.head()
        if first >> 4 != frames.PUBLISH or not self.connected:
            self._break("too_large", f"a packet of {length} bytes", now, inbox.sample())
            return True
        text = inbox.peek(size, 2)
        if text is None or (body := inbox.peek(size + 2, int.from_bytes(text, "big") + 2)) is None:
            return False
        topic, packet_id = body[:-2], int.from_bytes(body[-2:], "big")
        wrong = frames.BAD_QOS if first & 6 == 6 else frames.BAD_PACKET_ID if first & 6 and not packet_id else 0
        if wrong:
            reason, what = frames.MALFORMED[wrong]
            self._break(reason, f"a frame that is not MQTT: {what}", now, inbox.sample())
            return True
        if first & 6:
            self.deliveries.thrown_away(packet_id, dup=bool(first & 8))
        self._metrics.count("events.failed", reason="too_large")
        self._sample(topic, PayloadError("too_large", f"a frame of {length} bytes; {MAX_FRAME} are the limit"), b"")
        inbox.skip(size + length)
        return True

    def _control(self, now: int) -> None:
        inbox = self._inbox
        sample = inbox.sample()
        first, size, length = inbox.head()
        body = inbox.take(size + length)[size:]
        kind = first >> 4
        # The flags of what a broker sends are all 0, and only the first packet is a CONNACK. DISCONNECT may come at any time.
        in_turn = first & 15 == 0 and (kind == packets.DISCONNECT or self.connected != (kind == packets.CONNACK))
        if in_turn and kind == packets.CONNACK:
            self._welcome(body, now, sample)
        elif in_turn and kind == packets.PINGRESP:
            self.deliveries.proved()
        elif in_turn and kind in (packets.SUBACK, packets.UNSUBACK):
            self._answered(kind, body, now, sample)
        elif in_turn and kind == packets.DISCONNECT:
            self._disconnected(body[0] if body else 0, now)
        else:
            self._break("unexpected_packet", f"packet type {kind}, which a broker does not send here", now, sample)

    def _disconnected(self, code: int, now: int) -> None:
        self._metrics.count("session.disconnected", reason=f"{code:#04x}")
        hint = "; give each gateway a gateway.id of its own" if code == packets.TAKEN_OVER else ""
        self._drop(f"{self._address} disconnected us: {packets.reason(code)}{hint}", now)
        if code not in packets.PASSING:
            self._broken += 1

    def _answered(self, kind: int, body: bytes, now: int, sample: bytes) -> None:
        refused = self.subscriptions.answered(kind, body, v5=self._v5)
        if refused is None:  # to ask again would be answered like that again
            self._break("bad_answer", "what is no answer to what we have asked", now, sample)
            return
        if refused:
            self._on_change("refused", f"{self._address} refuses to send {', '.join(refused)}; see its access list")
        self._resubscribe()  # what was changed while the question was under way

    def _welcome(self, body: bytes, now: int, sample: bytes) -> None:
        try:
            answer = packets.parse_connack(body, v5=self._v5)
        except ValueError as error:
            self._break("bad_connack", str(error), now, sample)
            return
        if answer.reason:
            if answer.reason == _PROTOCOL_REFUSED and self._v5:
                self._downgrade(now)
                return
            hint = "; see [broker] in edgefn.toml" if answer.reason in _LOCKED_OUT else ""
            self._drop(f"{self._address} refuses us: {answer.refused}{hint}", now, "refused")
            return
        self.connected = True
        self._welcome_at = now
        self._attempt, self._why = self._broken, ""
        self._keepalive = answer.keepalive or KEEPALIVE
        self.deliveries.connected(answer.session_present)
        why = ""
        if not answer.session_present and self._known:  # the broker was restarted without what it held
            uncertain, self.deliveries.uncertain = self.deliveries.uncertain, 0
            self._metrics.count("events.uncertain", uncertain)
            self._metrics.count("session.lost")
            why = (
                f"{self._address} has lost our session: events that only it held are gone, and of {uncertain} that were "
                "not acknowledged yet it is uncertain whether they come again; those of drivers here are exact"
            )
        self.subscriptions.connected(session_present=answer.session_present)
        self._known = True
        self._on_change("connected", why)
        self._resubscribe()
