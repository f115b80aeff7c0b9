"""What handlers may call, compiled or as plain Python: one family of kernels per module.

A function takes its memory first, then the sample, then parameters. Its memory is a dataclass of scalars and
fixed-length arrays, one per key. Nothing here imports numba; the engine compiles every function of these
modules when a handler calls it, so they stay within what numba compiles.
"""

from __future__ import annotations

from edgefn.kernels.change import Cusum, PageHinkley, Rate, cusum, page_hinkley, rate
from edgefn.kernels.detector import Detector, detect
from edgefn.kernels.gating import Deadband, Debounce, Throttle, deadband, debounce, throttle
from edgefn.kernels.outliers import hampel, mad, moving_zscore, zscore
from edgefn.kernels.quantiles import (
    Sketch,
    quantile,
    sketch,
    sketch_add,
    sketch_clear,
    sketch_error,
    sketch_merge,
    sketch_quantile,
)
from edgefn.kernels.ring import Window, make_window, window
from edgefn.kernels.smoothing import Ewma, Ewmv, ewma, ewmv, moving_median
from edgefn.kernels.vibration import band_energy, crest_factor, rms

__all__ = [
    "Cusum",
    "Deadband",
    "Debounce",
    "Detector",
    "Ewma",
    "Ewmv",
    "PageHinkley",
    "Rate",
    "Sketch",
    "Throttle",
    "Window",
    "band_energy",
    "crest_factor",
    "cusum",
    "deadband",
    "debounce",
    "detect",
    "ewma",
    "ewmv",
    "hampel",
    "mad",
    "make_window",
    "moving_median",
    "moving_zscore",
    "page_hinkley",
    "quantile",
    "rate",
    "rms",
    "sketch",
    "sketch_add",
    "sketch_clear",
    "sketch_error",
    "sketch_merge",
    "sketch_quantile",
    "throttle",
    "window",
    "zscore",
]
