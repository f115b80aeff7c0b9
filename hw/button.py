"""A push button or any other contact between a pin and ground: an event for each press and release."""

from __future__ import annotations

import asyncio

from gpiozero import Button

from edgefn.clock import Clock, SystemClock
from edgefn.drivers import Duration, Field, Reading, Readings, driver


@driver(fields={"pressed": Field()})
async def button(*, pin: int, pull_up: bool = True, bounce: Duration = 0.02, clock: Clock | None = None) -> Readings:
    """A push button on a GPIO pin (BCM number), with the state at the start as its first event.

    An edge is told at once, then `bounce` passes before the contact is looked at again: whatever it did in between was
    its bouncing, and where it ended up differently the change is told then.
    """
    clock = clock or SystemClock()
    loop = asyncio.get_running_loop()
    edge = asyncio.Event()
    at = clock.now()

    def on_edge() -> None:  # in a thread of gpiozero
        nonlocal at
        at = clock.now()
        loop.call_soon_threadsafe(edge.set)

    with Button(pin, pull_up=pull_up) as contact:
        contact.when_pressed = contact.when_released = on_edge
        told = contact.is_pressed
        yield Reading({"pressed": told}, ts=at)
        while True:
            await edge.wait()
            edge.clear()
            if contact.is_pressed != told:
                told = not told
                yield Reading({"pressed": told}, ts=at)
                await asyncio.sleep(bounce)
