"""How long a busy engine waits for more."""

from __future__ import annotations

import pytest

from edgefn.engine.gathering import GATHER, MOST, PLENTY, pause


@pytest.mark.parametrize(
    ("messages", "size", "seconds"),
    [
        (0, 0, 0.0),
        (3, 300, 0.0),  # an idle engine reads at once
        (4, 400, GATHER),
        (100, 10_000, GATHER),
        (200, 20_000, 2 * GATHER),
        (590, 60_000, MOST),
        (590, PLENTY, MOST),  # else the next read would bring the few that came meanwhile
        (16, PLENTY, 0.0),  # batches of samples: more are waiting
        (1_000, 4_000_000, 0.0),
    ],
)
def test_it_waits_longer_where_more_comes(messages: int, size: int, seconds: float) -> None:
    assert pause(messages, size) == seconds


@pytest.mark.parametrize(("rate", "settles"), [(1_000, GATHER), (10_000, GATHER), (40_000, GATHER), (110_000, MOST)])
def test_where_it_settles(rate: int, settles: float) -> None:
    """Events a second that come without end, of 100 bytes, where a batch takes half a millisecond and 1 µs an event."""
    waited = 0.0
    for _ in range(50):
        messages = int(rate * (waited + 0.0005))
        waited = pause(messages, 0) or GATHER
    assert waited == settles
