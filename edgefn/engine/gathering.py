"""From what one read has brought to how long the engine waits before the next, so that each is worth its batch.

A read and the batch that follows cost some 500 µs however little they bring. An idle engine reads at once.
"""

from __future__ import annotations

BUSY = 4  # messages in one read that make the engine busy
GATHER = 0.002  # seconds that it waits then: not what anybody notices of an alert
MANY = 100  # messages in one read from which on it waits longer: 50,000 a second
MOST = 0.008  # seconds at most; what comes in them stays in the socket's buffer
PLENTY = 64 << 10  # bytes in one read that are worth the call, where the messages are large: more are waiting already
LARGE = 1 << 10  # bytes of such a message, on the average


def pause(messages: int, size: int) -> float:
    """Seconds to wait after a read of so many messages and bytes."""
    if messages < BUSY or size >= max(PLENTY, messages * LARGE):
        return 0.0
    return min(MOST, GATHER * max(1.0, messages / MANY))
