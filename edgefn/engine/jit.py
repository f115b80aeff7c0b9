"""How the engine's own loops are compiled: when they are imported, for one signature, and cached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Without bounds checks, which cost a third here: these loops are tested against plain references instead."""
    jit: Callable[[Callable[..., Any]], Any] = numba.njit(signature, cache=True, error_model="numpy", nogil=True)
    return jit


# Part of whatever calls it: a call with arrays as arguments costs more than most small functions do.
inlined: Callable[[Callable[..., Any]], Any] = numba.njit(cache=True, error_model="numpy", nogil=True, forceinline=True)
