"""The kernels as the engine compiles them: the same options, the same layout of memory, once per test session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from edgefn.engine.compiled import OPTIONS, initial_state, register_kernels, state_dtype

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

register_kernels()


@cache
def _loop(call: Callable[[Any, float, int], float]) -> Any:
    each = numba.njit(**OPTIONS)(call)

    @numba.njit(**OPTIONS)  # type: ignore[untyped-decorator,unused-ignore]
    def loop(rows: Any, xs: Floats, ts: Times, answers: Floats) -> None:
        for i in range(xs.size):
            answers[i] = each(rows[0], xs[i], ts[i])

    return loop


@cache
def array(call: Callable[[Floats], float]) -> Callable[[Floats], float]:
    compiled: Callable[[Floats], float] = numba.njit(**OPTIONS)(call)
    return compiled


def stream(memory: type, call: Callable[[Any, float, int], float], xs: Floats, ts: Times) -> Floats:
    rows = initial_state(memory, state_dtype(memory))
    answers = np.zeros(xs.size)
    _loop(call)(rows, xs, ts, answers)
    return answers


def plain(memory: type, call: Callable[[Any, float, int], float], xs: Floats, ts: Times) -> Floats:
    state = memory()
    return np.array([call(state, float(x), int(t)) for x, t in zip(xs, ts, strict=True)], dtype=float)
