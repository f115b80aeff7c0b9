"""The JSON decoder: from the payloads of a batch to rows of a table, for objects of plain numbers.

It takes a payload only where it is certain to say what the general decoder (`decode.py`) says, to the last bit; at anything
else (an escape in a string, an array, 20 digits, a duplicate, whatever is not valid) it stops, and that payload goes the
general way. So it reports no errors of its own: who is wrong, and how, is said in one place.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from edgefn.engine.frames import PAYLOAD, PAYLOAD_LENGTH
from edgefn.engine.jit import compiled

# How a decoding ends, in `status`: where in `picked` it stopped, and rows written.
STOPPED, WRITTEN = range(2)

MAX_KEYS = 256  # as events.MAX_FIELDS
MAX_DEPTH = 60  # bits of a stack
UNCERTAIN = -1

# What a number is, in `number[KIND]`; integers are exact in MANTISSA, the others are in `value[0]`.
KIND, MANTISSA, NEGATIVE = range(3)
INTEGER, REAL = 1, 2

# How `ts` is written, as in edgefn.timestamps; ISO 8601 and what cannot be told go the general way.
UNITS = ("auto", "s", "ms", "us", "ns")
ARRIVAL = -1
NS_MAX = 2**63 - 1

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
_FACTORS = np.array([10**9, 10**6, 10**3, 1], np.int64)
_LOWS = np.array([10**9, 10**12, 10**15, 10**18], np.int64)  # as timestamps._UNITS
_HIGHS = np.array([10**10, 10**13, 10**16, NS_MAX], np.int64)

_bytes = types.uint8[::1]
_ints = types.int64[::1]
_floats = types.float64[::1]
# A call with arrays as arguments costs more than most of these do.
_helper = numba.njit(cache=True, error_model="numpy", nogil=True, forceinline=True)


@_helper
def _skip_space(data: Any, at: int, end: int) -> int:
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@_helper
def _skip_string(data: Any, at: int, end: int) -> int:
    """After the quote that ends the string which begins at `at`, behind its opening quote. UTF-8: RFC 3629, 4."""
    while at < end:
        byte = data[at]
        if byte == 34:
            return at + 1
        if byte < 32 or byte == 92:
            return UNCERTAIN
        at += 1
        if byte < 128:
            continue
        low, high = 128, 191
        if 194 <= byte <= 223:
            more = 1
        elif 224 <= byte <= 239:
            more = 2
            if byte == 224:
                low = 160
            elif byte == 237:
                high = 159
        elif 240 <= byte <= 244:
            more = 3
            if byte == 240:
                low = 144
            elif byte == 244:
                high = 143
        else:
            return UNCERTAIN
        if at + more > end:
            return UNCERTAIN
        for _ in range(more):
            if data[at] < low or data[at] > high:
                return UNCERTAIN
            low, high = 128, 191
            at += 1
    return UNCERTAIN


@_helper
def _product(a: Any, b: Any) -> Any:
    """The 128 bits of a * b: high, low."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    low = (a & mask) * (b & mask)
    cross = (a >> half) * (b & mask) + (low >> half)
    other = (a & mask) * (b >> half) + (cross & mask)
    return (a >> half) * (b >> half) + (cross >> half) + (other >> half), (other << half) | (low & mask)


@compiled(types.boolean(types.uint64, types.int64, _floats))
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


@_helper
def _number(data: Any, at: int, end: int, number: Any, value: Any) -> int:
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
        if mantissa > np.uint64(NS_MAX):
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


@_helper
def _literal(data: Any, at: int, end: int) -> int:
    """After true, false or null."""
    if at + 4 <= end and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101 and data[at] == 116:
        return at + 4
    if at + 4 <= end and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108 and data[at] == 110:
        return at + 4
    if (
        at + 5 <= end
        and data[at] == 102
        and data[at + 1] == 97
        and data[at + 2] == 108
        and data[at + 3] == 115
        and data[at + 4] == 101
    ):
        return at + 5
    return UNCERTAIN


@_helper
def _skip_key(data: Any, at: int, end: int) -> int:
    """After the key at `at` and its colon, at the value."""
    if at >= end or data[at] != 34:
        return UNCERTAIN
    at = _skip_string(data, at + 1, end)
    if at == UNCERTAIN:
        return UNCERTAIN
    at = _skip_space(data, at, end)
    if at >= end or data[at] != 58:
        return UNCERTAIN
    return _skip_space(data, at + 1, end)


@compiled(types.int64(_bytes, types.int64, types.int64, _ints, _floats))
def _skip_value(data: Any, at: int, end: int, number: Any, value: Any) -> int:
    """After the value at `at`, which nobody wants but which has to be valid."""
    depth, objects = 0, np.uint64(0)  # bit d: level d is an object
    one = np.uint64(1)
    while True:
        if at >= end:
            return UNCERTAIN
        byte = data[at]
        opened = byte == 123 or byte == 91
        if opened:
            if depth == MAX_DEPTH:
                return UNCERTAIN
            bit = one << np.uint64(depth)
            objects = objects | bit if byte == 123 else objects & ~bit
            depth += 1
            at = _skip_space(data, at + 1, end)
            if at >= end:
                return UNCERTAIN
            if data[at] != byte + 2:  # not closed at once: its first member
                if byte == 91:
                    continue
                at = _skip_key(data, at, end)
                if at == UNCERTAIN:
                    return UNCERTAIN
                continue
        elif byte == 34:
            at = _skip_string(data, at + 1, end)
        elif byte == 45 or 48 <= byte <= 57:
            at = _number(data, at, end, number, value)
        else:
            at = _literal(data, at, end)
        if at == UNCERTAIN:
            return UNCERTAIN
        # A value has ended, or stands closed at `at`; so may those around it.
        while depth:
            if not opened:
                at = _skip_space(data, at, end)
            opened = False
            if at >= end:
                return UNCERTAIN
            in_object = objects >> np.uint64(depth - 1) & one
            if data[at] == 44:
                at = _skip_space(data, at + 1, end)
                if in_object:
                    at = _skip_key(data, at, end)
                    if at == UNCERTAIN:
                        return UNCERTAIN
                break
            if data[at] != (125 if in_object else 93):
                return UNCERTAIN
            at += 1
            depth -= 1
        else:
            return at


@_helper
def _nanoseconds(unit: int, number: Any, value: float) -> Any:
    """`timestamps.to_ns`, or UNCERTAIN."""
    if number[NEGATIVE]:
        return UNCERTAIN
    whole = number[MANTISSA] if number[KIND] == INTEGER else np.int64(np.floor(value)) if value < 9e18 else np.int64(-1)
    if whole < 0:
        return UNCERTAIN
    which = unit - 1
    if unit == 0:
        which = 4
        for i in range(4):
            if _LOWS[i] <= whole < _HIGHS[i]:
                which = i
        if which == 4:
            return UNCERTAIN
    factor = _FACTORS[which]
    if whole >= NS_MAX // factor - 1:
        return UNCERTAIN
    ns = whole * factor
    if number[KIND] == REAL:
        ns += np.int64(np.rint((value - float(whole)) * float(factor)))
    return ns


@_helper
def _find(data: Any, at: int, length: int, names: Any, name_at: Any, hint: int) -> int:
    """Which of the names the bytes at `at` are: `hint` is tried first. The last name is `ts`; -1: none."""
    n = name_at.size - 1
    for step in range(n):
        i = hint + step
        if i >= n:
            i -= n
        start = name_at[i]
        if name_at[i + 1] - start != length:
            continue
        same = True
        for k in range(length):
            if names[start + k] != data[at + k]:
                same = False
                break
        if same:
            return i
    return -1


@compiled(
    types.void(
        _bytes, types.int64[:, ::1], _ints, types.int64, _ints, _bytes, _ints, types.int64, types.int64, types.int64,
        _ints, types.int32[::1], _ints, types.float64[:, ::1], _bytes, types.int64, _ints,
    )
)  # fmt: skip
def decode(
    data: Any, rows: Any, picked: Any, start: int, key: Any, names: Any, name_at: Any, unit: int, arrival: int, latest: int,
    ts: Any, keys: Any, present: Any, columns: Any, by_gateway: Any, row: int, status: Any,
) -> None:  # fmt: skip
    """Writes the payloads of messages picked[start:] into a table from `row` on, up to the first uncertain one.

    rows: what `frames.scan` wrote; key: the key of each of `picked`; names: the columns' names in a row and `ts` behind them,
    from name_at[i] to name_at[i + 1]; unit: index in UNITS, or ARRIVAL; latest: the newest time that is believed;
    by_gateway: written 1 for each of `picked` that gets its time of arrival. The table has room for all of picked[start:].
    """
    number, value = np.zeros(3, np.int64), np.zeros(1)
    n_columns = name_at.size - 2
    first_row = row
    i: Any = start
    while i < picked.size:
        at = rows[picked[i], PAYLOAD]
        end = at + rows[picked[i], PAYLOAD_LENGTH]
        at = _skip_space(data, at, end)
        if at >= end:
            break
        has, seen, when = np.int64(0), np.int64(0), arrival
        timed = False
        certain = False
        if data[at] == 45 or 48 <= data[at] <= 57:  # a bare number
            at = _number(data, at, end, number, value)
            if at != UNCERTAIN and _skip_space(data, at, end) == end:
                certain = True
                for c in range(n_columns):
                    if name_at[c + 1] - name_at[c] == 5:
                        s = name_at[c]
                        if (
                            names[s] == 118
                            and names[s + 1] == 97
                            and names[s + 2] == 108
                            and names[s + 3] == 117
                            and names[s + 4] == 101
                        ):
                            columns[c, row] = value[0]
                            has |= np.int64(1) << c
        elif data[at] == 123:
            at = _skip_space(data, at + 1, end)
            if at < end and data[at] == 125:
                certain = _skip_space(data, at + 1, end) == end
            else:
                hint, n_keys = 0, 0
                while at < end:
                    name = at + 1
                    if data[at] != 34:
                        break
                    at = _skip_string(data, name, end)
                    n_keys += 1
                    if at == UNCERTAIN or n_keys > MAX_KEYS:
                        break
                    which = _find(data, name, at - 1 - name, names, name_at, hint)
                    at = _skip_space(data, at, end)
                    if at >= end or data[at] != 58:
                        break
                    at = _skip_space(data, at + 1, end)
                    if at >= end:
                        break
                    byte = data[at]
                    if which >= 0:
                        hint = which + 1 if which < n_columns else 0
                        if seen >> which & 1:  # the last one counts
                            break
                        seen |= np.int64(1) << which
                    if byte == 45 or 48 <= byte <= 57:
                        at = _number(data, at, end, number, value)
                        if at == UNCERTAIN:
                            break
                        if 0 <= which < n_columns:
                            columns[which, row] = value[0]
                            has |= np.int64(1) << which
                        elif which == n_columns and unit != ARRIVAL:
                            when = _nanoseconds(unit, number, value[0])
                            if when == UNCERTAIN or when > latest:
                                break
                            timed = True
                    elif byte == 34 and which < 0:
                        at = _skip_string(data, at + 1, end)
                    elif (byte == 123 or byte == 91) and which < 0:
                        at = _skip_value(data, at, end, number, value)
                    else:
                        at = _literal(data, at, end)
                        if at != UNCERTAIN and byte != 110 and which >= 0:
                            if which == n_columns:
                                break
                            columns[which, row] = 1.0 if byte == 116 else 0.0
                            has |= np.int64(1) << which
                    if at == UNCERTAIN:
                        break
                    at = _skip_space(data, at, end)
                    if at >= end:
                        break
                    if data[at] == 125:
                        certain = _skip_space(data, at + 1, end) == end
                        break
                    if data[at] != 44:
                        break
                    at = _skip_space(data, at + 1, end)
        if not certain:
            break
        ts[row] = when
        keys[row] = key[i]
        present[row] = has
        by_gateway[i] = not timed
        row += 1
        i += 1
    status[STOPPED] = i
    status[WRITTEN] = row - first_row
