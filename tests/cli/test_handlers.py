"""`edgefn handlers` on a gateway that stands still; tests/integration/test_handler_life.py asks one that runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edgefn.gateway.halted import Halted
from edgefn.gateway.versions import Kept, Versions, content_of
from tests.cli.helpers import edgefn
from tests.store.helpers import a_store

SETTINGS = 'driver = []\n[gateway]\nid = "gw-1"\nstate = "state"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gateway that has run three versions of a.py, and has never been able to use b.py."""
    (tmp_path / "edgefn.toml").write_text(SETTINGS)
    (tmp_path / "handlers").mkdir()
    versions = Versions(tmp_path / "state")
    for n in (1, 2, 3):
        put(tmp_path, "a.py", f"version {n}")
        kept = Kept(f"{n}abc", content_of(f"version {n}".encode()), {"light": "python", "mean": "aggregate"})
        versions.keep("a", kept, f"version {n}".encode())
    put(tmp_path, "b.py", "nonsense(")

    async def run() -> None:
        async with a_store(tmp_path / "state" / "edgefn.db"):
            pass

    asyncio.run(run())
    return tmp_path


def put(folder: Path, name: str, source: str) -> None:
    (folder / "handlers" / name).write_text(source)


def listed(folder: Path) -> dict[str, Any]:
    told = json.loads(edgefn("handlers", "list", folder, "--json").stdout)
    assert not told["running"]
    return {one["name"]: one for one in told["handlers"]}


def test_the_list_is_a_table_or_json(folder: Path):
    result = edgefn("handlers", "list", folder)
    assert result.exit_code == 0, result.output
    assert "no gateway runs on it" in result.output
    shown = " ".join(result.output.split())
    assert "light standing python a.py 3abc mean standing aggregate a.py 3abc" in shown
    assert "b new b.py" in shown
    assert "\x1b" not in result.output
    assert listed(folder)["light"] == {
        "name": "light", "state": "standing", "kind": "python", "version": "3abc",
        "file": str(folder / "handlers" / "a.py"),
    }  # fmt: skip


def test_a_folder_without_handlers(folder: Path):
    for path in (folder / "handlers").iterdir():
        path.unlink()
    assert "no handlers; `edgefn new` makes one" in edgefn("handlers", "list", folder).output


def test_pause_and_resume_are_there_when_the_gateway_starts(folder: Path):
    result = edgefn("handlers", "pause", "light", folder)
    assert (result.exit_code, result.stdout) == (0, "light is paused\n")
    assert listed(folder)["light"]["state"] == "paused"
    assert Halted(folder / "state").is_paused("light")
    result = edgefn("handlers", "resume", "light", folder)
    assert (result.exit_code, result.stdout) == (0, "light runs when the gateway is started\n")
    assert not Halted(folder / "state").is_paused("light")


def test_a_rollback_is_there_when_the_gateway_starts(folder: Path):
    result = edgefn("handlers", "rollback", "light", folder)
    assert (result.exit_code, result.stdout) == (
        0, "a.py runs when the gateway is started as version 2abc (light, mean)\n"
    )  # fmt: skip
    assert listed(folder)["mean"]["version"] == "2abc"
    assert listed(folder)["mean"]["rolled_back"]
    assert Versions(folder / "state").wanted("a", content_of(b"version 3")) == "2abc"
    told = json.loads(edgefn("handlers", "rollback", "a.py", folder, "--to", "1", "--json").stdout)
    assert (told["from"], told["to"]) == ("2abc", "1abc")
    result = edgefn("handlers", "show", "light", folder)
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    assert "3abc light, mean 2abc light, mean 1abc yes light, mean" in shown
    put(folder, "a.py", "version 4")
    assert listed(folder)["light"]["version"] == "3abc", "the last that ran; the file's own was never loaded"
    assert listed(folder)["light"]["newest"] == "new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pause", "nobody"), "there is no handler 'nobody'; there are b, light, mean"),
        (("resume", "b"), "there is no handler 'b'"),
        (("show", "nobody"), "there is no handler 'nobody'"),
        (("rollback", "nobody"), "there is no handler 'nobody'"),
        (("rollback", "none.py"), "there is no handler 'none.py'"),
        (("rollback", "b.py"), "b.py: no version before it is kept"),
        (("rollback", "light", "--to", "77"), "a.py: no kept version is called '77'; there are 3abc, 2abc, 1abc"),
        (("rollback", "light", "--to", ""), 'it needs {"version": "…"}'),
    ],
)
def test_what_is_not_there_ends_with_status_1(folder: Path, arguments: tuple[str, ...], message: str):
    verb, name, *options = arguments
    result = edgefn("handlers", verb, name, folder, *options)
    assert result.exit_code == 1, result.output
    assert message in result.stderr


def test_a_gateway_that_never_ran_ends_with_status_2(tmp_path: Path):
    (tmp_path / "edgefn.toml").write_text(SETTINGS)
    result = edgefn("handlers", "list", tmp_path)
    assert result.exit_code == 2
    assert "there is no store; a gateway makes one when it starts" in result.stderr


def test_every_verb_shows_an_example(folder: Path):
    for verb in ("list", "show", "pause", "resume", "rollback"):
        assert f"Example: edgefn handlers {verb}" in edgefn("handlers", verb, "--help").output
