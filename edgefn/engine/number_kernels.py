"""The text of a number to the nearest double, where that is certain."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn.engine import types
from edgefn.engine.jit import compiled, inlined

UNCERTAIN = -1

# What a number is, in `number[KIND]`; integers are exact in MANTISSA, the value of each is in `value[0]`.
KIND, MANTISSA, NEGATIVE = range(3)
INTEGER, REAL = 1, 2

INT_MAX = 2**63 - 1

LEAST, MOST = -342, 308  # powers of ten that a double can need


def _powers() -> Any:
    """10^LEAST to 10^MOST: of each the first 128 bits, high and low."""
    made = []
    for exponent in range(LEAST, MOST + 1):
        power = 10 ** abs(exponent)
        if exponent < 0:
            power = (1 << (power.bit_length() + 127)) // power
        bits = power.bit_length() - 128
        power = power >> bits if bits >= 0 else power << -bits
        made.append((power >> 64, power & (2**64 - 1)))
    return np.array(made, np.uint64)


_POWERS = _powers()
_EXACT = 10.0 ** np.arange(23)


@inlined
def _product(a: Any, b: Any) -> Any:
    """The 128 bits of a * b: high, low."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    low = (a & mask) * (b & mask)
    cross = (a >> half) * (b & mask) + (low >> half)
    other = (a & mask) * (b >> half) + (cross & mask)
    return (a >> half) * (b >> half) + (cross >> half) + (other >> half), (other << half) | (low & mask)


@compiled(types.boolean(types.uint64, types.int64, types.float64[::1]))
def _nearest(mantissa: Any, exponent: int, value: Any) -> bool:
    """Writes the double nearest to mantissa * 10^exponent, or says that it is not certain which one that is.

    Eisel and Lemire (Lemire 2021, "Number parsing at a gigabyte per second"): the product with a power of ten cut off after
    128 bits; where the bits that are missing could change the rounding, it is uncertain. So are subnormal numbers and infinity.
    """
    if mantissa == np.uint64(0):
        value[0] = 0.0
        return True
    if mantissa <= np.uint64(1) << np.uint64(53) and -22 <= exponent <= 22:
        # One rounding of two exact doubles (Clinger 1990).
        value[0] = float(mantissa) * _EXACT[exponent] if exponent >= 0 else float(mantissa) / _EXACT[-exponent]
        return True
    if exponent < LEAST or exponent > MOST:
        return False
    one = np.uint64(1)
    shift = np.int64(0)
    while not mantissa >> np.uint64(63):
        mantissa <<= one
        shift += 1
    high, low = _product(mantissa, _POWERS[exponent - LEAST, 0])
    rest = np.uint64(0x1FF)
    if high & rest == rest and low + mantissa < mantissa:
        more, least = _product(mantissa, _POWERS[exponent - LEAST, 1])
        sum_ = low + more
        if sum_ < low:
            high += one
        low = sum_
        if high & rest == rest and low + one == np.uint64(0) and least + mantissa < mantissa:
            return False
    top = high >> np.uint64(63)
    made = high >> (top + np.uint64(9))
    power = (217706 * exponent >> 16) + 64 + 1023 - shift - np.int64(one ^ top)
    if low == np.uint64(0) and high & rest == np.uint64(0) and made & np.uint64(3) == one:
        return False
    made = (made + (made & one)) >> one
    if made >> np.uint64(53):
        made >>= one
        power += 1
    if power < 1 or power > 2046:
        return False
    value.view(np.uint64)[0] = np.uint64(power) << np.uint64(52) | (made & ((one << np.uint64(52)) - one))
    return True


@inlined
def read_number(data: Any, at: int, end: int, number: Any, value: Any) -> int:
    """Reads the number at `at`, which has at most 19 digits; returns where it ends."""
    negative = data[at] == 45
    if negative:
        at += 1
    if at >= end:
        return UNCERTAIN
    mantissa, digits, exponent = np.uint64(0), 0, 0
    if data[at] == 48:
        at += 1
    elif 49 <= data[at] <= 57:
        while at < end and 48 <= data[at] <= 57:
            digits += 1
            if digits > 19:
                return UNCERTAIN
            mantissa = mantissa * np.uint64(10) + np.uint64(data[at] - 48)
            at += 1
    else:
        return UNCERTAIN
    integer = True
    if at < end and data[at] == 46:
        integer = False
        at += 1
        first = at
        while at < end and 48 <= data[at] <= 57:
            if digits or data[at] != 48:
                digits += 1
                if digits > 19:
                    return UNCERTAIN
            mantissa = mantissa * np.uint64(10) + np.uint64(data[at] - 48)
            exponent -= 1
            at += 1
        if at == first:
            return UNCERTAIN
    if at < end and (data[at] == 101 or data[at] == 69):
        integer = False
        at += 1
        minus = False
        if at < end and (data[at] == 43 or data[at] == 45):
            minus = data[at] == 45
            at += 1
        first = at
        power: Any = 0
        while at < end and 48 <= data[at] <= 57:
            power = power * 10 + np.int64(data[at] - 48)
            if at - first > 2:
                return UNCERTAIN
            at += 1
        if at == first:
            return UNCERTAIN
        exponent += -power if minus else power
    number[NEGATIVE] = negative
    if integer:
        if mantissa > np.uint64(INT_MAX):
            return UNCERTAIN
        number[KIND] = INTEGER
        number[MANTISSA] = np.int64(mantissa)
        value[0] = -float(mantissa) if negative and mantissa else float(mantissa)
        return at
    while (
        exponent < 0 and mantissa and mantissa % np.uint64(10) == np.uint64(0)
    ):  # 21.5000000000000000, as printf writes it
        mantissa //= np.uint64(10)
        exponent += 1
    if not _nearest(mantissa, exponent, value):
        return UNCERTAIN
    number[KIND] = REAL
    if negative:
        value[0] = -value[0]
    return at
