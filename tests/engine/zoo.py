"""The handler file that most tests of the engine share: one of each kind, compiled once."""

ZOO = '''"""One of each kind."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgefn import aggregate, anomaly, count, filter, summarize, transform, tumbling
from edgefn.kernels import Deadband, deadband


@filter("t/{room}/climate")
def plausible(temperature, humidity=50.0):
    return -40 < temperature < 85 and 0 <= humidity <= 100


class Calibrated(NamedTuple):
    celsius: float
    hot: bool
    step: int


def scaled(raw, factor):
    return raw * factor


@transform(plausible, to="out/calibrated")
def calibrated(temperature, gain: int = 2, flip: bool = False) -> Calibrated:
    celsius = scaled(temperature, gain)
    if flip:
        celsius = -celsius
    return Calibrated(celsius, celsius > 30, int(celsius) // 10)


class Spread(NamedTuple):
    low: float
    high: float
    n: int


@aggregate(calibrated, tumbling("10s"))
def spread(celsius, step) -> Spread:
    return Spread(celsius.min(), celsius.max() + 0 * step.sum(), celsius.size)


@dataclass
class Seen:
    n: int = 0
    last: float = -1.0


@aggregate(spread, count(2), name="spread-pairs")
def pairs(high, n, state: Seen) -> float:
    state.n += int(n.sum())
    return high.max() + 1000 * state.n


@anomaly("t/{room}/climate", threshold=10.0, clear=5.0)
def jump(temperature, state: Seen) -> float:
    score = 0.0 if state.n == 0 else abs(temperature - state.last)
    state.n += 1
    state.last = temperature
    return score


@aggregate(jump, count(2))
def jumps(raised, value) -> float:
    return raised.sum() * 100 + value.max()


@filter("t/{room}/level")
def changed(level, state: Deadband):
    return deadband(state, level, 1.0)


@aggregate(changed, count(3))
def levels(level) -> float:
    return level.sum()


@filter("t/{room}/gate")
def gate(open: bool, floor: int):
    return open and floor % 2 == 1


@transform("t/{room}/gate", to="out/when")
def when(ts, key) -> float:
    return float(ts % 1000000000) + key


@transform("t/{room}/fault", to="out/fault")
def faulty(x):
    if x < 0:
        raise ValueError("below zero")
    values = np.zeros(4)
    values[int(x)] = 1.0
    return values.sum() + x


@transform("t/{room}/fault", to="out/greedy")
def greedy(x):
    return np.zeros(int(x * 1e15) + 1).size * 1.0


@dataclass
class Ring:
    at: int = 0
    held: np.ndarray = field(default_factory=lambda: np.zeros(4))


@transform("t/{room}/ring", to="out/ring")
def ring(x, state: Ring) -> float:
    state.held[state.at % 4] = x
    state.at += 1
    return state.held.sum()


climate = summarize(
    "t/{room}/climate",
    "10s",
    stats=("n", "mean", "min", "max", "sum", "std", "first", "last", "median", "p5", "p99"),
    fields=("temperature",),
)
two = summarize(calibrated, count(4), stats=("mean", "p50"), fields=("celsius", "step"))


if __name__ == "__main__":
    raise SystemExit("not run by the gateway")
'''
