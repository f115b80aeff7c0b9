"""The types of compiled functions, written down without numba: who only runs machine code need not load a compiler.

int64[:, ::1]                a table, rows one after the other
void(int64, float64[::1])    a signature
records(KEY)                 an array of records
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


class Type:
    """Something that has a counterpart in numba. Called, it is a signature that returns it."""

    def in_numba(self) -> Any:
        raise NotImplementedError

    def __call__(self, *arguments: Type) -> Signature:
        return Signature(self, arguments)


@dataclass(frozen=True, slots=True)
class Scalar(Type):
    name: str

    def in_numba(self) -> Any:
        from numba import types

        return getattr(types, self.name)

    def __getitem__(self, axes: slice | tuple[slice, ...]) -> Array:
        """As numba spells it: [::1], [:, ::1] and so on, always in the order of C."""
        return Array(self, len(axes) if isinstance(axes, tuple) else 1)


@dataclass(frozen=True, slots=True)
class Record(Type):
    dtype: np.dtype[Any]

    def in_numba(self) -> Any:
        import numba

        return numba.from_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class Array(Type):
    element: Scalar | Record
    axes: int

    def in_numba(self) -> Any:
        from numba import types

        return types.Array(self.element.in_numba(), self.axes, "C")


@dataclass(frozen=True, slots=True)
class Tuple(Type):
    parts: tuple[Type, ...]

    def in_numba(self) -> Any:
        from numba import types

        return types.Tuple(  # type: ignore[no-untyped-call]
            tuple(part.in_numba() for part in self.parts)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    returns: Type
    arguments: tuple[Type, ...]

    def in_numba(self) -> Any:
        return self.returns.in_numba()(*(argument.in_numba() for argument in self.arguments))


def records(dtype: np.dtype[Any], axes: int = 1) -> Array:
    return Array(Record(dtype), axes)


void, boolean, intp = Scalar("void"), Scalar("boolean"), Scalar("intp")
uint8, uint32, uint64 = Scalar("uint8"), Scalar("uint32"), Scalar("uint64")
int32, int64, float64 = Scalar("int32"), Scalar("int64"), Scalar("float64")
