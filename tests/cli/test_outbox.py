"""`edgefn outbox` on a store whose gateway does not run; tests/integration/test_operator.py asks one that does."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

import pytest

from edgefn.cli import asking, remote
from edgefn.store import Commit, NewItem, Refused
from tests.cli.helpers import edgefn
from tests.store.helpers import a_store, item

SETTINGS = """
driver = []
[gateway]
id = "gw-1"
state = "state"
[[uplink]]
name = "cloud"
host = "cloud.example"
[[uplink]]
name = "archive"
host = "archive.example"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "edgefn.toml").write_text(SETTINGS)
    return tmp_path


def fill(folder: Path, *items: NewItem, refused: int = 0) -> None:
    async def run() -> None:
        async with a_store(folder / "state" / "edgefn.db", uplinks=("cloud", "archive")) as store:
            await store.commit(Commit(items))
            why = {one.id: Refused("http_422", "no such site") for one in await store.peek(refused)} if refused else {}
            await store.acknowledge("cloud", why, refused=why)

    asyncio.run(run())


def test_the_status_is_a_table_or_json(folder: Path):
    fill(folder, item(n=1), item(n=2), item("alert/spike", priority=2), refused=1)
    result = edgefn("outbox", "status", folder)
    assert result.exit_code == 0, result.output
    assert "gw-1, epoch" in result.output
    assert "no gateway runs on it" in result.output
    for row in ("cloud stopped 2 14 B", "archive stopped 3 21 B", "alert/spike high 1 7 B", "summary/minute normal 2"):
        assert row in " ".join(result.output.split()), result.output
    assert "1 dead letter; see edgefn dead list" in result.output
    assert "\x1b" not in result.output
    told = json.loads(edgefn("outbox", "status", folder, "--json").stdout)
    assert (told["running"], told["dead"], told["uplinks"]["archive"]["rows"]) == (False, 1, 3)


def test_a_peek_shows_the_oldest_rows_and_changes_nothing(folder: Path):
    fill(folder, *(item(n=n) for n in range(20)))
    result = edgefn("outbox", "peek", folder, "--limit", 3)
    assert result.exit_code == 0, result.output
    assert [f'{{"n": {n}}}' in result.output for n in (0, 2, 3)] == [True, True, False]
    rows = json.loads(edgefn("outbox", "peek", folder, "--limit", 100, "--uplink", "cloud", "--json").stdout)["items"]
    assert [row["item"]["data"]["n"] for row in rows] == list(range(20))


def test_data_cannot_paint_on_the_terminal(folder: Path):
    text = '["[bold]", ":smile:", "\x9b2J", "[/]"]'
    fill(folder, NewItem("s", text.encode(), 0))
    assert text.replace("\x9b", "�") in edgefn("outbox", "peek", folder).output


def test_dead_letters_are_looked_at_and_requeued(folder: Path):
    fill(folder, *(item(n=n) for n in range(3)), refused=2)
    result = edgefn("outbox", "peek", folder, "--dead")
    assert "1 summary/minute 1 cloud" in " ".join(result.output.split())
    assert "http_422 no such site" in " ".join(result.output.split())
    assert edgefn("outbox", "requeue", folder, "--id", 1).output == "1 requeued\n"
    result = edgefn("outbox", "requeue", folder, "--id", 1)
    assert (result.exit_code, result.output) == (1, "0 requeued\n")
    assert edgefn("outbox", "purge", folder, "--dead", "--yes").output == "1 purged\n"


def test_an_export_is_what_an_uplink_sends_and_takes_nothing_away(folder: Path):
    fill(folder, *(item(n=n, size=40) for n in range(2500)), NewItem("broken", b"{", 0), item("other", n=7))
    target = folder / "out.ndjson"
    result = edgefn("outbox", "export", folder, "--to", target)
    assert result.exit_code == 1  # one row is no JSON
    assert "2501 rows written" in result.stderr
    assert "left out: gw-1/" in result.stderr
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["data"]["n"] for line in lines] == [*range(2500), 7]
    assert set(lines[0]) == {"id", "gateway", "epoch", "stream", "seq", "ts", "data"}
    assert [path.name for path in folder.glob("out*")] == ["out.ndjson"]
    result = edgefn("outbox", "export", folder, "--stream", "other")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["stream"] == "other"
    result = edgefn("outbox", "export", folder, "--to", target)
    assert result.exit_code == 2
    assert "out.ndjson is there already" in result.output


def test_an_export_that_fails_leaves_no_file_behind(folder: Path, monkeypatch: pytest.MonkeyPatch):
    fill(folder, item())
    result = edgefn("outbox", "export", folder, "--to", folder / "out.ndjson", "--uplink", "clowd")
    assert result.exit_code == 1
    assert "there is no uplink 'clowd'; there are archive, cloud" in result.output
    assert not list(folder.glob("out*"))
    result = edgefn("outbox", "export", folder, "--to", folder / "no" / "folder" / "out.ndjson")
    assert result.exit_code == 2
    assert "cannot be written: No such file or directory" in result.output


def test_a_purge_asks_says_how_much_it_was_and_is_counted(folder: Path):
    fill(folder, item("a"), item("a"), item("b"))
    result = edgefn("outbox", "purge", folder, "--stream", "a")
    assert result.exit_code == 2
    assert "nobody is there to be asked; say --yes" in result.output
    result = edgefn("outbox", "purge", folder, "--stream", "a", "--yes")
    assert (result.exit_code, result.output) == (0, "2 purged\n")
    result = edgefn("outbox", "purge", folder, "--stream", "a", "--yes")
    assert (result.exit_code, result.output) == (1, "0 purged\n")
    told = json.loads(edgefn("outbox", "status", folder, "--json").stdout)
    assert {one["name"]: one["dropped"] for one in told["streams"]} == {"a": {"purged": 2}, "b": {}}


def test_on_a_terminal_a_purge_waits_for_a_yes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    fill(folder, item("a"), item("b"))
    asked: list[str] = []
    monkeypatch.setattr(asking, "is_terminal", lambda: True)
    monkeypatch.setattr(asking.click, "confirm", lambda question, abort: asked.append(question))
    for selection in (("--stream", "a", "--uplink", "cloud"), ("--uplink", "archive"), ("--stream", "b")):
        assert edgefn("outbox", "purge", folder, *selection).exit_code == 0
    assert asked == [
        "Give up all rows of a that wait for cloud?",
        "Give up the 2 rows that wait for archive?",
        "Give up the 1 rows of b, for all uplinks?",
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("purge", "--yes"), "say what: --stream or --uplink or both; or --dead"),
        (("purge", "--yes", "--dead", "--stream", "a"), "say what"),
        (("purge", "--yes", "--stream", "a", "--id", "3"), "say what"),
        (("requeue",), "say which dead letters: --id 3 --id 4, or --all"),
        (("requeue", "--all", "--id", "3"), "say which dead letters"),
        (("peek", "--dead", "--uplink", "cloud"), "neither --stream nor --uplink"),
    ],
)
def test_what_is_not_meant_clearly_is_refused(folder: Path, arguments: tuple[str, ...], error: str):
    fill(folder, item("a"))
    result = edgefn("outbox", arguments[0], folder, *arguments[1:])
    assert result.exit_code == 2
    assert error in result.output


def test_nothing_to_show_ends_with_status_1(folder: Path):
    fill(folder)
    assert edgefn("outbox", "status", folder).exit_code == 0
    for arguments in (("peek",), ("peek", "--dead"), ("export",)):
        assert edgefn("outbox", arguments[0], folder, *arguments[1:]).exit_code == 1


def test_without_a_store_none_is_made(folder: Path):
    result = edgefn("outbox", "status", folder)
    assert result.exit_code == 2
    assert "state/edgefn.db: there is no store; a gateway makes one when it starts" in result.output
    assert not (folder / "state").exists()


def test_a_drill_needs_a_gateway_that_runs(folder: Path):
    fill(folder)
    result = edgefn("drill", "offline", 1, folder)
    assert result.exit_code == 2
    assert "no gateway runs on this store; start it with `edgefn run`" in result.output


def test_a_gateway_that_runs_and_cannot_be_asked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "CONNECT", 0.2)
    (folder / "edgefn.toml").write_text(SETTINGS + "[broker]\nport = 1\n")
    fill(folder)

    async def run() -> None:
        async with a_store(folder / "state" / "edgefn.db", uplinks=None):
            result = await asyncio.to_thread(edgefn, "outbox", "status", folder)
            assert result.exit_code == 2
            assert "a gateway runs there, but its broker cannot be reached: 127.0.0.1:1: " in result.output
            assert "state/edgefn.db is in use by process " in result.output

    asyncio.run(run())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_leaves_beside_the_store_belongs_to_the_service():
    nobody = 65534
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "edgefn.toml").write_text(SETTINGS)
        fill(folder, item("a"))
        (folder / "state" / "edgefn.db.ballast").unlink(missing_ok=True)
        for path in (folder / "state", *(folder / "state").iterdir()):
            os.chown(path, nobody, nobody)
        assert edgefn("outbox", "export", folder, "--to", folder / "out.ndjson").exit_code == 0
        assert edgefn("outbox", "purge", folder, "--stream", "a", "--yes").exit_code == 0
        assert (folder / "state" / "edgefn.db.ballast").exists()
        assert {path.stat().st_uid for path in (folder / "state").iterdir()} == {nobody}
        assert (folder / "out.ndjson").stat().st_uid == os.geteuid() == 0


def test_looking_at_a_store_changes_nothing_about_who_gets_its_rows(folder: Path):
    """An uplink that is no longer in the settings loses its rows when the gateway starts, and not before."""
    fill(folder, item("a"))
    (folder / "edgefn.toml").write_text(SETTINGS.replace('"archive"', '"other"'))
    told = json.loads(edgefn("outbox", "status", folder, "--json").stdout)
    assert {name: one["rows"] for name, one in told["uplinks"].items()} == {"cloud": 1}
    (folder / "edgefn.toml").write_text(SETTINGS)
    told = json.loads(edgefn("outbox", "status", folder, "--json").stdout)
    assert {name: one["rows"] for name, one in told["uplinks"].items()} == {"cloud": 1, "archive": 1}
