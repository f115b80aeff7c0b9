"""From the patterns of all handlers to filters of which no topic matches two.

A broker may send a message once for every subscription that it matches (MQTT 5, 3.3.4), and mosquitto 2.0.11 does so in
MQTT 5: counted twice in every window. Two filters that share a topic are therefore asked for as one that covers both;
what it brings beyond them finds no handler.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import zip_longest

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
