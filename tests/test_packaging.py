"""The wheel carries what an installed edgefn needs: handlers, drivers and the device's system files."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_handlers_drivers_and_settings_travel_in_the_wheel(unpacked: Path) -> None:
    for folder, suffix in (("handlers", "*.py"), ("hw", "*.py"), ("systemd", "**/*")):
        there = {str(file.relative_to(ROOT / folder)) for file in (ROOT / folder).glob(suffix) if file.is_file()}
        inside = {
            str(file.relative_to(unpacked / "edgefn/_bundled" / folder))
            for file in (unpacked / "edgefn/_bundled" / folder).rglob("*")
            if file.is_file()
        }
        assert {name for name in there if "__pycache__" not in name} <= inside
    assert (unpacked / "edgefn/py.typed").is_file()


def test_it_claims_no_other_name_at_the_top_level(unpacked: Path) -> None:
    names = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"edgefn"}


def test_what_is_installed_finds_them(unpacked: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import edgefn.resources as r; print(r.bundled('handlers'), r.bundled('hw'))"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
    )  # fmt: skip
    assert result.stdout.split() == [str(unpacked / "edgefn/_bundled" / name) for name in ("handlers", "hw")]
