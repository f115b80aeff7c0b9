"""`edgefn dead` on a store whose gateway does not run: letters of uplinks and of handlers alike."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edgefn.cli import asking
from edgefn.functions.invocation import Invocation
from edgefn.store import Commit, Letter, Refused
from tests.cli.helpers import edgefn
from tests.store.helpers import START, a_store, item

SETTINGS = """
driver = []
[gateway]
id = "gw-1"
state = "state"
[[uplink]]
name = "cloud"
host = "cloud.example"
"""
TRACEBACK = 'Traceback (most recent call last):\n  File "door.py", line 7, in light\nValueError: no lamp \x1b[31m'


def a_letter(payload: bytes, key: str = "hall") -> Letter:
    invocation = Invocation("1f2e", "light", "sensors/door", payload, key, ts=START, attempt=4)
    return Letter("light", START, START, 4, "failed", TRACEBACK, invocation.letter())


def store(folder: Path) -> Path:
    return folder / "state" / "edgefn.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With three letters: one of an uplink, two of a handler."""
    (tmp_path / "edgefn.toml").write_text(SETTINGS)

    async def run() -> None:
        async with a_store(store(tmp_path)) as one:
            await one.commit(Commit((item(n=7), item(n=8))))
            (first,) = await one.peek(1)
            await one.acknowledge("cloud", [first.id], refused={first.id: Refused("http_422", "no such site")})
            await one.commit(Commit(letters=[a_letter(b'{"open":true}'), a_letter(b"\xff\x00", key="")]))

    asyncio.run(run())
    return tmp_path


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_has_letters_of_uplinks_and_of_handlers(folder: Path):
    result = edgefn("dead", "list", folder)
    assert result.exit_code == 0, result.output
    assert "1 summary/minute 1 cloud 2025-06-15T15:06:40.000Z http_422 no such site" in words(result.output)
    assert "2 sensors/door light 2025-06-15T15:06:40.000Z failed ValueError: no lamp �[31m" in words(result.output)
    assert "\x1b" not in result.output
    told = json.loads(edgefn("dead", "list", folder, "--json", "--limit", 2).stdout)["letters"]
    assert [(one["id"], one["kind"], one["uplink"]) for one in told] == [
        (1, "item", "cloud"),
        (2, "invocation", "light"),
    ]
    assert edgefn("outbox", "peek", folder, "--dead").output == edgefn("dead", "list", folder).output


def test_one_is_shown_with_all_that_it_holds(folder: Path):
    shown = words(edgefn("dead", "show", 2, folder).output)
    for told in (
        "id: 2 what: sensors/door key: hall refused by: handler light at: 2025-06-15T15:06:40.000Z attempts: 4",
        "reason: failed",
        'detail: Traceback (most recent call last): File "door.py", line 7, in light ValueError: no lamp �[31m',
        'payload: { "open": true }',
    ):
        assert told in shown, shown
    shown = words(edgefn("dead", "show", 1, folder).output)
    assert "what: summary/minute 1 refused by: uplink cloud" in shown
    assert 'payload: { "n": 7 }' in shown
    assert '"base64": "/wA="' in edgefn("dead", "show", 3, folder).output
    told = json.loads(edgefn("dead", "show", 2, folder, "--json").stdout)
    assert told["data"]["payload"] == '{"open":true}'


def test_one_that_is_not_there(folder: Path):
    edgefn("dead", "purge", folder, "--id", 2, "--yes")
    for missing in (2, 99):
        result = edgefn("dead", "show", missing, folder)
        assert (result.exit_code, result.output) == (
            1,
            f"edgefn: there is no dead letter {missing}; see edgefn dead list\n",
        )


def test_what_is_put_back_waits_for_who_refused_it(folder: Path):
    assert edgefn("dead", "requeue", folder, "--id", 2).output == "1 requeued\n"
    assert edgefn("dead", "requeue", folder, "--id", 2).exit_code == 1

    async def run() -> None:
        async with a_store(store(folder)) as one:
            assert list(await one.load_checkpoint()) == ["call 1f2e"]

    asyncio.run(run())
    assert edgefn("dead", "requeue", folder, "--all", "--json").output == '{"requeued": 2}\n'
    result = edgefn("dead", "list", folder)
    assert (result.exit_code, result.output) == (1, "edgefn: nothing matches\n")
    rows = json.loads(edgefn("outbox", "peek", folder, "--json").stdout)["items"]
    assert sorted(row["item"]["data"]["n"] for row in rows) == [7, 8]


def test_a_purge_asks_and_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    result = edgefn("dead", "purge", folder, "--all")
    assert result.exit_code == 2
    assert "nobody is there to be asked; say --yes" in result.output
    asked: list[str] = []
    monkeypatch.setattr(asking, "is_terminal", lambda: True)
    monkeypatch.setattr(asking.click, "confirm", lambda question, abort: asked.append(question))
    assert edgefn("dead", "purge", folder, "--id", 3).output == "1 purged\n"
    assert edgefn("dead", "purge", folder, "--all").output == "2 purged\n"
    assert asked == ["Throw one dead letter away?", "Throw 2 dead letters away?"]
    assert edgefn("dead", "purge", folder, "--all", "--yes").exit_code == 1
    told = json.loads(edgefn("outbox", "status", folder, "--json").stdout)
    assert {one["name"]: one["dropped"] for one in told["streams"]} == {"summary/minute": {"purged": 1}}


@pytest.mark.parametrize(
    "arguments", [("requeue",), ("purge",), ("requeue", "--all", "--id", 3), ("purge", "--all", "--id", 3)]
)
def test_what_is_not_meant_clearly_is_refused(folder: Path, arguments: tuple[object, ...]):
    result = edgefn("dead", arguments[0], folder, *arguments[1:])
    assert result.exit_code == 2
    assert "say which dead letters: --id 3 --id 4, or --all" in result.output


def test_without_a_store_none_is_made(tmp_path: Path):
    (tmp_path / "edgefn.toml").write_text(SETTINGS)
    result = edgefn("dead", "list", tmp_path)
    assert result.exit_code == 2
    assert "there is no store; a gateway makes one when it starts" in result.output
    assert not (tmp_path / "state").exists()


def test_the_help_has_an_example_for_each():
    for verb in ("list", "show", "requeue", "purge"):
        assert f"Example: edgefn dead {verb}" in edgefn("dead", verb, "--help").output
