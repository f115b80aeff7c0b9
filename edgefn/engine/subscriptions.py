"""What a session subscribes to, and what it asks its broker for: of the filters of all handlers no topic matches two.

A broker may send a message once for every subscription that it matches (MQTT 5, 3.3.4), and mosquitto 2.0.11 does so in
MQTT 5: counted twice in every window. Two filters that share a topic are therefore asked for as one that covers both;
what it brings beyond them finds no handler.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import zip_longest

from edgefn.engine import packets
from edgefn.topics import split_share

log = logging.getLogger(__name__)


def disjoint(filters: Iterable[str]) -> frozenset[str]:
    """The fewest changes to `filters` after which none overlaps another, and everything is still covered."""
    found: list[str] = []
    for one in sorted(filters):
        while other := next((other for other in found if overlap(one, other)), None):
            found.remove(other)
            one = join(one, other)
        found.append(one)
    return frozenset(found)


def overlap(one: str, other: str) -> bool:
    """Whether some topic matches both filters."""
    ours, theirs = split_share(one)[1].split("/"), split_share(other)[1].split("/")
    if ours[0] != theirs[0] and (ours[0][:1] == "$" or theirs[0][:1] == "$"):
        return False  # MQTT 3.1.1, 4.7.2: a wildcard at the start does not match $SYS and its like
    for mine, its in zip_longest(ours, theirs):
        if "#" in (mine, its):
            return True  # `a/#` matches `a` itself as well
        if mine != its and (None in (mine, its) or "+" not in (mine, its)):
            return False
    return True


def join(one: str, other: str) -> str:
    """The narrowest filter that covers both: sensors/+/climate and sensors/attic/+ make sensors/+/+.

    It is shared where both are, in one group. Otherwise it is not: a message that a shared filter and another one match
    would come by each of them, and nothing in it tells by which.
    """
    (group, one), (its_group, other) = split_share(one), split_share(other)
    levels = []
    for mine, its in zip_longest(one.split("/"), other.split("/")):
        if mine is None or its is None or "#" in (mine, its):
            levels.append("#")
            break
        levels.append(mine if mine == its else "+")
    joined = "/".join(levels)
    if group == its_group:
        return joined if group is None else f"$share/{group}/{joined}"
    log.warning(
        "%s and %s match the same topics: all of %s is asked for, and nothing of it is shared", one, other, joined
    )
    return joined


class Subscriptions:
    """What is wanted of a broker, what it has confirmed, and what it was asked and has not answered."""

    def __init__(self) -> None:
        self.wanted: frozenset[str] = frozenset()
        self.confirmed: frozenset[str] = frozenset()
        self.obsolete: frozenset[str] = frozenset()  # what the broker may still send though nobody wants it
        self._refused: frozenset[str] = frozenset()
        self._asked: dict[int, list[str]] = {}  # by packet id
        self._packet_id = 0

    def want(self, filters: frozenset[str]) -> None:
        self.obsolete = (self.obsolete | self.wanted) - filters
        self.wanted = filters
        self.confirmed &= filters

    def restore(self, filters: Iterable[str]) -> None:
        """Takes up those of the last commit, until `want` says which are still wanted."""
        self.obsolete = frozenset(filters) - self.wanted

    def checkpoint(self) -> list[str]:
        return sorted(self.wanted | self.obsolete)

    def connected(self, *, session_present: bool) -> None:
        if not session_present:
            self.obsolete = frozenset()
        # All of it again: a broker that came back with an older state has a session, and may not know the newest filters.
        # It costs nothing, since with retain handling 1 no retained message comes for a filter that is there.
        self.confirmed = self._refused = frozenset()

    def lost(self) -> None:
        """The connection has ended: whether the broker has read the questions is not known, so they are asked again."""
        self._asked.clear()

    def questions(self, *, v5: bool) -> bytes:
        """Asks for what is wanted and not confirmed, and to be rid of what is not wanted, until the broker has said yes."""
        asked = {one for filters in self._asked.values() for one in filters}
        data = b""
        for packet, filters in (
            (packets.unsubscribe, sorted(self.obsolete - asked)),
            (packets.subscribe, sorted(self.wanted - self.confirmed - self._refused - asked)),
        ):
            if filters:
                self._packet_id = self._packet_id % 65535 + 1
                self._asked[self._packet_id] = filters
                data += packet(self._packet_id, filters, v5=v5)
        return data

    def answered(self, kind: int, body: bytes, *, v5: bool) -> list[str] | None:
        """Takes up a SUBACK or an UNSUBACK; returns what is refused, None where it answers none of the questions."""
        filters = self._asked.pop(int.from_bytes(body[:2], "big"), None)
        if filters is None:
            return None
        if kind == packets.UNSUBACK:
            self.obsolete -= frozenset(filters)
            return []
        codes = packets.parse_suback(body, v5=v5)
        if len(codes) != len(filters):
            return None
        granted = {one for one, code in zip(filters, codes, strict=True) if code < 0x80}
        self.confirmed |= granted & self.wanted
        refused = sorted(set(filters) - granted)
        self._refused |= frozenset(refused)  # not asked for again on this connection
        return refused
