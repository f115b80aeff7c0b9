"""Topics to small numbers, for a whole batch at a time: a hash table that a kernel looks up."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.engine import types
from edgefn.engine.frames import TOPIC, TOPIC_LENGTH
from edgefn.engine.jit import compiled

UNKNOWN = -1
FREE = -1

_bytes, _ints, _hashes = types.uint8[::1], types.int64[::1], types.uint64[::1]


@compiled(
    types.void(_bytes, types.int64[:, ::1], types.uint64, types.int32[::1], _hashes, _ints, _bytes, types.int32[::1])
)
def _look_up(data: Any, rows: Any, seed: Any, slots: Any, hashes: Any, starts: Any, text: Any, out: Any) -> None:
    """The number of each message's topic, or UNKNOWN. FNV-1a, 64 bit, from a seed that nobody knows."""
    mask = np.uint64(slots.size - 1)
    for i in range(rows.shape[0]):
        at, length = rows[i, TOPIC], rows[i, TOPIC_LENGTH]
        digest = seed
        for k in range(at, at + length):
            digest = (digest ^ np.uint64(data[k])) * np.uint64(1099511628211)
        digest ^= digest >> np.uint64(32)
        slot = digest & mask
        found = np.int32(UNKNOWN)
        while slots[slot] != FREE:
            number = slots[slot]
            if hashes[number] == digest and starts[number + 1] - starts[number] == length:
                same = True
                for k in range(length):
                    if text[starts[number] + k] != data[at + k]:
                        same = False
                        break
                if same:
                    found = number
                    break
            slot = (slot + np.uint64(1)) & mask
        out[i] = found


class TopicNumbers:
    """Gives out 0, 1, 2 … Nothing is ever taken out: who bounds the topics begins a new one."""

    def __init__(self) -> None:
        # A device that could make its topics collide would stop the engine.
        self._seed = secrets.randbits(64)
        self._n = 0
        self._slots = np.full(256, FREE, np.int32)
        self._hashes = np.zeros(128, np.uint64)
        self._starts = np.zeros(129, np.int64)
        self._text = np.zeros(4096, np.uint8)

    def __len__(self) -> int:
        return self._n

    @property
    def size(self) -> int:
        """Bytes of all topics together."""
        return int(self._starts[self._n])

    def look_up(self, data: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The number of the topic of each message (`frames.scan`) in `data`; UNKNOWN where it has none."""
        out = np.empty(len(rows), np.int32)
        _look_up(data, rows, self._seed, self._slots, self._hashes, self._starts, self._text, out)
        return out

    def add(self, topic: bytes) -> int:
        """The number of a topic that has none."""
        number, end = self._n, int(self._starts[self._n]) + len(topic)
        if number == self._hashes.size:
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._starts = np.concatenate([self._starts, np.zeros(number, np.int64)])
        if end > self._text.size:
            self._text = np.concatenate([self._text, np.zeros(max(end, self._text.size), np.uint8)])
        self._text[end - len(topic) : end] = np.frombuffer(topic, np.uint8)
        self._starts[number + 1] = end
        self._hashes[number] = self._hash(topic)
        self._n += 1
        if 2 * self._n > self._slots.size:
            self._slots = np.full(2 * self._slots.size, FREE, np.int32)
            for each in range(self._n):
                self._place(each)
        else:
            self._place(number)
        return number

    def _hash(self, topic: bytes) -> int:
        digest = self._seed
        for byte in topic:
            digest = (digest ^ byte) * 1099511628211 % 2**64
        return digest ^ digest >> 32

    def _place(self, number: int) -> None:
        mask = self._slots.size - 1
        slot = int(self._hashes[number]) & mask
        while self._slots[slot] != FREE:
            slot = (slot + 1) & mask
        self._slots[slot] = number
