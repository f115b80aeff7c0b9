"""What generated handler modules are compiled with: options, signatures, and the layout of state."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import edgefn.kernels
from edgefn import aot
from edgefn.engine import jit, types
from edgefn.engine.types import Array, Signature

# An index out of range is an exception and not a read of other memory. The author's function keeps its checks where it is
# called. The rows that the loop around it looks at are the engine's own: checking each of them cost four times what the
# loop does (14 ns a row of a filter, 28 of an anomaly; 2.4 and 6.6 without).
OPTIONS: dict[str, Any] = {**jit.OPTIONS, "boundscheck": True}

SKIPPED, RAISED, FIRST = 0, 1, 2  # what the counters of a kernel hold: events without a field, raised, where first

_i64 = types.int64
_I32S, _I64S, _F64S, _U8S = types.int32[::1], types.int64[::1], types.float64[::1], types.uint8[::1]
_COLUMNS = types.float64[:, ::1]
_NO_STATE = np.dtype([("none", "u1")])

# n, sel, ts, key, present, columns, field indices, needed fields
_ROWS = (_i64, _I32S, _I64S, _I32S, _I64S, _COLUMNS, _I64S, _i64)
# n, offset, length, key, window end, ts, columns
_SEGMENTS = (_i64, _I64S, _I64S, _I32S, _I64S, _I64S, _COLUMNS)


def _states(state: np.dtype[Any] | None) -> Array:
    return types.records(_NO_STATE if state is None else state)


def signature(kind: str, state: np.dtype[Any] | None) -> Signature:
    """The types of a handler's loop: inputs, then state (one row per key), then outputs and the three counters."""
    states = _states(state)
    if kind == "filter":
        return _i64(*_ROWS, states, _I32S, _I64S)
    if kind == "transform":
        return _i64(*_ROWS, states, _COLUMNS, _I32S, _I64S)
    if kind == "anomaly":
        return types.void(*_ROWS, states, _F64S, _I64S)
    if kind == "aggregate":
        return types.void(*_SEGMENTS, states, _COLUMNS, _U8S, _I64S)
    raise ValueError(f"no loop is made for a {kind}")


def library(file: str) -> ModuleType | None:
    """The machine code of a generated module, where that was compiled ahead of time."""
    if jit.exports is not None:  # it is being made
        return None
    return aot.load(Path(file).with_suffix(aot.SUFFIX))


def loop(kind: str, state: np.dtype[Any] | None, library: ModuleType | None) -> Callable[[Callable[..., Any]], Any]:
    """Takes a loop from its module's library, or compiles it at once, or takes it from numba's cache."""
    return jit.compiled(signature(kind, state), library)


def inline(function: Callable[..., Any], library: ModuleType | None) -> Any:
    """Makes the author's function callable from a loop; it is compiled with the loop that calls it."""
    if library is not None:
        return function
    import numba

    register_kernels()
    return numba.njit(**OPTIONS)(function)


def no_state(rows: int = 1) -> np.ndarray[Any, Any]:
    return np.zeros(rows, _NO_STATE)


def state_dtype(state: type) -> np.dtype[Any]:
    """The layout of one key's state, read off an instance of its dataclass with all defaults.

    float, int, bool, numpy arrays of numbers and other such dataclasses can be held. Raises TypeError naming the field
    for anything else.
    """
    try:
        sample = state()
    except TypeError as error:
        raise TypeError(f"state {state.__name__}: every field needs a default ({error})") from error
    return _layout(sample, state.__name__)


def _layout(sample: Any, path: str) -> np.dtype[Any]:
    layout: list[Any] = []
    for entry in fields(sample):
        value, where = getattr(sample, entry.name), f"{path}.{entry.name}"
        if isinstance(value, bool):
            layout.append((entry.name, np.bool_))
        elif isinstance(value, int) and entry.type in (int, "int"):
            layout.append((entry.name, np.int64))
        elif isinstance(value, (int, float)):
            layout.append((entry.name, np.float64))
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size:
            layout.append((entry.name, value.dtype, value.shape))
        elif is_dataclass(value):
            layout.append((entry.name, _layout(value, where)))
        else:
            raise TypeError(
                f"{where} holds a {type(value).__name__}; state holds float, int, bool, numpy arrays of fixed length "
                "and dataclasses of these"
            )
    if not layout:
        raise TypeError(f"{path} has no fields")
    return np.dtype(layout, align=True)


def initial_state(state: type, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """One row with the defaults of the dataclass: what a key begins with."""
    row = np.zeros(1, dtype)
    _fill(row[0], state())
    return row


def _fill(row: Any, value: Any) -> None:
    for entry in fields(value):
        part = getattr(value, entry.name)
        if is_dataclass(part):
            _fill(row[entry.name], part)
        else:
            row[entry.name] = part


@cache
def register_kernels() -> None:
    """Makes every function of edgefn.kernels callable from compiled code."""
    from numba.extending import register_jitable

    for module in pkgutil.iter_modules(edgefn.kernels.__path__, edgefn.kernels.__name__ + "."):
        namespace = import_module(module.name)
        for function in vars(namespace).values():
            if inspect.isfunction(function) and function.__module__ == module.name:
                register_jitable(**OPTIONS)(function)
