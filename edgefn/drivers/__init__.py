"""Sensor readings on their way from a driver file to the local broker."""

from edgefn.drivers.contract import Driver, Duration, Field, PlainReadings, Reading, Readings, driver, ticks
from edgefn.drivers.load import list_drivers, load_driver

__all__ = [
    "Driver",
    "Duration",
    "Field",
    "PlainReadings",
    "Reading",
    "Readings",
    "driver",
    "list_drivers",
    "load_driver",
    "ticks",
]
