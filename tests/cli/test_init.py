from pathlib import Path

from edgefn import config
from edgefn.resources import bundled
from tests.cli.helpers import edgefn


def test_it_makes_a_folder_that_runs(tmp_path: Path):
    folder = tmp_path / "my" / "gateway"
    result = edgefn("init", folder)
    assert result.exit_code == 0
    assert (folder / "edgefn.toml").read_text() == (bundled("systemd") / "edgefn.toml").read_text()
    shipped = sorted(file.name for file in bundled("handlers").glob("*.py"))
    assert sorted(file.name for file in (folder / "handlers").iterdir()) == shipped
    settings = config.load(folder / "edgefn.toml")
    assert settings.warnings == ()
    assert settings.gateway.handlers == str(folder / "handlers")


def test_it_says_what_to_do_next(tmp_path: Path):
    output = edgefn("init", tmp_path).output
    assert f"edgefn run {tmp_path}" in output
    assert "mosquitto_sub -v -t 'edgefn/#'" in output


def test_it_changes_no_file_that_is_there(tmp_path: Path):
    (tmp_path / "edgefn.toml").write_text("# mine\n")
    result = edgefn("init", tmp_path)
    assert result.exit_code == 0
    assert f"kept    {tmp_path}/edgefn.toml" in result.output
    assert (tmp_path / "edgefn.toml").read_text() == "# mine\n"
    assert "created" not in edgefn("init", tmp_path).output
