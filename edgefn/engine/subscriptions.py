"""From the patterns of all handlers to filters of which no topic matches two.

A broker may send a message once for every subscription that it matches (MQTT 5, 3.3.4), and mosquitto 2.0.11 does so in
MQTT 5: counted twice in every window. Two filters that share a topic are therefore asked for as one that covers both;
what it brings beyond them finds no handler.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest


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
    ours, theirs = one.split("/"), other.split("/")
    if ours[0] != theirs[0] and (ours[0][:1] == "$" or theirs[0][:1] == "$"):
        return False  # MQTT 3.1.1, 4.7.2: a wildcard at the start does not match $SYS and its like
    for mine, its in zip_longest(ours, theirs):
        if "#" in (mine, its):
            return True  # `a/#` matches `a` itself as well
        if mine != its and (None in (mine, its) or "+" not in (mine, its)):
            return False
    return True


def join(one: str, other: str) -> str:
    """The narrowest filter that covers both: sensors/+/climate and sensors/attic/+ make sensors/+/+."""
    levels = []
    for mine, its in zip_longest(one.split("/"), other.split("/")):
        if mine is None or its is None or "#" in (mine, its):
            levels.append("#")
            break
        levels.append(mine if mine == its else "+")
    return "/".join(levels)
