import datetime
import json
import re
from pathlib import Path

import pytest
import trustme

from edgefn.sinks import parquet
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
    assert {one["name"] for one in told["handlers"] if one["kind"] == "python"} == {"csv_import", "light", "report"}


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


def certificate(folder: Path, name: str, days: int) -> None:
    """A client certificate that ends so many days from now."""
    now = datetime.datetime.now(datetime.UTC)
    made = trustme.CA().issue_cert(
        "gateway-7.example", not_before=now - datetime.timedelta(30), not_after=now + datetime.timedelta(days)
    )
    made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    made.private_key_pem.write_to_path(str(folder / f"{name}.key"))


def test_what_can_be_known_of_uplinks_without_connecting(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "is_installed", lambda: False)
    for name, days in (("old", -1), ("soon", 3)):
        certificate(folder, name, days)
    (folder / "in-the-way").touch()
    uplinks = {
        "a": 'type = "mqtt"\nhost = "x"\ncert = "old.pem"\nkey = "old.key"',
        "b": 'type = "mqtt"\nhost = "x"\ncert = "soon.pem"\nkey = "soon.key"',
        "c": 'type = "mqtt"\nhost = "x"\ncert = "soon.pem"\nkey = "old.key"',
        "d": 'type = "http"\nurl = "https://x"\ntoken_file = "token"',
        "e": 'type = "http"\nurl = "example.com/ingest"',
        "f": 'type = "file"\nfolder = "in-the-way/x"',
        "g": 'type = "file"\nfolder = "out"\nformat = "parquet"',
    }
    (folder / "edgefn.toml").write_text(
        '[broker]\n[broker.tls]\nca = "no.pem"\n'
        + "".join(f'[[uplink]]\nname = "{name}"\n{options}\n' for name, options in uplinks.items())
    )
    result = edgefn("check", folder)
    assert result.exit_code == 1
    for said in (
        rf"uplink a: tls\.cert = '{folder}/old\.pem' has expired on \d+-\d+-\d+ ",
        rf"warning: .*uplink b: tls\.cert = '{folder}/soon\.pem' expires on ",
        r"uplink c: tls\.cert = .* with tls\.key = .* cannot be used: .*give two PEM files that belong together",
        rf"uplink d: token_file = '{folder}/token' cannot be read: No such file",
        r"uplink e: url = 'example\.com/ingest': an address such as https://",
        rf"uplink f: folder = '{folder}/in-the-way/x': {folder}/in-the-way is not a folder",
        r"uplink g: format = 'parquet' needs pyarrow, which is not installed: pip install 'edgefn\[parquet\]'",
        rf"broker: tls\.ca = '{folder}/no\.pem' cannot be read: No such file",
    ):
        assert re.search(said, result.output), said
    assert "0 handlers, 8 findings, 1 warning" in result.stderr


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


def test_a_pattern_of_streams_that_matches_nothing_is_a_warning(folder: Path):
    (folder / "edgefn.toml").write_text(
        f'[[uplink]]\nname = "archive"\ntype = "file"\nfolder = "{folder}"\nstreams = ["alert/*", "*"]\n'
    )
    (folder / "handlers" / "rooms.py").unlink()
    result = edgefn("check", folder)
    assert result.exit_code == 0
    assert "uplink archive: 'alert/*' in streams matches nothing that is here" in result.stderr
    assert "1 warning" in result.stderr
