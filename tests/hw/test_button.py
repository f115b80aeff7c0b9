import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from edgefn.drivers import Reading, load_driver
from tests.drivers.fakes import HandClock

BUTTON = load_driver("button").function


@pytest.fixture
def pin() -> Iterator[Any]:
    """The mock pin 17, with nothing pressed: high, by its pull-up."""
    before, Device.pin_factory = Device.pin_factory, MockFactory()
    yield Device.pin_factory.pin(17)
    Device.pin_factory.reset()
    Device.pin_factory = before


@pytest.fixture
async def readings(pin: Any) -> AsyncIterator[AsyncIterator[Reading]]:
    generator = BUTTON(pin=17, bounce=0.01, clock=HandClock())
    yield generator
    await generator.aclose()


async def pressed(readings: AsyncIterator[Reading]) -> object:
    async with asyncio.timeout(5):
        return (await anext(readings)).fields["pressed"]


async def test_the_state_at_the_start_comes_first(readings: AsyncIterator[Reading]):
    assert await pressed(readings) is False


async def test_press_and_release_are_told(pin: Any, readings: AsyncIterator[Reading]):
    await pressed(readings)
    pin.drive_low()
    assert await pressed(readings) is True
    pin.drive_high()
    assert await pressed(readings) is False


async def test_bouncing_is_one_event(pin: Any, readings: AsyncIterator[Reading]):
    await pressed(readings)
    pin.drive_low()
    assert await pressed(readings) is True
    more = asyncio.ensure_future(anext(readings))
    for _ in range(10):
        for drive in (pin.drive_high, pin.drive_low):
            drive()
            for _ in range(5):
                await asyncio.sleep(0)
    await asyncio.sleep(0.03)  # three times `bounce`: nothing may come, however long one waits
    assert not more.done()
    pin.drive_high()
    assert (await more).fields == {"pressed": False}


async def test_a_release_while_it_may_bounce_is_not_lost(pin: Any, readings: AsyncIterator[Reading]):
    await pressed(readings)
    pin.drive_low()
    assert await pressed(readings) is True
    pin.drive_high()
    assert await pressed(readings) is False


async def test_the_pin_is_free_again_afterwards(pin: Any):
    for _ in range(2):
        generator = BUTTON(pin=17, clock=HandClock())
        await pressed(generator)
        await generator.aclose()


def test_the_pin_has_to_be_given():
    from edgefn.errors import DriverError

    with pytest.raises(DriverError, match="'pin'"):
        load_driver("button").check({})
