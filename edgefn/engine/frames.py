"""The scanner: from bytes off the socket to where each PUBLISH keeps its topic and payload. No object per message.

A hash of topic and payload is made on the way for messages that will be acknowledged: it tells whether a redelivered one is
the one that was processed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn.engine import types
from edgefn.engine.jit import compiled

# What is written about each message. FLAGS: the low half of the first byte (DUP, QoS, RETAIN).
TOPIC, TOPIC_LENGTH, PAYLOAD, PAYLOAD_LENGTH, FLAGS, PACKET_ID, HASH = range(7)
WORDS = 7
BATCH = 8192  # messages that one scan describes

# How a scan ends, in `status`: bytes used, messages found, and why it stopped.
USED, FOUND, WHY = range(3)
MORE, CONTROL, FULL, TOO_LARGE, BAD_LENGTH, BAD_QOS, BAD_TOPIC_LENGTH, BAD_PACKET_ID, BAD_PROPERTIES, TOPIC_ALIAS = (
    range(10)
)

# What is wrong with a frame: the reason that it is counted under, and what is said of it.
MALFORMED = {
    BAD_LENGTH: ("bad_length", "a remaining length of more than four bytes"),
    BAD_QOS: ("bad_qos", "QoS 3"),
    BAD_TOPIC_LENGTH: ("bad_topic_length", "a topic that ends behind it"),
    BAD_PACKET_ID: ("bad_packet_id", "no packet id, or 0"),
    BAD_PROPERTIES: ("bad_properties", "properties that are unknown or end behind it"),
    TOPIC_ALIAS: ("topic_alias", "a topic alias, and we allow none"),
}

PUBLISH = 3


@compiled(types.int64(types.uint8[::1], types.int64, types.int64))
def _properties(data: Any, at: Any, end: int) -> int:
    """What is wrong with the properties of a PUBLISH in data[at:end], or 0. MQTT 5, 2.2.2.2 and 3.3.2.3."""
    while at < end:
        kind = data[at]
        at += 1
        texts = 0
        if kind == 0x01:  # payload format
            at += 1
        elif kind == 0x02:  # expiry
            at += 4
        elif kind == 0x0B:  # subscription id
            size = 1
            while at < end and size < 4 and data[at] >= 128:
                at += 1
                size += 1
            if at < end and data[at] >= 128:
                return BAD_PROPERTIES
            at += 1
        elif kind == 0x03 or kind == 0x08 or kind == 0x09:  # content type, response topic, correlation data
            texts = 1
        elif kind == 0x26:  # user property
            texts = 2
        elif kind == 0x23:
            return TOPIC_ALIAS
        else:
            return BAD_PROPERTIES
        for _ in range(texts):
            if at + 2 > end:
                return BAD_PROPERTIES
            at += 2 + (np.int64(data[at]) << 8 | np.int64(data[at + 1]))
    return 0 if at == end else BAD_PROPERTIES


@compiled(
    types.void(
        types.uint8[::1], types.int64, types.int64, types.boolean, types.int64, types.int64[:, ::1], types.int64[::1]
    )
)
def scan(data: Any, start: int, end: int, v5: bool, limit: int, out: Any, status: Any) -> None:
    """Describes the PUBLISH frames in data[start:end], up to the first frame that is not whole or not a PUBLISH.

    out: (BATCH, WORDS) int64. `limit`: the largest frame that is accepted. MQTT 3.1.1 and 5, sections 2.2 and 3.3.
    """
    at: Any = start
    n = 0
    status[WHY] = MORE
    while at < end:
        head = data[at]
        # The remaining length: up to four bytes of seven bits each.
        length, shift, body = np.int64(0), 0, at + 1
        whole = False
        while body < end and shift < 28:
            byte = np.int64(data[body])
            body += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                whole = True
                break
        if not whole:
            if shift == 28:
                status[WHY] = BAD_LENGTH
            break
        if length > limit:
            status[WHY] = TOO_LARGE
            break
        if head >> 4 != PUBLISH:
            if body + length <= end:
                status[WHY] = CONTROL
            break
        if body + length > end:
            break
        if n == out.shape[0]:
            status[WHY] = FULL
            break
        stop = body + length
        qos = (head >> 1) & 3
        if qos == 3:
            status[WHY] = BAD_QOS
            break
        if length < 2:
            status[WHY] = BAD_TOPIC_LENGTH
            break
        topic_length = np.int64(data[body]) << 8 | np.int64(data[body + 1])
        topic = body + 2
        cursor = topic + topic_length
        if cursor > stop:
            status[WHY] = BAD_TOPIC_LENGTH
            break
        packet_id = np.int64(0)
        if qos:
            if cursor + 2 <= stop:
                packet_id = np.int64(data[cursor]) << 8 | np.int64(data[cursor + 1])
            if packet_id == 0:
                status[WHY] = BAD_PACKET_ID
                break
            cursor += 2
        if v5:
            properties, ended = np.int64(0), False
            shift = 0
            while cursor < stop and shift < 28:
                byte = np.int64(data[cursor])
                cursor += 1
                properties |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    ended = True
                    break
            if not ended or cursor + properties > stop:
                status[WHY] = BAD_PROPERTIES
                break
            if properties:
                wrong = _properties(data, cursor, cursor + properties)
                if wrong:
                    status[WHY] = wrong
                    break
                cursor += properties
        row = out[n]
        row[TOPIC] = topic
        row[TOPIC_LENGTH] = topic_length
        row[PAYLOAD] = cursor
        row[PAYLOAD_LENGTH] = stop - cursor
        row[FLAGS] = head & 15
        row[PACKET_ID] = packet_id
        digest = np.uint64(14695981039346656037)  # FNV-1a, 64 bit
        if qos:
            prime = np.uint64(1099511628211)
            for i in range(topic, topic + topic_length):
                digest = (digest ^ np.uint64(data[i])) * prime
            digest = (digest ^ np.uint64(255)) * prime  # no topic has this byte: topic and payload cannot run together
            for i in range(cursor, stop):
                digest = (digest ^ np.uint64(data[i])) * prime
        row[HASH] = np.int64(digest)
        n += 1
        at = stop
    status[USED] = at - start
    status[FOUND] = n
