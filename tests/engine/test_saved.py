"""What the engine saves comes back as it was, takes little room, and what older versions wrote is read as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefn import events
from edgefn.engine import saved
from edgefn.errors import PayloadError

COLUMNS = st.one_of(
    *(
        arrays.arrays(dtype, st.integers(0, 40))
        for dtype in (np.int32, np.int64, np.uint8, np.uint16, np.uint64, np.float32, np.float64)
    )
)
PLAIN = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20), st.binary(max_size=200), st.none())


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return bool(one == other)


class TestWhatIsSaved:
    @given(st.dictionaries(st.sampled_from("abcdef"), st.one_of(COLUMNS, PLAIN)))
    def test_comes_back_bit_for_bit(self, value: dict[str, Any]):
        back = saved.unpack(saved.pack(value))
        assert back.keys() == value.keys()
        assert all(same(value[name], back[name]) for name in value)

    @pytest.mark.parametrize("value", [{}, [], [("driver/1", 7, b"\x05")], {"door": 1.5}])
    def test_may_be_without_arrays(self, value: Any):
        assert saved.unpack(saved.pack(value)) == (value if isinstance(value, dict) else [list(one) for one in value])

    @given(st.dictionaries(st.sampled_from("abcdef"), st.one_of(COLUMNS, PLAIN)))
    def test_by_a_version_that_wrote_plain_msgpack_is_read(self, value: dict[str, Any]):
        back = saved.unpack(events.pack(value))
        assert all(same(value[name], back[name]) for name in value)

    def test_of_a_hundred_samples_takes_a_sixth_of_the_room(self):
        random = np.random.default_rng(1)
        times = 1_700_000_000_000_000_000 + np.cumsum(random.integers(9_000_000, 11_000_000, 100))
        numbers = np.full(100, 170_000_000)
        part = {
            "keys": np.arange(100, dtype=np.int32),
            "watermark": times,
            "done": numbers,
            "fired": numbers,
            "key": np.arange(100, dtype=np.int32),
            "times": times,
            "lows": numbers,
            "count": numbers - 160_000_000,
            "values": np.round(random.normal(20, 1, 100), 2),
        }
        assert len(saved.pack(part)) < len(events.pack(part)) / 6

    @pytest.mark.parametrize("n", [1, 10, -1])
    def test_and_cut_off_is_refused(self, n: int):
        data = saved.pack({"times": np.arange(1000)})
        with pytest.raises(PayloadError, match="bad_checkpoint"):
            saved.unpack(data[:n])

    def test_and_damaged_is_refused(self):
        data = bytearray(saved.pack({"times": np.arange(1000)}))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(PayloadError):
            saved.unpack(bytes(data))
