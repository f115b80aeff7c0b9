"""How the engine's loops become machine code: taken from a library that was made ahead of time, or compiled by numba now.

Nothing here imports numba before something has to be compiled: a process that finds all its loops in libraries does without.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from edgefn import aot
from edgefn.engine.types import Signature

Function = Callable[..., Any]

# Without bounds checks, which cost a third here: these loops are tested against plain references instead. They give up
# Python's lock, so that a long one does not stop the other threads. A division by zero is inf, as in numpy.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}

# Where somebody collects what is to be compiled ahead of time: the functions, and their types.
exports: list[tuple[Function, Signature]] | None = None


def _nobody() -> None: ...


# Who wants to hear of each function that is compiled.
told: Callable[[], None] = _nobody


def compiled(signature: Signature, library: ModuleType | None = None) -> Callable[[Function], Function]:
    """For one signature. `library`: of the function's module; the engine's own modules find theirs by themselves."""

    def decorate(function: Function) -> Function:
        found = library or aot.own(function.__module__)
        if found is not None:
            return getattr(found, aot.symbol(function.__name__))  # type: ignore[no-any-return]
        import numba

        if exports is not None:
            exports.append((function, signature))
            return numba.njit(**OPTIONS)(function)  # type: ignore[no-any-return]
        ready: Function = numba.njit(signature.in_numba(), cache=True, **OPTIONS)(function)
        told()
        return ready

    return decorate


def inlined(function: Function) -> Any:
    """Part of whatever calls it: a call with arrays as arguments costs more than most small functions do."""
    if aot.is_used():
        return function
    import numba

    return numba.njit(cache=True, forceinline=True, **OPTIONS)(function)


def intrinsic(function: Function) -> Any:
    """What writes the compiler's own instructions (numba.extending.intrinsic)."""
    if aot.is_used():
        return function
    from numba import extending

    return extending.intrinsic(function)
