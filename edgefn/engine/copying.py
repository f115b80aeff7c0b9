"""Blocks of memory for compiled loops: whole runs of elements copied or filled at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn.engine.jit import inlined, intrinsic


def _copy(typing: Any, to: Any, at: Any, source: Any, start: Any, n: Any) -> Any:
    """copy(to, at, source, start, n): to[at:at + n] = source[start:start + n], of one-dimensional arrays of one type.

    A loop over the elements costs ten times as much: each index is checked for being negative, and nothing tells the
    compiler that the two arrays are not one. Here nothing is checked, and they must not overlap.
    """
    from numba import types
    from numba.core import cgutils

    if to.dtype != source.dtype or to.ndim != 1 or source.ndim != 1:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, at, source, start, n = arguments
        target = context.make_array(signature.args[0])(context, builder, to)
        origin = context.make_array(signature.args[2])(context, builder, source)
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        cgutils.raw_memcpy(  # type: ignore[no-untyped-call]
            builder, builder.gep(target.data, [at]), builder.gep(origin.data, [start]), n, size
        )
        return context.get_dummy_value()

    return types.void(to, types.intp, source, types.intp, types.intp), generate


copy: Any = intrinsic(_copy)


@inlined
def fill(to: Any, at: int, value: Any, n: int) -> None:
    """to[at:at + n] = value, of a one-dimensional array."""
    for i in range(np.uint64(at), np.uint64(at + n)):
        to[i] = value
