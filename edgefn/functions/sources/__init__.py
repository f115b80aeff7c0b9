"""What starts Python handlers besides MQTT: intervals, cron, files and occasions, each a source of occurrences.

    sources = Sources(scheduler.fire, clock, metrics, is_right=lambda: timekeeper.is_right, has_room=scheduler.has_room,
                      save=journal.note, state=folder_of_the_store)
    sources.restore(await store.load_checkpoint())     # once; it takes what is its own
    sources.plan(active_functions)                      # whenever they change
    await sources.run()                                 # until cancelled
    sources.occasion("clock-synced")                    # told by the gateway: "start", "stop", "clock-synced"
    sources.wake()                                      # after a step of the clock, or when a full queue has room again

`fire(name, occurrence)` takes each occurrence and applies the overflow policy of the function. For files `has_room(name)` is
asked first: one that does not fit stays in its folder and is offered again. The parts of an occurrence are to be stored with its
invocation, within ten minutes and in any order; a file whose parts were not stored is handed over again after a restart. What
`save` is given must be stored too, in order, and before what later occurrences bring.
"""

from __future__ import annotations

from edgefn.functions.sources.contract import Fire, HasRoom, Occurrence, Save, owner
from edgefn.functions.sources.sources import Sources

__all__ = ["Fire", "HasRoom", "Occurrence", "Save", "Sources", "owner"]
