"""Items to files of newline-delimited JSON or Parquet: written as `*.part`, and under their real name once complete."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from edgefn.clock import NS, Clock, SystemClock
from edgefn.errors import AccessError, NotConnectedError, PayloadError, Trouble
from edgefn.metrics import Metrics
from edgefn.sinks import FilePath, Refusal, parquet
from edgefn.sinks.envelope import envelope

if TYPE_CHECKING:
    from edgefn.store import Item

log = logging.getLogger(__name__)

PART = ".part"


class FileOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: FilePath
    format: Literal["ndjson", "parquet"] = "ndjson"
    rotate_bytes: Annotated[int, msgspec.Meta(ge=1)] = 8 << 20
    rotate_s: Annotated[float, msgspec.Meta(gt=0)] = 3600.0


class FileSink:
    """Appends batches to `<gateway>-<UTC time>-<n>.ndjson.part`; an item is delivered when it is synced to the disk.

    A file is complete when it is large enough, when it is too old (also while nothing comes), and on close. Then it is
    renamed to `*.ndjson`. Parquet can be read only once its end is written, so its items go to the same `.part` first;
    that is removed when the `*.parquet` of them is on the disk. Several gateways may share a folder.
    """

    Options: ClassVar[type[msgspec.Struct]] = FileOptions

    def __init__(
        self, options: FileOptions, *, gateway: str, metrics: Metrics | None = None, clock: Clock | None = None
    ) -> None:
        self._folder = Path(options.folder)
        self._rotate_bytes = options.rotate_bytes
        self._rotate_s = options.rotate_s
        self._format = options.format
        self._gateway = gateway
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self._guard = threading.Lock()  # not asyncio's: a cancelled send goes on in its thread
        self._connected = False
        self._fd = -1
        self._part = Path()
        self._size = 0
        self._began = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rotation: asyncio.Task[None] | None = None
        self.bytes_sent = 0

    def check(self, now: int) -> Iterator[Trouble]:
        there = next(folder for folder in (self._folder, *self._folder.parents) if os.path.exists(folder))
        if not there.is_dir():
            yield Trouble(f"folder = {str(self._folder)!r}: {there} is not a folder")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Trouble(
                f"folder = {str(self._folder)!r}: this user (uid {os.geteuid()}) cannot write in {there}; "
                "see that the one who runs edgefn can",
                fatal=False,
            )
        if self._format == "parquet" and not parquet.is_installed():
            yield Trouble(parquet.MISSING)

    async def connect(self) -> None:
        """Makes the folder, and completes what a crash left. Raises AccessError where Parquet is not installed."""
        if not self._connected:
            if self._format == "parquet" and not parquet.is_installed():
                raise AccessError(parquet.MISSING)
            await asyncio.to_thread(self._recover)
            self._connected = True

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        if not self._connected:
            raise NotConnectedError(f"{self._folder}: not connected; call connect first")
        lines: list[bytes] = []
        refused: list[Refusal] = []
        for item in items:
            try:
                lines.append(envelope(item) + b"\n")
            except PayloadError as error:
                refused.append(Refusal(item.id, error.reason, str(error)))
        if lines:
            await asyncio.to_thread(self._append, b"".join(lines))
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._rotate_s, self._rotate_soon)
        return refused

    async def rotate(self) -> None:
        """Completes the file that is being written, if there is one. Raises NotConnectedError."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        await asyncio.to_thread(self._finish)

    async def close(self) -> None:
        self._connected = False
        await self.rotate()

    def _rotate_soon(self) -> None:
        self._timer = None
        self._rotation = asyncio.create_task(self._rotate_quietly())

    async def _rotate_quietly(self) -> None:
        try:
            await asyncio.to_thread(self._finish)
        except NotConnectedError as error:  # the items are safe in the .part file, which the next connect completes
            log.warning("%s", error)
            self._metrics.count("sink.file.failed", reason="rotate")

    def _append(self, data: bytes) -> None:
        with self._guard, self._disk_errors():
            if self._fd >= 0 and self._clock.monotonic() - self._began >= self._rotate_s * NS:
                self._complete()
            if self._fd < 0:
                self._begin()
            try:
                view = memoryview(data)
                while view:
                    written = os.write(self._fd, view)
                    self.bytes_sent += written
                    view = view[written:]
                os.fsync(self._fd)
                if not os.fstat(self._fd).st_nlink:  # somebody removed it: nobody would ever see these lines
                    raise FileNotFoundError(errno.ENOENT, "the file was removed while it was written", str(self._part))
                self._size += len(data)
            except OSError:
                os.ftruncate(self._fd, self._size)  # half a line must not stay: the batch comes again
                raise
            if self._size >= self._rotate_bytes:
                self._complete()

    def _finish(self) -> None:
        with self._guard, self._disk_errors():
            if self._fd >= 0:
                self._complete()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._connected = False
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            where = error.filename or self._folder
            raise NotConnectedError(
                f"{where}: {error.strerror}; the file sink needs a folder that it can write in, with room"
            ) from error

    def _begin(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.now() // NS))
        for n in itertools.count(1):
            part = self._folder / f"{self._gateway}-{stamp}-{n}.ndjson{PART}"
            if part.with_suffix("").exists() or _parquet(part).exists():
                continue
            with contextlib.suppress(FileExistsError):
                self._fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
                break
        self._part, self._size, self._began = part, 0, self._clock.monotonic()
        self._sync_folder()

    def _complete(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._publish(self._part)

    def _publish(self, part: Path) -> None:
        """Makes a complete `.part` what others may read. May be done again after a crash at any point of it."""
        target = _parquet(part)
        if self._format == "parquet":
            unfinished = target.with_name(target.name + PART)
            try:
                parquet.convert(part, unfinished)
            except parquet.ConversionError as error:
                # Of use as it is, and a file that cannot be converted must not hold up those after it.
                log.warning("%s: stays JSON, since it cannot be made Parquet: %s", part.with_suffix(""), error)
                self._metrics.count("sink.file.failed", reason="parquet")
                unfinished.unlink(missing_ok=True)
            else:
                os.rename(unfinished, target)
                self._sync_folder()
        if target.exists():
            part.unlink()
        else:
            os.rename(part, part.with_suffix(""))
        self._sync_folder()

    def _recover(self) -> None:
        ours = re.compile(rf"{re.escape(self._gateway)}-\d{{8}}T\d{{6}}Z-\d+\.(ndjson|parquet)\{PART}")
        with self._guard, self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            for part in list(self._folder.iterdir()):
                found = ours.fullmatch(part.name)
                if not found or (self._fd >= 0 and part == self._part):
                    continue
                if found[1] == "parquet":
                    # Half a file; its items are still in the `.ndjson.part`, and may have just become a whole one.
                    part.unlink(missing_ok=True)
                elif whole := _whole_lines(part):
                    os.truncate(part, whole)  # the rest was never acknowledged and comes again
                    self._publish(part)
                else:
                    part.unlink()
            self._sync_folder()

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _parquet(part: Path) -> Path:
    return part.with_suffix("").with_suffix(".parquet")


def _whole_lines(path: Path) -> int:
    """How many bytes of the file are complete lines."""
    block = 1 << 16
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
    return 0
