import sys
from pathlib import Path

import pytest

from edgefn.drivers import list_drivers, load_driver
from edgefn.errors import DriverError
from edgefn.resources import bundled

TWO = """
from edgefn.drivers import driver

@driver
async def left():
    "The left one."
    yield {"x": 1}

@driver(fields={})
def right():
    yield {"x": 2}

def helper(): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sides.py").write_text(TWO)
    return tmp_path


def test_by_name_in_a_file_of_several(folder: Path):
    assert load_driver("left", [folder]).name == "left"
    assert load_driver("right", [folder]).file == folder / "sides.py"


def test_by_path(folder: Path):
    assert load_driver(f"{folder}/sides.py:right").name == "right"
    assert load_driver("sides.py:right", [folder]).name == "right"


def test_bundled_drivers_are_found_without_folders():
    assert load_driver("boiler").file.parent == bundled("hw")


def test_the_users_folder_comes_first(folder: Path):
    (folder / "boiler.py").write_text(TWO.replace("left", "boiler"))
    assert load_driver("boiler", [folder]).file == folder / "boiler.py"


def test_no_top_level_name_is_claimed_and_a_file_is_run_once(folder: Path):
    before = set(sys.modules)
    functions = [load_driver(name, [folder]).function for name in ("left", "right", "left")]
    (new,) = set(sys.modules) - before
    assert new.startswith("edgefn.")
    assert functions[0] is functions[2]


def test_listing_runs_nothing(folder: Path):
    (folder / "explodes.py").write_text(TWO.replace("left", "bang") + "raise SystemExit('boom')")
    found = {driver.name: driver.summary for driver in list_drivers([folder])}
    assert found["bang"] == "The bang one."
    assert {"host", "boiler", "motor", "door", "climate", "button"} <= found.keys()
    assert "helper" not in found


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("boilr", r"no driver is called 'boilr'; did you mean 'boiler'\?.*looked in"),
        ("zzzzzz", r"there are .*climate"),
        ("/nowhere/x.py", r"there is no file /nowhere/x\.py"),
        ("sides.py", r"does not say which one; it has .*sides\.py:left.*sides\.py:right"),
        ("sides.py:middle", r"it has .*sides\.py:left"),
    ],
)
def test_what_cannot_be_found_says_what_there_is(folder: Path, use: str, message: str):
    with pytest.raises(DriverError, match=message):
        load_driver(use, [folder])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library", r"broken\.py:1: ModuleNotFoundError.*install 'no_such_library'"),
        ("\n\n1 / 0", r"broken\.py:3: ZeroDivisionError"),
        ("def broken(:", r"broken\.py:1: SyntaxError"),
        ("raise SystemExit(3)", r"broken\.py:1: SystemExit"),
        ("x = 1", r"it has none: decorate one with @driver"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(DriverError, match=message):
        load_driver("broken.py", [tmp_path])
