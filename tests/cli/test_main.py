import tomllib
from pathlib import Path

import pytest

import edgefn as package
from edgefn.cli import main
from edgefn.resources import bundled
from tests.cli.helpers import edgefn


def test_the_version_is_the_package_s():
    result = edgefn("--version")
    assert result.exit_code == 0
    assert result.output == f"edgefn, version {package.__version__}\n"


def test_help_lists_every_verb_and_gives_examples():
    result = edgefn("-h")
    assert result.exit_code == 0
    assert "Examples:\n    edgefn demo" in result.output
    for verb in main.commands:
        assert f"\n  {verb} " in result.output


@pytest.mark.parametrize(
    "verb", [["init"], ["new", "handler"], ["check"], ["invoke"], ["record"], ["replay"], ["run"], ["demo"]]
)
def test_each_verb_says_what_it_does_with_an_example(verb: list[str]):
    result = edgefn(*verb, "--help")
    assert result.exit_code == 0
    assert f"Example: edgefn {' '.join(verb)}" in result.output


def test_an_unknown_verb_ends_with_status_2():
    result = edgefn("fly")
    assert result.exit_code == 2
    assert "No such command 'fly'" in result.output


def test_what_a_person_can_mend_is_told_without_a_traceback(tmp_path: Path):
    (tmp_path / "edgefn.toml").write_text("[broker]\nport = 0\n[engine]\ndeadline = 'soon'\n")
    result = edgefn("run", tmp_path)
    assert result.exit_code == 2
    assert result.output.count("edgefn: ") == 2
    assert f"{tmp_path}/edgefn.toml: broker.port = 0: a port is between 1 and 65535" in result.output
    assert "Traceback" not in result.output


def test_the_wheel_carries_what_the_command_copies():
    project = tomllib.loads((bundled("systemd").parent / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert carried == {name: f"edgefn/_bundled/{name}" for name in ("handlers", "hw", "systemd")}
