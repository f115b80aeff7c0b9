"""What operators are answered about handlers: short in a list, all of one, and a refusal that says what there is."""

from __future__ import annotations

from typing import Any

import pytest

from edgefn.gateway.commands import CommandError
from edgefn.gateway.handler_commands import MAX_LISTED, HandlerCommands, NoHandlerError
from edgefn.gateway.versions import VersionError


class Keeper:
    def __init__(self, states: dict[str, dict[str, Any]]) -> None:
        self._states = states

    def states(self) -> dict[str, dict[str, Any]]:
        return self._states

    def versions_of(self, name: str) -> list[dict[str, Any]]:
        return [{"version": "1", "running": True, "handlers": [name]}]

    async def pause(self, name: str) -> None:
        await self.resume(name)
        self._states[name]["state"] = "paused"

    async def resume(self, name: str) -> None:
        if name not in self._states:
            raise NoHandlerError(name)
        self._states[name]["state"] = "active"

    async def roll_back(self, name: str, version: str | None = None) -> dict[str, Any]:
        if version == "bad":
            raise VersionError("no such version")
        return {"name": name, "to": version}


async def ask(states: dict[str, dict[str, Any]], verb: str, **arguments: Any) -> Any:
    async def tell(news: Any) -> None: ...

    return await HandlerCommands(Keeper(states)).verbs[verb](arguments, tell)


def state(**more: Any) -> dict[str, Any]:
    return {"state": "active", "kind": "filter", "source": "t", "file": "/a.py", "version": "1", **more}


async def test_a_list_is_short_and_one_handler_is_told_in_full():
    long = state(meter={"ns": 3}, newest={"state": "failed", "error": "x" * 1000 + "\ny", "traceback": "z"})
    states = {"b": long, "a": {"state": "compiling", "done": 1, "of": 3, "file": "/a.py"}}
    assert await ask(states, "handlers") == {
        "handlers": [
            {"name": "a", "state": "compiling", "done": 1, "of": 3, "file": "/a.py"},
            {"name": "b", **state(newest="failed", error="x" * 200)},
        ],
        "left_out": 0,
    }
    told = await ask(states, "handlers", handler="b")
    assert told == {"name": "b", **long, "versions": [{"version": "1", "running": True, "handlers": ["b"]}]}


async def test_a_list_is_bounded():
    told = await ask({str(n): state() for n in range(MAX_LISTED + 7)}, "handlers")
    assert (len(told["handlers"]), told["left_out"]) == (MAX_LISTED, 7)


async def test_a_handler_is_paused_resumed_and_rolled_back():
    states = {"a": state()}
    assert await ask(states, "pause", handler="a") == {"handler": "a", "state": "paused"}
    assert await ask(states, "resume", handler="a") == {"handler": "a", "state": "active"}
    assert await ask(states, "rollback", handler="a") == {"name": "a", "to": None}
    assert await ask(states, "rollback", file="a.py", version="3") == {"name": "a.py", "to": "3"}


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("handlers", {"handler": "c"}, "there is no handler 'c'; there are a, b"),
        ("pause", {"handler": "c"}, "there is no handler 'c'; there are a, b"),
        ("resume", {}, "it needs"),
        ("rollback", {}, 'it needs {"handler": "…"} or {"file": "…"}'),
        ("rollback", {"handler": "a", "file": "a.py"}, "it needs"),
        ("rollback", {"handler": "a", "version": 3}, "it needs"),
        ("rollback", {"handler": "a", "version": "bad"}, "no such version"),
    ],
)
async def test_what_is_wrong_with_a_command(verb: str, arguments: dict[str, Any], message: str):
    with pytest.raises(CommandError) as caught:
        await ask({"a": state(), "b": state()}, verb, **arguments)
    assert message in str(caught.value)
