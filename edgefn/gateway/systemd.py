"""What systemd wants to hear from its services: ready, stopping, still alive. Does nothing without systemd."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(text: str) -> None:
    """Sends to $NOTIFY_SOCKET; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(text.encode(), address)


async def ping_watchdog() -> None:
    """Tells systemd that the event loop turns, twice in each of its watchdog's intervals."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)
