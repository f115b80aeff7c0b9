from pathlib import Path

import pytest

from edgefn.loader import describe
from tests.cli.helpers import edgefn


@pytest.mark.parametrize(("name", "title"), [("comfort", "Comfort"), ("room_air", "RoomAir")])
def test_a_new_handler_can_be_used_as_it_is(tmp_path: Path, name: str, title: str):
    result = edgefn("new", "handler", name, "--folder", tmp_path / "handlers")
    assert result.exit_code == 0
    file = tmp_path / "handlers" / f"{name}.py"
    assert f"created {file}" in result.output
    handlers, _ = describe(file, file.read_text())
    assert [handler.name for handler in handlers] == [f"{name}_plausible", name]
    assert f"class {title}(NamedTuple)" in file.read_text()


@pytest.mark.parametrize("name", ["2nd", "room-air", "_hidden", "räume", "class.py"])
def test_what_is_no_name_is_refused_with_an_example(tmp_path: Path, name: str):
    result = edgefn("new", "handler", name, "--folder", tmp_path)
    assert result.exit_code == 2
    assert f"edgefn: {name!r} is not a name; use letters, digits and _" in result.output
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept(tmp_path: Path):
    (tmp_path / "comfort.py").write_text("mine")
    result = edgefn("new", "handler", "comfort", "--folder", tmp_path)
    assert result.exit_code == 2
    assert "comfort.py is there already; choose another name or remove it" in result.output
    assert (tmp_path / "comfort.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["class", "import"])
def test_a_word_of_python_is_no_name(tmp_path: Path, name: str):
    assert edgefn("new", "handler", name, "--folder", tmp_path).exit_code == 2
