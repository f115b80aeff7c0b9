"""The handlers that are measured and the events that they get."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from bench.wire import publish
from edgefn import events

KEYS = 16
SAMPLES = 1000  # of a batch event
US = 1000
SECOND = 1_000_000_000

# Tells that all that was sent before has been processed, and carries a time through the whole engine.
MARK = '''\
"""Answers each change of a mark with an alert that carries the mark's number."""

from edgefn import anomaly


@anomaly("mark/+", threshold=0.5, clear=0.5, to="local")
def mark(n, value) -> float:
    return value
'''

CLIMATE = '''\
"""Keep plausible readings and summarise each room every second."""

from typing import NamedTuple

from edgefn import aggregate, filter, tumbling


@filter("bench/{room}/climate")
def plausible(temperature, humidity):
    return -40 < temperature < 85 and 0 <= humidity <= 100


class Second(NamedTuple):
    mean: float
    peak: float


@aggregate(plausible, tumbling("1s"))
def second(temperature) -> Second:
    return Second(temperature.mean(), temperature.max())
'''

# Local: else the uplink would still be at work on the summaries when the next run begins.
KEYED = CLIMATE.replace('tumbling("1s")', 'tumbling("1s"), to="local"')

# The same for a hundred thousand keys: each has its turn once in some seconds, and its window has to wait for it.
MANY = KEYED.replace('"1s"', '"1s", idle="6s"')

SIZED = '''\
"""One reading out of a message of any size."""

from typing import NamedTuple

from edgefn import aggregate, filter, tumbling


@filter("bench/{room}/sized")
def plausible(temperature):
    return -40 < temperature < 85


class Second(NamedTuple):
    mean: float
    peak: float


@aggregate(plausible, tumbling("1s"))
def second(temperature) -> Second:
    return Second(temperature.mean(), temperature.max())
'''

VIBRATION = '''\
"""Samples in batches: keep what is plausible, summarise each second, and score every sample."""

from dataclasses import dataclass
from typing import NamedTuple

from edgefn import aggregate, anomaly, filter, tumbling


@filter("bench/{motor}/motor")
def plausible(vibration):
    return -50 < vibration < 50


class Second(NamedTuple):
    rms: float
    peak: float


@aggregate(plausible, tumbling("1s"))
def second(vibration) -> Second:
    return Second((vibration * vibration).mean() ** 0.5, vibration.max())


@dataclass
class Baseline:
    mean: float = 0.0
    var: float = 1.0


@anomaly(plausible, threshold=1e6, to="local")
def spike(vibration, state: Baseline) -> float:
    error = vibration - state.mean
    state.mean += 0.01 * error
    state.var += 0.01 * (error * error - state.var)
    return abs(error) / (state.var + 1e-9) ** 0.5
'''


def many_aggregates(n: int) -> str:
    """A handler file of one filter and n aggregates on it, all of one field and one window."""
    head, _, _ = CLIMATE.partition("@aggregate")
    one = """\
@aggregate(plausible, tumbling("1s"), to="local")
def second_{i}(temperature) -> Second:
    return Second(temperature.mean() + {i}.0, temperature.max())


"""
    return head + "".join(one.format(i=i) for i in range(n))


def mark(number: int) -> bytes:
    """Two frames, of which the one that changes the mark's state brings an alert with this number."""
    return b"".join(publish("mark/end", b'{"n":%d,"value":%d}' % (number, value)) for value in (0, 1))


def json_frames(
    topic: str, n: int, qos: int, *, keys: int = KEYS, start: int = 0, step: int = 10 * US
) -> Iterator[bytes]:
    """Readings of about 80 bytes from so many rooms, `step` ns apart by their own clock, which begins at `start` or now."""
    start = start or time.time_ns()
    for i in range(n):
        payload = b'{"ts":%d,"temperature":%d.%02d,"humidity":%d.5,"battery":%d}' % (
            start + i * step,
            18 + i % 9,
            i % 100,
            40 + i % 20,
            80 + i % 10,
        )
        yield publish(topic.format(f"room{i % keys:02d}"), payload, i % 65535 + 1 if qos else 0)


def sized_payload(size: int, i: int = 0) -> bytes:
    """`size` bytes of JSON: a temperature, and what no handler asks for: a spectrum, as devices send with large messages."""
    head = b'{"temperature":%d.%d' % (18 + i % 9, i % 10)
    left = size - len(head) - 1
    if left < 15:
        return head + b" " * left + b"}"
    count, rest = divmod(left - len(b',"spectrum":[0]'), len(b"-0.125,"))
    return head + b',"spectrum":[' + b"-0.125," * count + b"0" + b" " * rest + b"]}"


def sized_frames(topic: str, n: int, size: int) -> Iterator[bytes]:
    """Readings of `size` bytes from KEYS rooms, without a time of their own: it would not fit into 20 bytes."""
    payloads = [sized_payload(size, i) for i in range(90)]
    for i in range(n):
        yield publish(topic.format(f"room{i % KEYS:02d}"), payloads[i % len(payloads)])


def batch_span(n: int) -> int:
    """Nanoseconds of sensor time for n batch events, in whole seconds: a window that closed in silence is not opened again."""
    span = (n // KEYS + 1) * SAMPLES * 100 * US
    return (span // SECOND + 1) * SECOND


def batch_frames(topic: str, n: int, start: int) -> Iterator[bytes]:
    """Batch events of 1,000 float32 samples at 10 kHz, from `start` (ns) on, each key without a gap."""
    random = np.random.default_rng(1)
    arrays = [random.normal(0, 1, SAMPLES).astype(np.float32) for _ in range(KEYS)]
    span = SAMPLES * 100 * US
    for i in range(n):
        payload = events.encode(
            {"ts": start + i // KEYS * span, "dt": 100 * US, "vibration": arrays[(i * 7 + i // KEYS) % KEYS]}
        )
        yield publish(topic.format(f"motor{i % KEYS:02d}"), payload)
