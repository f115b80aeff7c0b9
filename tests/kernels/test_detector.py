"""The detector's promises: quiet on noise, loud on spikes and shifts, used to a new level after fifteen samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgefn.kernels import Detector, detect, make_window

Floats = npt.NDArray[np.float64]


def scores(xs: Floats, state: Detector | None = None, alpha: float = 0.05, floor: float = 1e-9) -> Floats:
    state = state or Detector()
    return np.array([detect(state, float(x), alpha, floor) for x in xs])


def noise(n: int, seed: int = 0, level: float = 20.0, sigma: float = 0.1) -> Floats:
    return np.random.default_rng(seed).normal(level, sigma, n)


def test_a_score_counts_standard_deviations() -> None:
    state = Detector()
    scores(noise(2000), state)
    assert 4.0 < detect(state, 20.5) < 6.5


def test_noise_raises_an_alert_less_often_than_once_in_2000_samples() -> None:
    assert (scores(noise(10_000)) > 4).mean() < 1 / 2000


def test_it_works_at_any_scale_and_any_level() -> None:
    here = scores(noise(500))
    np.testing.assert_allclose(scores((noise(500) - 20.0) * 1e-6 + 3.0), here, rtol=1e-6, atol=1e-6)


def test_the_first_fifteen_samples_score_zero() -> None:
    assert (scores(noise(15, sigma=50.0)) == 0).all()


def test_a_bad_first_reading_does_not_hide_what_follows() -> None:
    xs = noise(100)
    xs[0], xs[60] = 85.0, 22.0  # the DS18B20 says 85 °C at power-on
    assert scores(xs)[60] > 10
    assert np.delete(scores(xs), 60).max() < 5


def test_every_spike_is_found_though_there_were_many() -> None:
    xs = noise(2000)
    spikes = np.arange(100, 2000, 37)
    xs[spikes] += 1.0
    found = scores(xs)
    assert found[spikes].min() > 4
    assert np.delete(found, spikes).max() < 5


def test_a_shift_is_loud_for_fifteen_samples_and_then_the_new_normal() -> None:
    shifts = [scores(np.r_[noise(100, seed), noise(200, seed + 100, level=30.0)])[100:] for seed in range(20)]
    assert min(after[:15].min() for after in shifts) > 4
    assert np.mean([after[15:] > 4 for after in shifts]) < 1 / 500


def test_a_longer_window_gets_used_to_a_shift_later() -> None:
    xs = np.r_[noise(300), noise(300, 1, level=120.0)]
    after = scores(xs, Detector(unexplained=make_window(25)))[300:]
    assert after[:25].min() > 4
    assert after[25:].max() < 5


def test_a_day_and_its_temperature_are_no_anomaly() -> None:
    minutes = np.arange(3 * 1440)
    assert scores(noise(minutes.size, sigma=0.05) + 3.0 * np.sin(minutes / 1440 * 2 * np.pi)).max() < 5


def test_a_series_that_never_moved_scores_zero_and_its_first_move_high() -> None:
    calm = scores(np.r_[np.full(100, 20.0), 50.0, np.full(50, 20.0)])
    assert calm[100] > 1e6
    assert np.isfinite(calm).all()
    assert np.delete(calm, 100).max() < 1


def test_a_coarse_sensor_may_rest_and_step_again_without_an_alert() -> None:
    """A DS18B20 in a quiet room: equal readings for hours, then a step of one sixteenth of a degree."""
    state = Detector()
    scores(np.round(noise(500, sigma=0.05) / 0.0625) * 0.0625, state)
    scores(np.full(5000, 20.0), state)
    assert detect(state, 20.0625) < 4


def test_the_resolution_as_floor_keeps_even_the_first_step_quiet() -> None:
    assert scores(np.r_[np.full(100, 20.0), 20.0625], floor=0.0625)[-1] == 1.0


def test_nan_leaves_no_trace() -> None:
    xs = noise(200)
    holes = np.insert(xs, np.arange(0, 200, 3), np.nan)
    answers = scores(holes)
    np.testing.assert_array_equal(answers[~np.isnan(holes)], scores(xs))
    assert np.isnan(answers[np.isnan(holes)]).all()
