"""Which handlers of a folder run: not what is refused, paused or in quarantine, and nothing that is built on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgefn import loader
from edgefn.gateway.handler_commands import NoHandlerError
from edgefn.gateway.handler_files import HandlerFiles
from edgefn.gateway.states import HandlerFile
from edgefn.gateway.strikes import STRIKES
from edgefn.manifest import FunctionManifest, HandlerManifest, Manifest

ROOMS = """
from edgefn import aggregate, count, filter

@filter("{topic}")
def plausible(t):
    return t < 100

@aggregate(plausible, count(3))
def {name}(t):
    return t.mean()
"""


class Folder:
    """A folder whose files are described and not compiled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = {}
        self.all: list[tuple[str, Any]] = []
        self.changes = 0
        self.files = HandlerFiles(path, path / "cache", self._tell, self._changed)

    async def _tell(self, name: str, state: Any) -> None:
        self.told[name] = state
        self.all.append((name, state))

    def _changed(self) -> None:
        self.changes += 1

    def put(self, name: str, source: str, version: str = "1") -> None:
        file = self.path / name
        file.write_text(source)
        compiled, python = loader.describe(file, source)
        handlers = tuple(HandlerManifest.of(one) for one in compiled)
        functions = tuple(FunctionManifest.of(one) for one in python)
        entry = self.files._files.setdefault(file, HandlerFile(file))
        entry.under_way = None
        entry.active = entry.latest = Manifest(str(file), version, "", handlers, functions)

    def running(self) -> list[tuple[str, str]]:
        return [(Path(file.file).name, one.name) for file in self.files.active() for one in file.handlers]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_what_is_built_on_a_refused_handler_is_not_bound_to_its_namesake(folder: Folder) -> None:
    folder.put("a.py", ROOMS.format(topic="a", name="mean_a"))
    folder.put("b.py", ROOMS.format(topic="b", name="mean_b"))
    assert folder.running() == [("a.py", "plausible"), ("a.py", "mean_a")]
    await folder.files.tell_all()
    assert folder.told["plausible-b"]["state"] == "failed"
    assert "already defined in" in folder.told["plausible-b"]["error"]
    assert folder.told["mean_b"]["state"] == "stopped"


async def test_three_strikes_put_a_handler_into_quarantine_until_its_file_changes(folder: Folder) -> None:
    folder.put("a.py", ROOMS.format(topic="a", name="mean"))
    for _ in range(STRIKES):
        assert ("a.py", "plausible") in folder.running()
        await folder.files.strike("plausible", "hung")
    assert folder.running() == []
    assert folder.told["plausible"]["state"] == "quarantined"
    assert folder.told["mean"]["state"] == "stopped"
    folder.put("a.py", ROOMS.format(topic="a", name="mean"), version="2")
    assert folder.running() == [("a.py", "plausible"), ("a.py", "mean")]


async def test_resuming_lifts_pause_and_quarantine(folder: Folder) -> None:
    folder.put("a.py", ROOMS.format(topic="a", name="mean"))
    await folder.files.tell_all()
    await folder.files.pause("mean")
    assert folder.running() == [("a.py", "plausible")]
    for _ in range(STRIKES):
        await folder.files.strike("plausible", "died")
    assert folder.running() == []
    await folder.files.resume("mean")
    await folder.files.resume("plausible")
    assert folder.running() == [("a.py", "plausible"), ("a.py", "mean")]
    with pytest.raises(NoHandlerError, match="nobody"):
        await folder.files.resume("nobody")


async def test_a_state_is_told_once_and_cleared_when_the_file_has_gone(folder: Folder) -> None:
    folder.put("a.py", ROOMS.format(topic="a", name="mean"))
    await folder.files.tell_all()
    folder.told.clear()
    await folder.files.tell_all()
    assert folder.told == {}
    (folder.path / "a.py").unlink()
    await folder.files._take([folder.path / "a.py"])
    assert folder.told == {"plausible": None, "mean": None}
    assert [state and state["state"] for name, state in folder.all if name == "mean"] == ["active", "retired", None]
    assert folder.changes == 1


LIGHT = """
from edgefn import on

@on("door")
def {name}(event):
    return None

@on("door", enabled=False)
def idle(event):
    return None
"""


async def test_python_handlers_run_unless_disabled_paused_or_named_like_another(folder: Folder) -> None:
    folder.put("a.py", ROOMS.format(topic="a", name="mean"))
    folder.put("b.py", LIGHT.format(name="light"), version="7")
    [light] = folder.files.functions()
    assert (light.manifest.name, light.path, light.version) == ("light", folder.path / "b.py", "7")
    await folder.files.tell_all()
    folder.put("b.py", LIGHT.format(name="mean"))
    assert folder.files.functions() == []
    assert folder.running() == [("a.py", "plausible"), ("a.py", "mean")]
