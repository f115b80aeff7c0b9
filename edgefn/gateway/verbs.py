"""All that a running gateway can be asked to do: the verbs of `cmd/<verb>`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from edgefn.gateway.commands import CommandError, Tell, Verb, text
from edgefn.gateway.drill import Drill
from edgefn.gateway.handler_files import HandlerFiles
from edgefn.gateway.operations import Operations
from edgefn.gateway.uplinks import Uplinks
from edgefn.store import Store

BESIDE = frozenset({"drill-offline", "outbox-purge"})  # these take long: the others do not wait for them


def verbs(
    files: HandlerFiles, store: Store, uplinks: Uplinks, taken_back: Callable[[], Awaitable[None]]
) -> dict[str, Verb]:
    """By name; each gets the arguments and a function for its news, and returns its answer.

    `taken_back`: dead letters of Python handlers are invocations again.
    """

    async def pause(arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        name = text(arguments, "handler")
        if not await files.pause(name):
            raise CommandError(f"there is no handler {name!r}")
        return {"handler": name, "state": "paused"}

    async def resume(arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        name = text(arguments, "handler")
        if not await files.resume(name):
            raise CommandError(f"there is no handler {name!r}")
        return {"handler": name, "state": files.states()[name]["state"]}

    operations = Operations(store, uplinks.states, uplinks.kick, taken_back=taken_back)
    return {"pause": pause, "resume": resume, **operations.verbs, **Drill(store, uplinks).verbs}
