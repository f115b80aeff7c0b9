"""Bursts of acceleration or sound pass through here and come out as the figures of condition monitoring."""

from __future__ import annotations

import math

from edgefn.kernels.sample import Floats


def rms(values: Floats) -> float:
    """The root mean square, sqrt(Σ x² / n), in the unit of the values (ISO 20816-1 rates machines by it).

    values: one dimension. A constant offset counts: take the mean away first where gravity is in the signal.
    NaN where a value is NaN or there are none; inf where one is infinite.
    """
    if values.size == 0:
        return math.nan
    total = 0.0
    for i in range(values.size):
        x = float(values[i])
        total += x * x
    return math.sqrt(total / values.size)


def crest_factor(values: Floats) -> float:
    """The largest |x| divided by the RMS, a plain number ≥ 1: 1.41 for a sine, 3 to 4 for noise, more for impacts
    (IEC 60050-103-02-31; early bearing damage raises it, Norton & Karczub 2003).

    values: one dimension. 1 for a constant series, 0 where all values are 0. NaN where a value is NaN or
    infinite, or there are none.
    """
    peak = 0.0
    for i in range(values.size):
        peak = max(peak, abs(float(values[i])))
    level = rms(values)
    if level == 0.0:
        return 0.0
    return peak / level


def band_energy(values: Floats, sample_rate: float, low: float, high: float) -> float:
    """The part of the mean square that lies at frequencies low ≤ f ≤ high: Σ c |X_k|² / n², in squared units.

    X_k is the discrete Fourier transform, c is 2, and 1 at 0 Hz and at half the sample rate. The whole band,
    0 to half the sample rate, gives rms² (Parseval 1799); the square root is the RMS of the band. Lines lie
    sample_rate / n apart; a tone between two lines leaks into the neighbours, as no taper is applied.

    values: one dimension, evenly sampled at sample_rate (Hz). low, high: Hz. A band without a line gives 0.
    NaN where a value is NaN or infinite, there are none, or sample_rate is not positive. O(n · lines in the
    band).
    """
    n = values.size
    if n == 0 or not sample_rate > 0.0:
        return math.nan
    origin = float(values[0])
    total = 0.0
    for i in range(n):
        total += float(values[i]) - origin
    mean = origin + total / n
    if not math.isfinite(mean):
        return math.nan
    # A line that lies on the edge of the band belongs to it, whatever the division did to its last bits.
    first = max(0, math.ceil(low * n / sample_rate - 1e-9))
    last = min(n // 2, math.floor(high * n / sample_rate + 1e-9))
    energy = 0.0
    for k in range(first, last + 1):
        if k == 0:
            energy += mean * mean
        elif 2 * k == n:
            energy += _line(values, mean, k)
        else:
            energy += 2.0 * _line(values, mean, k)
    return energy


def _line(values: Floats, mean: float, k: int) -> float:
    """|X_k|² / n², by a turning phasor: its rounding error grows with n, that of Goertzel's (1958) with n² at low k."""
    n = values.size
    step_re = math.cos(2.0 * math.pi * k / n)
    step_im = math.sin(2.0 * math.pi * k / n)
    phasor_re = 1.0
    phasor_im = 0.0
    re = 0.0
    im = 0.0
    for i in range(n):
        x = float(values[i]) - mean
        re += x * phasor_re
        im += x * phasor_im
        turned = phasor_re * step_re - phasor_im * step_im
        phasor_im = phasor_re * step_im + phasor_im * step_re
        phasor_re = turned
    return (re / n) * (re / n) + (im / n) * (im / n)
