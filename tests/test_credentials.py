"""Where a secret is looked for, and what is none."""

from pathlib import Path

import pytest

from edgefn.credentials import read_secret


def test_the_line_is_the_secret(tmp_path: Path):
    (tmp_path / "token").write_text("s3cret with spaces \r\n")
    assert read_secret(tmp_path / "token") == "s3cret with spaces "


def test_what_systemd_hands_over_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "token").write_text("on the disk")
    (tmp_path / "handed").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "handed"))
    assert read_secret(tmp_path / "token") == "on the disk"
    (tmp_path / "handed" / "token").write_text("handed over")
    assert read_secret(tmp_path / "token") == "handed over"


@pytest.mark.parametrize(("text", "says"), [("", "empty"), ("\n", "empty"), ("a\nb\n", "more than one line")])
def test_no_secret(tmp_path: Path, text: str, says: str):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_secret(tmp_path / "token")
