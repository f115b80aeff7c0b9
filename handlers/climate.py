"""Rooms: keep plausible readings, summarise each room, and raise an alert when a reading is far from what is usual."""

from dataclasses import dataclass
from typing import NamedTuple

from edgefn import aggregate, anomaly, filter, tumbling


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


@dataclass
class Baseline:
    mean: float = 0.0
    var: float = 0.25
    n: int = 0


@anomaly(plausible, threshold=6.0, clear=3.0)
def unusual(temperature, state: Baseline) -> float:
    error = temperature - state.mean
    state.n += 1
    weight = max(0.05, 1.0 / state.n)
    score = 0.0 if state.n < 10 else abs(error) / (state.var + 1e-3) ** 0.5
    state.mean += weight * error
    state.var += weight * (error * error - state.var)
    return score
