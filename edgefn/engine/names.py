"""From the columns of a table to the names that the kernels look for, object by object on the way to each column."""

from __future__ import annotations

import numpy as np

from edgefn.fields import LATEST, MAX_LEVELS

TIMES = ("ts", "dt")  # what an event says of its time
MOST = 64  # meanings of names: whether one has been seen is one bit each

AT, MEANS, SCOPE = range(3)  # what `Names.where` says

# What a kernel finds in an object or a map, in `found`. Bits are columns. LENGTH: of the arrays, -1 where there is none; STEP:
# nanoseconds between two samples, -1 where they are not such; STAMPED: there is a `ts`; TIMED: it is a time; NEEDED: rows that
# the table is short of; SEEN: bits are meanings of names.
HAS, LISTS, DOUBTFUL, LENGTH, WHEN, TIMED, STAMPED, STEP, NEEDED, SEEN = range(10)
FOUND = 10
# Behind that is scratch, for each level: the scope around it, and how many members that has left; and what each level of a value
# that nobody wants has left.
OUTER = FOUND
OUTER_LEFT = OUTER + MAX_LEVELS
LEFT = OUTER_LEFT + MAX_LEVELS
MAX_NESTED = 32
ROOM_FOUND = LEFT + MAX_NESTED + 1


class Names:
    """The names of the payload itself, scope 0, and of each object that leads to a column, in two arrays.

    text: all names in a row. where[AT]: at which byte each begins, and the end. where[SCOPE]: the number of each scope's first
    name, and the end. where[MEANS]: what each name stands for, the number of a column; behind the columns come `ts` and `dt`, and
    behind these scope 1, scope 2 …. In scope 0 that is the number of the name itself.
    """

    def __init__(self, columns: list[str]) -> None:
        objects = len(columns) + len(TIMES)
        # A name of the payload that is a whole path is the column, as any other.
        scopes = [{name: number for number, name in enumerate((*columns, *TIMES))}]
        paths = {tuple(one.split(".")): number for number, one in enumerate(columns) if not one.startswith(LATEST)}
        # Where a column stands, an object is no way to another one: decode.py complains about it.
        ways = [path for path in paths if not any(path[:n] in paths for n in range(1, len(path)))]
        longest = max(map(len, ways), default=0)
        parts = dict.fromkeys(path[:n] for n in range(1, longest) for path in ways if len(path) > n)
        scope = {(): 0} | {part: number for number, part in enumerate(parts, start=1)}
        scopes += [{} for _ in parts]
        for part in parts:
            scopes[scope[part[:-1]]][part[-1]] = objects + scope[part] - 1
        for path in ways:
            scopes[scope[path[:-1]]][path[-1]] = paths[path]
        # No payload has the value of another topic: a byte that stands in no UTF-8.
        names = [b"\xff" if name.startswith(LATEST) else name.encode() for one in scopes for name in one]
        self.text = np.frombuffer(b"".join(names), np.uint8).copy()
        self.where = np.zeros((3, len(names) + 1), np.int64)
        self.where[AT, 1:] = np.cumsum([*map(len, names)])
        self.where[SCOPE, 1 : len(scopes) + 1] = np.cumsum([*map(len, scopes)])
        self.where[MEANS, :-1] = [number for one in scopes for number in one.values()]
        # A time that is a column, or leads to one, is left to the general decoder, and so are more objects than there are bits.
        self.fit = not any(path[0] in TIMES for path in paths) and objects + len(parts) <= MOST
