"""The plots of the benchmarks: where points come to lie, and that a file is well-formed and says what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import __main__ as program
from bench import plot
from bench.rows import Curve, Figure, Panel, Row

SVG = "{http://www.w3.org/2000/svg}"
CPU = Curve("ours & theirs", ((1, 2.5, 2.0, 3.0), (1_000, 4.0, 4.0, 4.0), (100_000, 20.0, 15.0, 30.0)))
PEER = Curve("peer", ((1, 5.0, 5.0, 5.0), (1_000, 3.0, 3.0, 3.0), (100_000, 40.0, 40.0, 40.0)))
FIGURE = Figure(
    "growth-x", "More <x>", (Panel("CPU", "keys", "µs", (CPU, PEER)), Panel("Rate", "keys", "1/s", (CPU,), True))
)
PAGE = ElementTree.fromstring(plot.svg(FIGURE, "today; a machine; three runs"))


def results(path: Path, *figures: Figure) -> Path:
    rows = [asdict(Row("no figure", 1.0, "s")), *(asdict(Row("x", 1.0, "s", figure=one)) for one in figures)]
    stored = {"ts": "2026-01-02T03:04:05Z", "machine": "a machine", "options": {"quick": False}, "rows": rows}
    path.write_text(json.dumps(stored))
    return path


@pytest.mark.parametrize(
    ("high", "expected"),
    [
        (3.0, [0, 1, 2, 3]),
        (3.1, [0, 1, 2, 3, 4]),
        (21.0, [0, 5, 10, 15, 20, 25]),
        (0.52, [0, 0.2, 0.4, 0.6]),
        (147_000.0, [0, 50_000, 100_000, 150_000]),
    ],
)
def test_linear_ticks_begin_at_zero_and_cover_the_values(high: float, expected: list[float]) -> None:
    assert plot.linear_ticks(high) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(4.4, 480.0, [1, 10, 100, 1000]), (10.0, 100.0, [10, 100]), (0.02, 0.03, [0.01, 0.1]), (10.0, 10.0, [10, 100])],
)
def test_log_ticks_are_the_powers_of_ten_around_the_values(low: float, high: float, expected: list[float]) -> None:
    assert plot.log_ticks(low, high) == pytest.approx(expected)


def test_a_scale_goes_from_its_first_px_to_its_last() -> None:
    assert [plot.Scale(0, 10, 200, 100, log=False)(value) for value in (0, 2.5, 10)] == [200, 175, 100]
    assert [plot.Scale(1, 100, 0, 200, log=True)(value) for value in (1, 10, 100)] == [0, 100, 200]
    assert plot.Scale(7, 7, 30, 40, log=True)(7) == 30


def test_every_measured_value_has_a_point_within_its_panel_and_a_label() -> None:
    circles = [one for one in PAGE.iter(f"{SVG}circle") if one.get("r") == "3.5"]
    assert len(circles) == 9
    for one in circles:
        assert plot.LEFT < float(one.get("cx", "")) < plot.WIDTH - plot.RIGHT
        assert plot.TOP <= float(one.get("cy", "")) <= plot.HEIGHT - plot.BOTTOM
    labels = [one.text for one in PAGE.iter(f"{SVG}text") if "value" in one.get("class", "")]
    assert labels == ["2.5", "4", "20", "5", "3", "40", "2.5", "4", "20"]


def test_the_axes_have_units_and_the_curves_names() -> None:
    texts = ["".join(one.itertext()) for one in PAGE.iter(f"{SVG}text")]
    assert {"More <x>", "ours & theirs", "peer", "keys, logarithmic", "1,000", "100,000"} <= set(texts)
    assert {"CPUµs", "Rate1/s, logarithmic"} <= set(texts)
    assert "today; a machine; three runs" in texts


def test_a_dark_page_gets_colours_of_its_own() -> None:
    light, _, dark = plot.style().partition("@media (prefers-color-scheme: dark)")
    for name in plot.LIGHT:
        assert plot.LIGHT[name] in light
        assert plot.DARK[name] in dark
        assert name not in plot.style()


def test_what_is_stored_as_json_becomes_the_same_figure() -> None:
    assert plot.figure(json.loads(json.dumps(asdict(FIGURE)))) == FIGURE


def test_a_file_is_written_for_each_figure(tmp_path: Path) -> None:
    stored = results(tmp_path / "latest.json", FIGURE)
    (path,) = plot.write(stored, tmp_path / "docs" / "figures")
    assert path.name == "growth-x.svg"
    assert "2026-01-02; a machine; medians of 3 runs" in path.read_text()


def test_without_figures_the_error_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "RESULTS", results(tmp_path / "latest.json"))
    monkeypatch.setattr("sys.argv", ["bench", "--plot", str(tmp_path)])
    assert program.main() == 1
    assert "measure some: python -m bench --only growth_keys" in capsys.readouterr().err
    with pytest.raises(plot.NothingToPlotError):
        plot.write(tmp_path / "missing.json", tmp_path)
