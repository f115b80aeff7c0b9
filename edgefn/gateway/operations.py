"""What an operator does to the outbox, over MQTT or on the command line: look into it, send again, throw away.

Arguments and results are JSON values. The same verbs work on the store of a running gateway and on one that stands still.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from edgefn.errors import PayloadError
from edgefn.events import from_json, to_json
from edgefn.gateway.commands import CommandError, Tell, Verb
from edgefn.sinks.envelope import envelope
from edgefn.store import DeadLetter, Item, Store
from edgefn.timestamps import to_iso

log = logging.getLogger(__name__)

MAX_STREAMS = 500  # told in one answer; there are as many as handlers, and those of earlier epochs that left drops
PAGE = 200 << 10  # bytes of rows in one answer, which has 256 kB at most
SHOWN = 1000  # bytes of a payload that is too large for an answer, or no JSON
NEWS = 5.0  # seconds between two messages of how far a purge is: a thousand rows take a transaction
AT_A_TIME = 64  # rows fetched at once: a row may have 1 MB, and a page must not take the memory of a small computer
PRIORITIES = ("low", "normal", "high")

T = TypeVar("T", bound=msgspec.Struct)
Stored = TypeVar("Stored", Item, DeadLetter)
Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1, le=1000)]


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Peek(msgspec.Struct, forbid_unknown_fields=True):
    limit: Limit = 10
    after: Count = 0
    stream: str | None = None
    uplink: str | None = None


class _Dead(msgspec.Struct, forbid_unknown_fields=True):
    limit: Limit = 10
    after: Count = 0


class _Letters(msgspec.Struct, forbid_unknown_fields=True):
    """Some dead letters by their ids, or all."""

    ids: tuple[int, ...] = ()
    all: bool = False

    def chosen(self) -> tuple[int, ...] | None:
        if bool(self.ids) == self.all:
            raise CommandError('it needs {"ids": [1, 2]} or {"all": true}')
        return None if self.all else self.ids


class _Purge(msgspec.Struct, forbid_unknown_fields=True):
    stream: str | None = None
    uplink: str | None = None


def checked(arguments: Mapping[str, Any], kind: type[T]) -> T:
    """The arguments of a verb. Raises CommandError for a wrong one, and for one that it does not know."""
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"{error}; it takes {', '.join(kind.__struct_fields__) or 'nothing'}") from error


class Operations:
    """The verbs about the outbox of one store.

    `states` tells how the uplinks are, by name; `kick` tells them that there is something to send; `taken_back` that dead
    letters of handlers are invocations again; `page` bounds the bytes of the rows in one answer.
    """

    def __init__(
        self,
        store: Store,
        states: Callable[[], Awaitable[Mapping[str, Mapping[str, Any]]]],
        kick: Callable[[], None] = lambda: None,
        page: int = PAGE,
        taken_back: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._states = states
        self._kick = kick
        self._taken_back = taken_back
        self._page = page

    @property
    def verbs(self) -> dict[str, Verb]:
        return {
            "outbox-status": self.status,
            "outbox-peek": self.peek,
            "outbox-purge": self.purge,
            "dead-peek": self.dead_peek,
            "dead-requeue": self.dead_requeue,
            "dead-purge": self.dead_purge,
        }

    async def status(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        """What waits, for whom and of what; `position` is above all of it."""
        checked(arguments, _Nothing)
        totals = await self._store.totals()
        streams = [one for one in await self._store.streams() if one.rows or one.dropped or one.epoch == totals.epoch]
        streams.sort(key=lambda one: -one.bytes)
        return {
            "gateway": self._store.gateway,
            "epoch": totals.epoch,
            "position": totals.position,
            "bytes": totals.bytes,
            "dead": totals.dead,
            "uplinks": await self._states(),
            "streams": [
                {
                    "name": one.name,
                    "epoch": one.epoch,
                    "rows": one.rows,
                    "bytes": one.bytes,
                    "priority": PRIORITIES[one.priority],
                    "dropped": one.dropped,
                }
                for one in streams[:MAX_STREAMS]
            ],
            "streams_left_out": max(0, len(streams) - MAX_STREAMS),
        }

    async def peek(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        """The oldest rows after a position, each as the cloud will see it; `next` is where to go on, null at the end."""
        asked = checked(arguments, _Peek)
        await self._check_uplink(asked.uplink)

        def fetch(limit: int, after: int) -> Awaitable[list[Item]]:
            return self._store.peek(limit, after=after, stream=asked.stream, uplink=asked.uplink)

        rows, more = await self._page_of(asked.limit, asked.after, fetch, self._row)
        return {"items": rows, "next": more}

    async def purge(self, arguments: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Gives up what waits of one stream, or for one uplink, or both; counted as dropped, `purged`."""
        asked = checked(arguments, _Purge)
        if not asked.stream and not asked.uplink:
            raise CommandError('it needs {"stream": "…"} or {"uplink": "…"}, or both')
        await self._check_uplink(asked.uplink)
        work = asyncio.ensure_future(self._store.purge(stream=asked.stream, uplink=asked.uplink))
        try:
            while not (await asyncio.wait({work}, timeout=NEWS))[0]:
                await tell({"waiting": (await self._store.totals()).waiting})
        finally:
            work.cancel()
        n = work.result()
        log.warning(
            "an operator purged %d rows of %s for %s", n, asked.stream or "all streams", asked.uplink or "all uplinks"
        )
        return {"purged": n}

    async def dead_peek(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        """What uplinks refused for good and handlers could not do, the oldest first."""
        asked = checked(arguments, _Dead)

        def fetch(limit: int, after: int) -> Awaitable[list[DeadLetter]]:
            return self._store.dead(limit, after=after)

        letters, more = await self._page_of(asked.limit, asked.after, fetch, self._letter)
        return {"letters": letters, "next": more}

    async def dead_requeue(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        """Puts dead letters back: before the handler that failed, or for the uplink that refused them, under their old keys."""
        n = await self._store.requeue(checked(arguments, _Letters).chosen())
        log.warning("an operator requeued %d dead letters", n)
        self._kick()
        if self._taken_back is not None:
            await self._taken_back()
        return {"requeued": n}

    async def dead_purge(self, arguments: dict[str, Any], _: Tell) -> dict[str, Any]:
        """Throws dead letters away; counted as dropped, `purged`."""
        n = await self._store.purge_dead(checked(arguments, _Letters).chosen())
        log.warning("an operator purged %d dead letters", n)
        return {"purged": n}

    async def _check_uplink(self, name: str | None) -> None:
        if name is not None and name not in (names := sorted(await self._states())):
            raise CommandError(f"there is no uplink {name!r}; there are {', '.join(names) or 'none'}")

    async def _page_of(
        self,
        limit: int,
        after: int,
        fetch: Callable[[int, int], Awaitable[list[Stored]]],
        show: Callable[[Stored], dict[str, Any]],
    ) -> tuple[list[msgspec.Raw], int | None]:
        """At most `limit` rows and a page of bytes, but one row at least; and where to go on, None at the end."""
        shown: list[msgspec.Raw] = []
        size = 0
        while len(shown) < limit:
            wanted = min(AT_A_TIME, limit - len(shown))
            found = await fetch(wanted, after)
            for one in found:
                row = to_json(show(one))
                size += len(row) + 1
                if shown and size > self._page:
                    return shown, after
                shown.append(msgspec.Raw(row))
                after = one.id
            if len(found) < wanted:
                return shown, None
        return shown, after

    def _row(self, item: Item) -> dict[str, Any]:
        told = {
            "position": item.id,
            "key": item.key,
            "priority": PRIORITIES[item.priority],
            "bytes": len(item.payload),
            "unsynced": item.unsynced,
        }
        try:
            return {**told, "item": msgspec.Raw(envelope(self._small(item)))}
        except PayloadError as error:
            return {**told, "error": str(error), "begins": _beginning(item.payload)}

    def _letter(self, letter: DeadLetter) -> dict[str, Any]:
        told = {
            "id": letter.id,
            "kind": letter.kind,
            "key": letter.key,
            "stream": letter.stream,
            "uplink": letter.uplink,
            "at": to_iso(letter.at),
            "reason": letter.reason,
            "detail": letter.detail,
            "bytes": len(letter.payload),
        }
        try:
            from_json(self._small(letter).payload)
        except PayloadError as error:
            return {**told, "error": str(error), "begins": _beginning(letter.payload)}
        return {**told, "data": msgspec.Raw(letter.payload)}

    def _small(self, one: Stored) -> Stored:
        if len(one.payload) > self._page - 2 * SHOWN:
            raise PayloadError("too_large", f"{len(one.payload)} bytes do not fit into an answer")
        return one


def _beginning(payload: bytes) -> str:
    return payload[:SHOWN].decode(errors="replace")
