"""What the figures of vibration promise beyond their references."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgefn.kernels import band_energy, crest_factor, rms

TONE = 3.0 * np.sin(2 * np.pi * 100.0 * np.arange(1000) / 1000.0)  # 100 Hz, amplitude 3, sampled at 1 kHz


def test_a_sine_has_the_rms_and_crest_factor_of_the_textbook() -> None:
    assert rms(TONE) == pytest.approx(3.0 / math.sqrt(2))
    assert crest_factor(TONE) == pytest.approx(math.sqrt(2), rel=0.06)  # the crest lies between two samples


def test_an_impact_raises_the_crest_factor() -> None:
    knocked = TONE.copy()
    knocked[500] += 30.0
    assert crest_factor(knocked) > 3 * crest_factor(TONE)


def test_the_energy_of_a_tone_is_in_its_band_and_nowhere_else() -> None:
    assert band_energy(TONE, 1000.0, 90.0, 110.0) == pytest.approx(4.5)
    assert band_energy(TONE, 1000.0, 110.0, 500.0) == pytest.approx(0.0, abs=1e-12)


def test_the_edges_belong_to_the_band() -> None:
    assert band_energy(TONE, 1000.0, 100.0, 100.0) == pytest.approx(4.5)
    seventh = np.sin(2 * np.pi * 0.14 * np.arange(50))
    assert 0.14 * 50 > 7  # in binary, though the tone is the seventh line
    assert band_energy(seventh, 1.0, 0.14, 0.14) == pytest.approx(0.5)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 101])
def test_the_whole_band_has_the_whole_mean_square(n: int) -> None:
    values = np.random.default_rng(n).normal(9.81, 1.0, n)
    assert band_energy(values, 200.0, 0.0, 100.0) == pytest.approx(rms(values) ** 2)


def test_a_band_without_a_line_is_empty() -> None:
    assert band_energy(TONE, 1000.0, 100.2, 100.8) == 0.0
    assert band_energy(TONE, 1000.0, 600.0, 900.0) == 0.0
    assert band_energy(TONE, 1000.0, 200.0, 100.0) == 0.0


def test_gravity_does_not_leak_into_a_band() -> None:
    assert band_energy(np.full(1000, 9.81), 1000.0, 0.5, 500.0) == 0.0


def test_the_first_line_of_a_long_burst_keeps_its_digits() -> None:
    n = 1 << 16
    slow = np.sin(2 * np.pi * np.arange(n) / n)
    assert band_energy(slow, float(n), 1.0, 1.0) == pytest.approx(0.5, rel=1e-10)


@pytest.mark.parametrize("sample_rate", [0.0, -1.0, math.nan])
def test_no_sample_rate_gives_nan(sample_rate: float) -> None:
    assert math.isnan(band_energy(TONE, sample_rate, 0.0, 100.0))


def test_infinity_is_no_vibration() -> None:
    values = np.array([1.0, np.inf, 2.0])
    assert rms(values) == math.inf
    assert math.isnan(crest_factor(values))
    assert math.isnan(band_energy(values, 10.0, 0.0, 5.0))
