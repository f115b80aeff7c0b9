"""The engine's limit of memory: what handlers may allocate, whatever is loaded besides."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from edgefn.engine import memory
memory.limit(64)
kept = None
if {loaded}:
    with memory.uncounted():
        kept = bytearray({loaded} << 20)
try:
    bytearray({wanted} << 20)
    print("fits")
except MemoryError:
    print("does not fit")
"""


@pytest.mark.parametrize(
    ("loaded", "wanted", "told"),
    [(0, 32, "fits"), (0, 96, "does not fit"), (128, 32, "fits"), (128, 96, "does not fit")],
)
def test_what_is_loaded_is_not_taken_from_the_handlers(loaded: int, wanted: int, told: str) -> None:
    program = PROGRAM.format(loaded=loaded, wanted=wanted)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == told
