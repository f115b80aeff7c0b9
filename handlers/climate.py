"""Rooms: keep plausible readings, summarise each room, and raise an alert when a reading is far from what is usual."""

from typing import NamedTuple

from edgefn import aggregate, anomaly, filter, tumbling
from edgefn.kernels import Detector, detect


@filter("edgefn/+/event/climate/{room}")
def plausible(temperature, humidity):
    return -40 < temperature < 85 and 0 <= humidity <= 100


class Comfort(NamedTuple):
    mean: float
    peak: float
    humidity: float
    n: int


@aggregate(plausible, tumbling("5s"))
def comfort(temperature, humidity) -> Comfort:
    return Comfort(temperature.mean(), temperature.max(), humidity.mean(), temperature.size)


@anomaly(plausible, threshold=8.0, clear=3.0)
def unusual(temperature, state: Detector) -> float:  # state is kept for each room, and survives restarts
    return detect(state, temperature)
