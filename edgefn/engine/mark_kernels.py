"""The marks of drivers' events (`src`, `seq`, `seq_floor`), read from many payloads before they are decoded."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefn import events
from edgefn.engine import types
from edgefn.engine.frames import PAYLOAD, PAYLOAD_LENGTH
from edgefn.engine.jit import compiled
from edgefn.engine.json_kernels import find, skip_key, skip_space, skip_string, skip_value
from edgefn.engine.number_kernels import INTEGER, KIND, MANTISSA, NEGATIVE, UNCERTAIN, read_number

# What is written about each payload. HAS: bits of SRC, SEQ and FLOOR, or UNCERTAIN where only the general decoder can tell.
HAS, SRC_AT, SRC_LENGTH, SEQ, FLOOR = range(5)
WORDS = 5

_NAMES = np.frombuffer(b"srcseqseq_floor", np.uint8).copy()
_WHERE = np.array([[0, 3, 6, 15]], np.int64)  # as in `Names`
_MAX_KEYS, _MAX_PAYLOAD = events.MAX_FIELDS, events.MAX_PAYLOAD


@compiled(types.void(types.uint8[::1], types.int64[:, ::1], types.int64[::1], types.int64[:, ::1]))
def read_marks(data: Any, rows: Any, picked: Any, out: Any) -> None:
    """Writes the marks of each of the messages `picked`; its payload is then a whole and valid JSON object."""
    number, value = np.zeros(3, np.int64), np.zeros(1)
    for i in range(picked.size):
        mark = out[i]
        mark[HAS], mark[FLOOR] = UNCERTAIN, 0
        at: Any = rows[picked[i], PAYLOAD]
        end = at + rows[picked[i], PAYLOAD_LENGTH]
        at = skip_space(data, at, end)
        if at >= end or data[at] != 123 or rows[picked[i], PAYLOAD_LENGTH] > _MAX_PAYLOAD:
            continue
        at = skip_space(data, at + 1, end)
        has, n_keys = np.int64(0), 0
        while at < end:
            name = at + 1
            at = skip_key(data, at, end)
            n_keys += 1
            if at == UNCERTAIN or at >= end or n_keys > _MAX_KEYS:
                break
            stop = name
            while data[stop] != 34:
                stop += 1
            which = find(data, name, stop - name, _NAMES, _WHERE, 0, _WHERE.shape[1] - 1, 0)
            byte = data[at]
            if which >= 0:
                if has >> which & 1:  # the last one counts
                    break
                has |= np.int64(1) << which
            if which < 0:
                at = skip_value(data, at, end, number, value)
            elif which == 0:
                if byte != 34:
                    break
                start = at + 1
                at = skip_string(data, start, end)
                mark[SRC_AT], mark[SRC_LENGTH] = start, at - 1 - start
            else:
                if not 48 <= byte <= 57:
                    break
                at = read_number(data, at, end, number, value)
                if at == UNCERTAIN or number[KIND] != INTEGER or number[NEGATIVE]:
                    break
                mark[SEQ if which == 1 else FLOOR] = number[MANTISSA]
            if at == UNCERTAIN:
                break
            at = skip_space(data, at, end)
            if at >= end:
                break
            if data[at] == 125:
                if skip_space(data, at + 1, end) == end:
                    mark[HAS] = has
                break
            if data[at] != 44:
                break
            at = skip_space(data, at + 1, end)
