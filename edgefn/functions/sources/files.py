"""Files that appear: each is handed over once, when nobody writes it any more, the oldest first.

A folder is looked through at the start, when it appears, and each minute: what the kernel tells in between makes it quick, but
it tells nothing of what another machine writes on a network file system, and not everything in a flood.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import Change, awatch

from edgefn.clock import NS, Clock
from edgefn.events import to_json
from edgefn.functions.sources import folder as folders
from edgefn.functions.sources.contract import Fire, HasRoom, Occurrence, wanted
from edgefn.functions.sources.folder import Found, Seen
from edgefn.functions.sources.memory import MAX_FILES, Memories
from edgefn.manifest import FunctionManifest
from edgefn.metrics import Metrics
from edgefn.settled import Settling
from edgefn.timestamps import to_iso
from edgefn.triggers import OnFile

log = logging.getLogger(__name__)

WHOLE = 60 * NS  # between two looks at all of a folder
MISSING = 30 * NS  # between two looks for one that is not there
NO_ROOM = NS // 4  # until a queue that was full is asked again, where nobody tells that it has room
WRITTEN, WRITTEN_LONG = NS, 15 * NS  # until a file that was being written is looked at again, at first and in the end
MAX_WAITING = 10_000  # of a function; what is beyond stays in its folder and is found by a later look
MAX_NAMES = 1000  # of a folder that changed; with more, all of it is looked at
AT_A_TIME = 100  # files that are looked at before they are handed over
STEP, GATHER = 1000, 2000  # ms: a thread of the library wakes up so often, and waits so long for a flood to end
CROWDED = MAX_FILES * 8 // 10  # files that lie there
HOUR = 3_600_000  # ms
ABSENT = 0, 0  # the inode of a folder that is not there
CURE = "make it, and readable for the gateway, or correct the path in @watch; it is looked for every 30 s"


@dataclass(slots=True)
class _Folder:
    path: str
    due: int  # when all of it is looked at
    looked: int = -MISSING  # when all of it was
    patterns: dict[str, set[str]] = field(default_factory=dict)  # by function
    names: set[str] = field(default_factory=set)  # that changed since the last look
    n: int = 0  # files in it
    inode: tuple[int, int] = ABSENT
    told: set[str] = field(default_factory=set)
    has_more: bool = False  # than may wait


@dataclass(slots=True)
class _Waiting:
    file: Found
    since: int
    again: int  # when it is looked at
    is_held: bool = False  # for want of room


class Files:
    """`plan`, and `run` until cancelled; tests call `look` and `offer` instead."""

    def __init__(self, fire: Fire, clock: Clock, metrics: Metrics, memories: Memories, has_room: HasRoom) -> None:
        self._fire = fire
        self._clock = clock
        self._metrics = metrics
        self._memories = memories
        self._has_room = has_room
        self._settling = Settling(clock)
        self._folders: dict[str, _Folder] = {}
        self._waiting: dict[str, dict[str, _Waiting]] = {}  # function → path
        self._crowded: set[str] = set()  # functions of which it was told
        self._woken = asyncio.Event()
        self._moved = asyncio.Event()  # other folders are there than the kernel watches

    def plan(self, functions: Sequence[FunctionManifest]) -> None:
        now = self._clock.monotonic()
        patterns: dict[str, dict[str, set[str]]] = {}
        for name, trigger in wanted(functions, OnFile):
            patterns.setdefault(trigger.folder, {}).setdefault(name, set()).add(trigger.name)
        for path in self._folders.keys() - patterns.keys():
            del self._folders[path]
            self._moved.set()
        for path, by_function in patterns.items():
            folder = self._folders.setdefault(path, _Folder(path, now))
            if folder.patterns != by_function:
                folder.patterns, folder.due = by_function, now
        names = {name for by_function in patterns.values() for name in by_function}
        self._waiting = {
            name: {path: one for path, one in self._waiting.get(name, {}).items() if self._is_wanted(name, one.file)}
            for name in names
        }
        self._woken.set()

    def wake(self) -> None:
        """A queue may have room again."""
        for one in (one for waiting in self._waiting.values() for one in waiting.values() if one.is_held):
            one.again = 0
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                self._woken.clear()
                await self.look()
                due = await self.offer()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due is None else max(0, due - self._clock.monotonic()) / NS):
                        await self._woken.wait()

    # What is there

    async def look(self) -> None:
        """Looks at what has changed, and at all of the folders for which it is time."""
        now = self._clock.monotonic()
        jobs: list[tuple[str, set[str], set[str] | None]] = []
        for folder in self._folders.values():
            names = None if folder.due <= now else folder.names
            if names is None:
                # Before the look: a plan that is made meanwhile wants another one.
                folder.due, folder.looked, folder.has_more = now + WHOLE, now, False
            if names is None or names:
                jobs.append((folder.path, set().union(*folder.patterns.values()), names))
                folder.names = set()
        if jobs:
            for seen in await asyncio.to_thread(_look_at, jobs):
                if (there := self._folders.get(seen.folder)) is not None:
                    self._take(there, seen, now)

    def _take(self, folder: _Folder, seen: Seen, now: int) -> None:
        if seen.inode != folder.inode:
            folder.inode = seen.inode
            self._moved.set()
        if seen.trouble:
            folder.due = min(folder.due, now + MISSING)
            functions = ", ".join(sorted(folder.patterns))
            # One that is not there yet is nobody's fault: a handler that ships has such a folder.
            level = logging.INFO if seen.is_missing else logging.WARNING
            self._tell(folder, "trouble", f"{functions}: {seen.trouble}; {CURE}", level)
            return
        folder.told.discard("trouble")
        if seen.links:
            self._tell(folder, "links", "symbolic links are left out; put the files themselves there")
        if seen.nameless:
            self._tell(folder, "nameless", "files whose name is no UTF-8 are left out; rename them")
        files = sorted(seen.files, key=_age)
        for function in folder.patterns:
            if seen.is_whole:
                folder.n = len(files)
                self._make_room(function, folder, files, now)
            had, waiting = self._memories[function].files, self._waiting[function]
            for file in files:
                if (known := waiting.get(file.path)) is not None:
                    known.file = file
                elif file.identity in had or not self._is_wanted(function, file):
                    continue
                elif len(waiting) < MAX_WAITING:
                    waiting[file.path] = _Waiting(file, now, now)
                else:
                    folder.has_more = True

    def _make_room(self, function: str, folder: _Folder, files: Sequence[Found], now: int) -> None:
        """Forgets files that are gone, only when it must: the files of a disk that is plugged in again are not new."""
        memory = self._memories[function]
        if memory.is_full:
            memory.keep(folders.place(folder.path), {file.identity for file in files})
            memory.keep_places({folders.place(path) for path, one in self._folders.items() if function in one.patterns})
            for one in self._waiting[function].values():
                one.again = now
        lie = sum(one.n for one in self._folders.values() if function in one.patterns)
        if lie < CROWDED:
            self._crowded.discard(function)
        elif function not in self._crowded:
            self._crowded.add(function)
            log.warning(
                "%s: %d files lie in what it watches; at %d that it was given new ones wait. "
                "Let it delete or move away what it is through with",
                function,
                lie,
                MAX_FILES,
            )

    def _is_wanted(self, function: str, file: Found) -> bool:
        folder = self._folders.get(file.folder)
        return folder is not None and any(folders.fits(file.name, one) for one in folder.patterns.get(function, ()))

    def _tell(self, folder: _Folder, what: str, message: str, level: int = logging.WARNING) -> None:
        if what not in folder.told:
            folder.told.add(what)
            log.log(level, "%s, which is watched for %s", folder.path, message)

    # What is handed over

    async def offer(self) -> int | None:
        """Hands over what is complete and has room. Returns the monotonic time of the next look; None: nothing to wait for."""
        now = self._clock.monotonic()
        self._memories.tidy()
        for function in list(self._waiting):
            due = [one for one in self._waiting.get(function, {}).values() if one.again <= now]
            due.sort(key=lambda one: _age(one.file))
            for at in range(0, len(due), AT_A_TIME):
                batch = due[at : at + AT_A_TIME]
                if pause := self._pause(function):
                    for one in due[at:]:
                        one.again, one.is_held = now + pause, True
                    break
                self._hand_over(function, batch, await asyncio.to_thread(self._states, batch), now)
        for folder in self._folders.values():
            if any(self._memories[name].is_full for name in folder.patterns):
                folder.due = min(folder.due, max(now, folder.looked + MISSING))
            elif folder.has_more and any(len(self._waiting[name]) < MAX_WAITING // 2 for name in folder.patterns):
                folder.due = now
        self._metrics.gauge("triggers.waiting.files", sum(map(len, self._waiting.values())))
        return min(self._times(), default=None)

    def _times(self) -> Iterator[int]:
        for folder in self._folders.values():
            yield folder.due
        for waiting in self._waiting.values():
            for one in waiting.values():
                yield one.again

    def _pause(self, function: str) -> int:
        """How long to wait before a file is offered; 0: now."""
        if self._memories[function].is_full:
            return MISSING
        return 0 if self._has_room(function) else NO_ROOM

    def _states(self, batch: Sequence[_Waiting]) -> list[tuple[Found | None, bool]]:
        """Each file as it is now, and whether it is being written; in a thread."""
        return [(folders.again(one.file), self._settling.is_being_written(Path(one.file.path))) for one in batch]

    def _hand_over(
        self, function: str, batch: Sequence[_Waiting], states: Sequence[tuple[Found | None, bool]], now: int
    ) -> None:
        waiting, had = self._waiting.get(function, {}), self._memories[function].files
        for one, (file, is_written) in zip(batch, states, strict=True):
            path = one.file.path
            if waiting.get(path) is not one:
                continue  # it is not wanted any more
            if file is None or file.identity in had:
                del waiting[path]
                continue
            one.file = file
            if is_written:
                one.again = now + min(max(WRITTEN, (now - one.since) // 4), WRITTEN_LONG)
            elif pause := self._pause(function):
                one.again, one.is_held = now + pause, True
            else:
                del waiting[path]
                self._come(function, file)

    def _come(self, function: str, file: Found) -> None:
        self._metrics.count("triggers.fired", reason="file")
        occurrence = Occurrence(
            topic=f"file/{file.path}",
            key=file.name,
            payload=to_json({"path": file.path, "size": file.size, "mtime": to_iso(file.mtime)}),
            ts=self._clock.now(),
            identity=file.identity,
            parts=(self._memories[function].had(file.identity),),
        )
        self._fire(function, occurrence)

    # What the kernel tells

    async def _follow(self) -> None:
        while True:
            self._moved.clear()
            there = sorted(folder.path for folder in self._folders.values() if folder.inode != ABSENT)
            stop = asyncio.Event()
            mover = asyncio.create_task(self._stop_when_moved(stop))
            try:
                if there:
                    # Its first step makes the watch and then waits: whatever comes after this look is told.
                    asyncio.get_running_loop().call_soon(self._look_at_all, there)
                    async for changes in awatch(
                        *there,
                        watch_filter=None,
                        debounce=GATHER,
                        step=STEP,
                        rust_timeout=HOUR,
                        stop_event=stop,
                        recursive=False,
                    ):
                        self._note(changes)
                await mover
            except (OSError, RuntimeError) as error:
                log.warning("%s cannot be watched, and are looked at each minute only: %s", ", ".join(there), error)
                await mover
            finally:
                stop.set()
                mover.cancel()

    async def _stop_when_moved(self, stop: asyncio.Event) -> None:
        await self._moved.wait()
        stop.set()

    def _look_at_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path in self._folders:
                self._folders[path].due = self._clock.monotonic()
        self._woken.set()

    def _note(self, changes: Iterable[tuple[Change, str]]) -> None:
        for change, path in changes:
            parent, name = os.path.split(path)
            if (folder := self._folders.get(parent)) is None:
                self._look_at_all([path])  # the folder itself has gone or changed
            elif len(folder.names) >= MAX_NAMES:
                self._look_at_all([parent])
            elif change != Change.deleted:
                folder.names.add(name)
        self._woken.set()


def _look_at(jobs: Iterable[tuple[str, set[str], set[str] | None]]) -> list[Seen]:
    return [folders.look(*job) for job in jobs]


def _age(file: Found) -> tuple[int, str]:
    return file.mtime, file.name
