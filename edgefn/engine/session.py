"""The engine's own MQTT session: it reads events in large pieces and acknowledges in bulk, only what is committed.

It is persistent (stable client id, clean session off), comes back by itself with back-off and jitter, and never raises for
what a broker or a device sends: a broken stream ends the connection, and the session goes on with the next one.
"""

from __future__ import annotations

import logging
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
from edgefn.events import MAX_PAYLOAD
from edgefn.metrics import Metrics

log = logging.getLogger(__name__)

KEEPALIVE = 60  # seconds
EXPIRY = 30 * 86400  # seconds for which an MQTT 5 broker keeps the session
CONNECT_TIMEOUT = 5.0
MAX_FRAME = MAX_PAYLOAD + (64 << 10)
BUFFER = 4 << 20
SECOND = 1_000_000_000
TURNED_AWAY = 2
_PROTOCOL_REFUSED = 0x84
_LOCKED_OUT = (0x86, 0x87)


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
        self._v5 = self._prefers_v5 = protocol == 5
        self._turned_away = 0  # connections in a row that were ended before their CONNACK
        self._filters: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()  # what the broker has confirmed
        self._refused: frozenset[str] = frozenset()
        self._known = False  # whether a broker has had a session of ours
        self._obsolete: frozenset[str] = frozenset()  # what the broker may still send though nobody wants it
        self._asked: dict[int, list[str]] = {}  # what was asked for and not answered, by packet id
        self._keepalive = KEEPALIVE
        self._committed = 0
        self._bytes = bytearray(BUFFER)
        self._buffer = np.frombuffer(self._bytes, np.uint8)  # the same memory, for the scanner
        self._start = self._end = 0
        self._skip = 0  # bytes of an oversized frame still to be thrown away
        self._out = bytearray()
        self._rows = np.empty((frames.BATCH, frames.WORDS), np.int64)
        self._status = np.zeros(3, np.int64)
        self._attempt = 0
        self._retry_at = 0
        self._sent_at = self._heard_at = 0
        self._packet_id = 0
        self._why = ""

    # Connection

    def subscribe(self, filters: frozenset[str]) -> None:
        """Sets the topics that are wanted; the difference is asked for at once, or when the session is there."""
        self._obsolete = (self._obsolete | self._filters) - filters
        self._filters = filters
        self._subscribed &= filters
        if self.connected:
            self._resubscribe()

    def _resubscribe(self) -> None:
        """Asks for what is wanted and not confirmed, and to be rid of what is not wanted, until the broker has said yes."""
        asked = {one for filters in self._asked.values() for one in filters}
        if gone := sorted(self._obsolete - asked):
            self._ask(packets.unsubscribe, gone)
        if new := sorted(self._filters - self._subscribed - self._refused - asked):
            self._ask(packets.subscribe, new)

    def _ask(self, packet: Callable[..., bytes], filters: list[str]) -> None:
        packet_id = self._next_id()
        self._asked[packet_id] = filters
        self._send(packet(packet_id, filters, v5=self._v5))

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 65535 + 1
        return self._packet_id

    def restore(self, part: dict[str, Any]) -> None:
        """Takes up what the last commit knew: messages that may come again, and topics that are subscribed."""
        self.deliveries.restore(part)
        self._known = True
        self._obsolete = (
            frozenset(part.get("filters", ())) - self._filters
        )  # until `subscribe` says which are still wanted

    def checkpoint(self) -> dict[str, Any]:
        return {**self.deliveries.checkpoint(), "filters": sorted(self._filters | self._obsolete)}

    def connect(self, now: int) -> None:
        """Tries once, within CONNECT_TIMEOUT. What fails is told to `on_change` and tried again later."""
        address = self._address
        try:
            if address.unix:
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(CONNECT_TIMEOUT)
                sock.connect(address.unix)
            else:
                sock = socket.create_connection((address.host, address.port), CONNECT_TIMEOUT)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls is not None:
                sock = address.tls.context().wrap_socket(sock, server_hostname=address.host)
            sock.sendall(
                packets.connect(
                    self._client_id,
                    v5=self._v5,
                    keepalive=KEEPALIVE,
                    username=address.username,
                    password=address.password,
                    expiry=EXPIRY,
                    receive=65535,
                )
            )
            sock.setblocking(False)
        except (OSError, ValueError) as error:
            self._drop(f"{address} cannot be reached: {error}", now)
            return
        self.sock = sock
        self._sent_at = self._heard_at = now

    def _drop(self, why: str, now: int, state: str = "offline") -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock, self.connected = None, False
        self._start = self._end = self._skip = 0
        self._out.clear()
        self._asked.clear()  # whether the broker has read them is not known, so they are asked for again
        ceiling = 30.0 if state == "refused" else min(30.0, 0.25 * 2.0 ** min(self._attempt, 10))
        self._attempt += 1
        self._retry_at = now + int(random.uniform(0.1, ceiling) * SECOND)
        if why != self._why:
            self._why = why
            self._on_change(state, why)

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
            return self._sent_at + int(CONNECT_TIMEOUT * SECOND)
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
        if self._end == BUFFER:
            self._compact()
        try:
            got = self.sock.recv_into(memoryview(self._bytes)[self._end :])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ConnectionResetError:
            self._closed(now)
            return
        except OSError as error:
            self._drop(f"{self._address} broke off: {error}", now)
            return
        if not got:
            self._closed(now)
            return
        self._heard_at = now
        self._end += got
        self.got = got
        while self.sock is not None:
            if self._skip:
                taken = min(self._skip, self._end - self._start)
                self._start += taken
                self._skip -= taken
            frames.scan(self._buffer, self._start, self._end, self._v5, MAX_FRAME, self._rows, self._status)
            used, found, why = (int(value) for value in self._status)
            self._start += used
            if found and self.connected:
                yield Arrived(self._buffer, self._rows[:found])
            elif found:
                self._drop(f"{self._address} sent messages before it let us in", now)
                return
            if why == frames.CONTROL:
                self._control(now)
            elif why == frames.MALFORMED:
                self._metrics.count("events.failed", reason="malformed_frame")
                self._drop(f"{self._address} sent a frame that is not MQTT", now)
            elif why == frames.MORE or (why == frames.TOO_LARGE and not self._too_large(now)):
                break
        if self.deliveries.unacknowledged:  # what came again may be committed already
            self.acknowledge(self._committed)
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start > BUFFER // 2:
            self._compact()

    def _downgrade(self, now: int) -> None:
        self._v5 = False
        self._drop(f"{self._address} does not speak MQTT 5; trying 3.1.1", now)
        self._retry_at = now

    def _closed(self, now: int) -> None:
        """The broker has ended the connection without a word.

        One that speaks 3.1.1 only may answer MQTT 5 like that (RabbitMQ before 3.13), and so may one that is about to stop:
        the second time in a row the other version is tried.
        """
        was_in = self.connected
        self._drop(f"{self._address} closed the connection" + ("" if was_in else " before it let us in"), now)
        if was_in:
            self._turned_away = 0
        else:
            self._turn_away(1, now)

    def _turn_away(self, weight: int, now: int) -> None:
        self._turned_away += weight
        if self._turned_away >= TURNED_AWAY and self._prefers_v5:
            self._turned_away, self._v5 = 0, not self._v5
            self._retry_at = now

    def _compact(self) -> None:
        rest = self._end - self._start
        self._bytes[:rest] = self._bytes[self._start : self._end]
        self._start, self._end = 0, rest

    def _head(self) -> tuple[int, int, int] | None:
        """First byte, size of the head and length of the body of the frame at `_start`."""
        length = shift = 0
        for size in range(1, min(5, self._end - self._start)):
            byte = int(self._bytes[self._start + size])
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return int(self._bytes[self._start]), size + 1, length
        return None

    def _too_large(self, now: int) -> bool:
        """Throws an oversized message away as it comes; one of QoS 1 is acknowledged in its turn, or it would come for ever.

        Returns False while its topic and packet id are not here yet.
        """
        head = self._head()
        assert head is not None
        first, size, length = head
        if first >> 4 != frames.PUBLISH or not self.connected:
            self._drop(f"{self._address} sent a packet of {length} bytes", now)
            return True
        at = self._start + size
        if self._end - at < 2:
            return False
        topic_length = int(self._bytes[at]) << 8 | int(self._bytes[at + 1])
        if self._end - at < topic_length + 4:
            return False
        topic = bytes(self._bytes[at + 2 : at + 2 + topic_length]).decode(errors="replace")
        if first & 6:
            low = at + 2 + topic_length
            packet_id = int(self._bytes[low]) << 8 | int(self._bytes[low + 1])
            self.deliveries.thrown_away(packet_id, dup=bool(first & 8))
        self._metrics.count("events.failed", reason="too_large")
        log.warning("%s: a message of %d bytes is thrown away; %d are the limit", topic, length, MAX_FRAME)
        self._skip = size + length
        return True

    def _control(self, now: int) -> None:
        head = self._head()
        assert head is not None
        first, size, length = head
        body = bytes(self._bytes[self._start + size : self._start + size + length])
        self._start += size + length
        kind = first >> 4
        if kind == packets.CONNACK:
            self._welcome(body, now)
        elif kind == packets.PINGRESP:
            self.deliveries.proved()
        elif kind in (packets.SUBACK, packets.UNSUBACK):
            if kind == packets.SUBACK:
                self._subscription_answered(body)
            else:
                self._obsolete -= frozenset(self._asked.pop(int.from_bytes(body[:2], "big"), ()))
            self._resubscribe()  # what was changed while the question was under way
        elif kind == packets.DISCONNECT:
            reason = packets.V5_REASONS.get(body[0] if body else 0, "no reason given")
            self._drop(f"{self._address} disconnected us: {reason}", now)
        else:
            self._drop(f"{self._address} sent packet type {kind}, which a broker does not send", now)

    def _subscription_answered(self, body: bytes) -> None:
        packet_id, codes = packets.parse_suback(body, v5=self._v5)
        answers = dict(zip(self._asked.pop(packet_id, ()), codes, strict=False))
        granted = {one for one, code in answers.items() if code < 0x80}
        self._subscribed |= granted & self._filters
        refused = sorted(answers.keys() - granted)
        self._refused |= frozenset(refused)  # not asked for again on this connection
        if refused:
            self._on_change("refused", f"{self._address} refuses to send {', '.join(refused)}; see its access list")

    def _welcome(self, body: bytes, now: int) -> None:
        try:
            answer = packets.parse_connack(body, v5=self._v5)
        except ValueError as error:
            self._drop(f"{self._address}: {error}", now)
            return
        if answer.reason:
            if answer.reason == _PROTOCOL_REFUSED and self._v5:
                self._downgrade(now)
                return
            hint = "; see [broker] in edgefn.toml" if answer.reason in _LOCKED_OUT else ""
            self._drop(f"{self._address} refuses us: {answer.refused}{hint}", now, "refused")
            return
        self.connected = True
        self._attempt, self._why = 0, ""
        self._keepalive = answer.keepalive or KEEPALIVE
        self.deliveries.connected(answer.session_present)
        why = ""
        if not answer.session_present:
            if self._known:  # there was a session: the broker was restarted without what it held
                uncertain, self.deliveries.uncertain = self.deliveries.uncertain, 0
                self._metrics.count("events.uncertain", uncertain)
                self._metrics.count("session.lost")
                why = (
                    f"{self._address} has lost our session: events that only it held are gone, and of {uncertain} that were "
                    "not acknowledged yet it is uncertain whether they come again; those of drivers here are exact"
                )
            self._obsolete = frozenset()
        # All of it again: a broker that came back with an older state has a session, and may not know the newest filters.
        # It costs nothing, since with retain handling 1 no retained message comes for a filter that is there.
        self._subscribed = self._refused = frozenset()
        self._known = True
        self._on_change("connected", why)
        self._resubscribe()
