"""All that a running gateway can be asked to do: the verbs of `cmd/<verb>`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edgefn.gateway.commands import Verb
from edgefn.gateway.drill import Drill
from edgefn.gateway.handler_commands import HandlerCommands
from edgefn.gateway.handler_files import HandlerFiles
from edgefn.gateway.operations import Operations
from edgefn.gateway.uplinks import Uplinks
from edgefn.store import Store

BESIDE = frozenset({"drill-offline", "outbox-purge", "rollback"})  # these take long: the others do not wait for them


def verbs(
    files: HandlerFiles, store: Store, uplinks: Uplinks, taken_back: Callable[[], Awaitable[None]]
) -> dict[str, Verb]:
    """By name; each gets the arguments and a function for its news, and returns its answer.

    `taken_back`: dead letters of Python handlers are invocations again.
    """
    operations = Operations(store, uplinks.states, uplinks.kick, taken_back=taken_back)
    return {**HandlerCommands(files).verbs, **operations.verbs, **Drill(store, uplinks).verbs}
