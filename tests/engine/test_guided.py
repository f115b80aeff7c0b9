"""The coverage-guided fuzzer can be started: what it begins with is what it takes, and where atheris is missing it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fuzz, guided


def test_kernels_and_references_agree_about_what_it_begins_with() -> None:
    parts = guided.load()
    seeds = guided.seeds(fuzz.MAKE)
    assert len(seeds) > 250
    for seed in seeds:
        guided.examine(parts, seed)


def test_a_difference_is_an_error() -> None:
    parts = guided.load()
    parts.general = lambda payload, unit: "something else"
    with pytest.raises(AssertionError):
        guided.examine(parts, b"\x01\0" + b'{"a": 1}')


def test_where_atheris_is_missing_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guided, "find_spec", lambda name: None)
    assert guided.guide(tmp_path, 1, fuzz.MAKE) == 2
    assert "pip install atheris" in capfd.readouterr().err
