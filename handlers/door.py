"""Doors: how often each was opened in the last ten seconds."""

from edgefn import aggregate, filter, tumbling


@filter("edgefn/+/event/door")
def opened(open: bool):
    return open


@aggregate(opened, tumbling("10s"))
def openings(open) -> int:
    return open.size
