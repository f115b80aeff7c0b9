from pathlib import Path

import pytest

from edgefn import resources


def test_the_drivers_are_found_in_the_repository_or_the_wheel():
    assert (resources.bundled("hw") / "host.py").is_file()


def test_the_wheels_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "edgefn")
    with pytest.raises(FileNotFoundError, match=r"'hw'.*install edgefn again"):
        resources.bundled("hw")
    (tmp_path / "hw").mkdir()
    assert resources.bundled("hw") == tmp_path / "hw"
    (tmp_path / "edgefn" / "_bundled" / "hw").mkdir(parents=True)
    assert resources.bundled("hw") == tmp_path / "edgefn" / "_bundled" / "hw"
