"""Types that are written down without numba are those of numba."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numba import types as theirs

from edgefn.engine import types as ours

RECORD = np.dtype([("a", "i8"), ("b", "f4", (3,))], align=True)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (ours.uint8[::1], theirs.uint8[::1]),
        (ours.float64[:, ::1], theirs.float64[:, ::1]),
        (ours.float64[:, :, ::1], theirs.float64[:, :, ::1]),
        (ours.records(RECORD), theirs.Array(numba.from_dtype(RECORD), 1, "C")),
        (ours.records(RECORD, 2), theirs.Array(numba.from_dtype(RECORD), 2, "C")),
        (ours.Tuple((ours.int64, ours.boolean[::1])), theirs.Tuple((theirs.int64, theirs.boolean[::1]))),
        (ours.void(ours.int64, ours.int32[::1]), theirs.void(theirs.int64, theirs.int32[::1])),
        (ours.Tuple((ours.int64, ours.boolean))(), theirs.Tuple((theirs.int64, theirs.boolean))()),
    ],
)
def test_is_the_one_of_numba(written: ours.Type | ours.Signature, meant: object) -> None:
    assert written.in_numba() == meant
