"""Single samples pass through here: the one rule of what every kernel counts as a sample."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

# Squares of anything larger overflow, and an infinite variance never comes down again.
LARGEST = 1e150


def is_sample(x: float) -> bool:
    """Whether x is a number to learn from: not NaN, not infinite, and at most 1e150 in size.

    A kernel that is given anything else answers NaN (a gate answers as it did before) and leaves its memory
    as it was.
    """
    return -LARGEST <= x <= LARGEST
