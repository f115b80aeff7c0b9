import json
from pathlib import Path

import pytest

from tests.cli.helpers import edgefn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gateway whose only handler file cannot be loaded: nothing has to be compiled."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "rooms.py").write_text(
        "from edgefn import filter\n@filter('a/#/b')\ndef f(x):\n    return x\n"
    )
    return tmp_path


def test_what_init_makes_has_nothing_wrong(tmp_path: Path):
    edgefn("init", tmp_path)
    result = edgefn("check", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["findings"] == []
    assert {"climate", "host"} <= {Path(handler["file"]).stem for handler in told["handlers"]}


def test_everything_that_is_wrong_is_told_at_once(folder: Path):
    (folder / "edgefn.toml").write_text(
        '[broker]\npassword_file = "missing"\n'
        '[[driver]]\nname = "clymate"\n[[driver]]\nname = "host"\ninterval = "soon"\n'
        '[[uplink]]\nname = "cloud"\ntype = "pigeon"\n'
    )
    result = edgefn("check", folder)
    assert result.exit_code == 1
    for said in (
        "driver clymate: no driver is called 'clymate'; did you mean 'climate'?",
        "driver 'host': parameter 'interval' cannot be 'soon'",
        "uplink cloud: sink type 'pigeon' is not installed; known types: file, http, mqtt",
        "broker.password_file = 'missing' cannot be read",
        "rooms.py:2: f: pattern 'a/#/b'",
    ):
        assert said in result.output
    assert "0 handlers, 5 findings" in result.stderr


def test_json_has_the_findings_and_nothing_else_on_standard_output(folder: Path):
    (folder / "edgefn.toml").write_text("[broker]\nport = 0\n")
    result = edgefn("check", folder, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["findings"]
    assert any("broker.port = 0" in one for one in found)
    assert any("rooms.py:2" in one for one in found)


def test_a_key_that_is_unknown_is_told_and_changes_nothing(folder: Path):
    (folder / "edgefn.toml").write_text("[gateway]\nidd = 'x'\n")
    result = edgefn("check", folder)
    assert "edgefn: warning: " in result.stderr
    assert "gateway.idd is not a setting" in result.stderr
    assert "0 handlers, 1 finding, 1 warning" in result.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    result = edgefn("check", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "there is no such file; `edgefn init DIR` makes one" in result.output
