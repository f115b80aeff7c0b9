"""What operators ask about handlers: which there are and how they are, stop one, let it run, go back to a version before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edgefn.errors import EdgefnError
from edgefn.gateway.commands import CommandError, Tell, Verb, text
from edgefn.gateway.versions import VersionError

MAX_LISTED = 400  # in one answer; more would not fit into a message
SHOWN = 200  # characters of an error in a list
IN_LIST = ("state", "kind", "source", "triggers", "file", "version", "rolled_back", "done", "of", "error")


class NoHandlerError(EdgefnError, LookupError):
    """There is no handler or handler file of that name."""


class Keeper(Protocol):
    """Who has the handlers: a gateway at work, or the state folder of one that stands still. All raise NoHandlerError."""

    def states(self) -> Mapping[str, dict[str, Any]]:
        """By name."""

    def versions_of(self, name: str) -> list[dict[str, Any]]:
        """The good versions of a handler's file that are kept, the newest first; empty for a name that is none."""

    async def pause(self, name: str) -> None: ...

    async def resume(self, name: str) -> None: ...

    async def roll_back(self, name: str, version: str | None = None) -> dict[str, Any]:
        """`name` is that of a handler or a file. Raises VersionError where there is none to go back to."""


class HandlerCommands:
    """The verbs, for whoever has the handlers."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"handlers": self._handlers, "pause": self._pause, "resume": self._resume, "rollback": self._roll_back}

    async def _handlers(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        states = self._keeper.states()
        if "handler" in arguments:
            name = text(arguments, "handler")
            if name not in states:
                raise CommandError(_unknown(name, states))
            return {"name": name, **states[name], "versions": self._keeper.versions_of(name)}
        names = sorted(states)
        return {
            "handlers": [{"name": name, **_short(states[name])} for name in names[:MAX_LISTED]],
            "left_out": max(0, len(names) - MAX_LISTED),
        }

    async def _pause(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        name = text(arguments, "handler")
        try:
            await self._keeper.pause(name)
        except NoHandlerError as error:
            raise CommandError(_unknown(name, self._keeper.states())) from error
        return {"handler": name, "state": "paused"}

    async def _resume(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        name = text(arguments, "handler")
        try:
            await self._keeper.resume(name)
        except NoHandlerError as error:
            raise CommandError(_unknown(name, self._keeper.states())) from error
        return {"handler": name, "state": self._keeper.states()[name]["state"]}

    async def _roll_back(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        which = [one for one in ("handler", "file") if one in arguments]
        if len(which) != 1:
            raise CommandError('it needs {"handler": "…"} or {"file": "…"}')
        name = text(arguments, which[0])
        version = text(arguments, "version") if arguments.get("version") is not None else None
        try:
            return await self._keeper.roll_back(name, version)
        except (NoHandlerError, VersionError) as error:
            raise CommandError(str(error)) from error


def _short(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without what is long, and with what becomes of its newest version in a word."""
    shown = {name: state[name] for name in IN_LIST if name in state}
    newest = state.get("newest") or {}
    if newest:
        shown["newest"] = newest["state"]
    if error := state.get("error") or newest.get("error"):
        shown["error"] = error.splitlines()[0][:SHOWN]
    return shown


def _unknown(name: str, states: Mapping[str, Any]) -> str:
    there = ", ".join(sorted(states)[:20]) or "none"
    return f"there is no handler {name!r}; there are {there}{', …' if len(states) > 20 else ''}"
