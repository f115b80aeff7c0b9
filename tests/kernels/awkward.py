"""Awkward series, each with the story that put it here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_rng = np.random.default_rng(20)
_noise = _rng.normal(20.0, 0.8, 120)


def _with(values: Floats, places: list[int], what: float) -> Floats:
    values = values.copy()
    values[places] = what
    return values


@dataclass(frozen=True)
class Series:
    story: str
    xs: Floats
    rtol: float = 0.0  # what the numbers themselves cost, where it is more than the kernel's own tolerance

    def __str__(self) -> str:
        return self.story


SERIES = [
    Series("a noisy sensor", _noise),
    Series("one sample", np.array([21.5])),
    Series("a sensor that never moves", np.full(40, 20.1)),
    Series("a sensor stuck at a number that is no sum of powers of two, at a high level", np.full(40, 1e9 + 0.1)),
    Series("all zeros: every variance and every level is 0", np.zeros(40)),
    Series("coarse resolution: most readings repeat", np.round(_rng.normal(20.0, 0.05, 120) / 0.0625) * 0.0625),
    Series(
        "noise of a hundredth at 1e9, where E[x²] - E[x]² loses every digit and goes negative",
        1e9 + _rng.normal(0.0, 1e-2, 120),
        rtol=1e-2,
    ),
    Series(
        "DS18B20 reading 85 °C at power-on, and -127 °C when the bus is cut", _with(_noise, [0, 30, 31, 70], -127.0)
    ),
    Series("a level that shifts for good", _noise + np.repeat([0.0, 12.0], 60)),
    Series("a level that shifts out of a dead calm", np.repeat([20.0, 25.0, 25.1], 40)),
    Series("negative and positive around zero", _noise - 20.0),
    Series("tiny numbers, squares of which vanish", (_noise - 20.0) * 1e-200),
    Series("NaN among the samples", _with(_noise, [0, 1, 17, 50, 51, 119], np.nan)),
    Series("NaN and nothing else", np.full(10, np.nan)),
    Series("infinities among the samples", _with(_with(_noise, [3, 40], np.inf), [41, 90], -np.inf)),
    Series("a finite number whose square is infinite", _with(_noise, [25, 60], 1e200)),
    Series("no samples at all", np.zeros(0)),
]

# What a window of an aggregate may hold.
VALUES = [
    Series("a burst of a noisy sensor", _noise),
    Series("an odd number of values", _noise[:31]),
    Series("one value", np.array([21.5])),
    Series("two values", np.array([21.5, -3.0])),
    Series("all equal", np.full(40, 20.1)),
    Series("sorted already", np.sort(_noise)),
    Series("sorted backwards", np.sort(_noise)[::-1].copy()),
    Series(
        "rising, then falling: what makes a careless quickselect quadratic",
        np.r_[np.arange(30.0), np.arange(30.0)[::-1]],
    ),
    Series("many ties", np.round(_noise)),
    Series("noise of a hundredth at 1e9", 1e9 + _rng.normal(0.0, 1e-2, 64), rtol=1e-2),
    Series("a 100 Hz tone on a gravity of 1 g", 1.0 + np.sin(2 * np.pi * 0.1 * np.arange(200))),
    Series("numbers too small to square", np.full(8, 1e-200)),
]
