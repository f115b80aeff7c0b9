"""QoS 1 messages between their arrival and the proof that the broker has our acknowledgement.

A message is processed, then covered by a commit, then acknowledged in order, and it leaves the list when a PINGRESP to a
PINGREQ sent after its acknowledgement proves that the broker had read both. The list is part of every checkpoint: what
comes again after a crash and stands on it has been processed, and is acknowledged and not processed a second time.

Packet ids begin again when a broker restarts, so an acknowledgement never crosses to another connection: after a
reconnect a message is acknowledged only once it has come again. Redelivered messages (DUP) are matched in order, by
packet id and hash of topic and payload; a message without DUP never matches (MQTT 3.1.1, 4.4 and 4.6).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt


class Deliveries:
    """The ordered list of processed messages that the broker may still send again."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._hashes: list[int] = []
        self._commits: list[int] = []  # the commit that holds a message's effects; never decreasing
        self._acked = 0  # so many of the list are acknowledged on this connection
        self._barriers: list[int] = []  # how many were acknowledged when each PINGREQ was sent
        self._before: list[tuple[int, int, int]] = []  # of the connection before, not come again yet
        self.uncertain = 0  # processed messages of a session that the broker has lost
        self.epoch = os.urandom(6).hex()  # names the session
        self.position = (
            0  # of the message processed last: what the broker sends again in order, has the same place again
        )

    def __len__(self) -> int:
        return len(self._ids) + len(self._before)

    @property
    def unacknowledged(self) -> int:
        return len(self._ids) - self._acked

    def processed(self, ids: list[int], hashes: list[int], commit: int, *, new: bool = True) -> None:
        """Notes messages; `commit` is the number of the next commit, which will hold their effects.

        new=False: they came with DUP, though they are not on the list.
        """
        if new and ids:
            self._before.clear()  # the broker sends again all that it will before it sends anything new
        self.position += len(ids)
        self._ids += ids
        self._hashes += hashes
        self._commits += [commit] * len(ids)

    def came_again(self, packet_id: int, digest: int) -> bool:
        """Whether a message with DUP was processed before. It is then acknowledged with the others, and not processed."""
        for index, (known_id, known_digest, commit) in enumerate(self._before):
            if known_id == packet_id and known_digest == digest:
                # Those before it were acknowledged, or they would have come again first.
                del self._before[: index + 1]
                self._ids.append(packet_id)
                self._hashes.append(digest)
                # A stale broker may bring what is not on the list in front of what is.
                self._commits.append(max(commit, self._commits[-1] if self._commits else 0))
                return True
        return False

    def thrown_away(self, packet_id: int, *, dup: bool) -> None:
        """A message that has no effect: it is acknowledged in its turn, with the one before it."""
        if not (dup and self.came_again(packet_id, 0)):
            self.processed([packet_id], [0], self._commits[-1] if self._commits else 0, new=not dup)

    def acknowledge(self, committed: int) -> npt.NDArray[np.int64]:
        """Packet ids to acknowledge now, in order: those whose effects are in a commit up to this one."""
        end = bisect_right(self._commits, committed, lo=self._acked)
        ids = np.array(self._ids[self._acked : end], dtype=np.int64)
        self._acked = end
        return ids

    def barrier(self) -> bool:
        """Whether a PINGREQ would prove anything now; where it would, the caller sends one."""
        if self._acked == (self._barriers[-1] if self._barriers else 0):
            return False
        self.pinged()
        return True

    def pinged(self) -> None:
        """A PINGREQ is sent. Each has its PINGRESP, also one that only keeps the connection alive."""
        self._barriers.append(self._acked)

    def proved(self) -> None:
        """A PINGRESP came: what was acknowledged before its PINGREQ cannot come again."""
        if not self._barriers:
            return
        n = self._barriers.pop(0)
        del self._ids[:n], self._hashes[:n], self._commits[:n]
        self._acked -= n
        self._barriers = [barrier - n for barrier in self._barriers]

    def connected(self, session_present: bool) -> None:
        """A new connection: what is on the list may come again; without a session nothing can."""
        entries = self._entries()
        if not session_present:
            self.uncertain += len(entries)
            entries = []
            self.epoch, self.position = os.urandom(6).hex(), 0
        self._before = entries
        self._ids, self._hashes, self._commits = [], [], []
        self._acked = 0
        self._barriers.clear()

    def _entries(self) -> list[tuple[int, int, int]]:
        """In the broker's order: what has not come again yet is younger than what has."""
        return [*zip(self._ids, self._hashes, self._commits, strict=True), *self._before]

    def checkpoint(self) -> dict[str, Any]:
        entries = self._entries()
        return {
            "ids": np.array([packet_id for packet_id, _, _ in entries], dtype=np.uint16),
            "hashes": np.array([digest for _, digest, _ in entries], dtype=np.int64),
            "epoch": self.epoch,
            "position": self.position,
        }

    def restore(self, part: dict[str, Any]) -> None:
        """Takes up a checkpoint: all that it lists is committed."""
        self.epoch, self.position = part.get("epoch", self.epoch), part.get("position", 0)
        self._before = [
            (int(packet_id), int(digest), 0) for packet_id, digest in zip(part["ids"], part["hashes"], strict=True)
        ]
