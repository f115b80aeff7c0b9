"""The world a test makes for its processes by a preloaded library: a disk that is recorded or fails, a clock that is wrong."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

MILLION = 1_000_000
UNLIMITED = TRUE_STATE = -1

SOURCE = Path(__file__).with_name("world.c")
_built: list[Path] = []


class _Control(ctypes.Structure):
    """struct control of world.c."""

    _fields_ = (
        ("offset", ctypes.c_int64),
        ("unsynced", ctypes.c_int64),
        ("sync_ppm", ctypes.c_int64),
        ("write_ppm", ctypes.c_int64),
        ("dead", ctypes.c_int64),
        ("room", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("draws", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
    )


def library() -> Path:
    """The preload library, compiled once a test run. Skips the test where there is no C compiler."""
    if not _built:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler: sudo apt install gcc libc6-dev")
        target = Path(tempfile.mkdtemp(prefix="edgefn-world-")) / "world.so"
        command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(target), str(SOURCE)]
        subprocess.run([*command, "-ldl", "-lpthread"], check=True)
        _built.append(target)
    return _built[0]


class World:
    """`World(folder, control)`: what the processes that are started with `environment` see of the files below `folder`.

    All changes take effect at once, in all of them.
    """

    def __init__(self, folder: Path, control: Path, *, log: Path | None = None, seed: int = 1) -> None:
        library()
        self.folder = folder.resolve()
        self.log = log
        self._path = control
        control.write_bytes(bytes(ctypes.sizeof(_Control)))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._control = _Control.from_buffer(self._map)
        self._control.seed = seed
        self._control.unsynced = TRUE_STATE
        self._control.room = UNLIMITED

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to live in this world."""
        own = {"LD_PRELOAD": str(library()), "WORLD_CONTROL": str(self._path), "WORLD_FOLDER": str(self.folder)}
        return {**os.environ, **own, **({"WORLD_LOG": str(self.log)} if self.log else {})}

    @property
    def failed(self) -> int:
        """How many calls were made to fail so far."""
        return self._control.failed

    def fail(self, *, syncs: float = 0.0, writes: float = 0.0) -> None:
        """From now on so many of all calls fail with EIO: 0.05 is one in twenty."""
        self._control.sync_ppm = round(syncs * MILLION)
        self._control.write_ppm = round(writes * MILLION)

    def break_disk(self) -> None:
        """Nothing can be opened, read or written."""
        self._control.dead = 1

    def heal_disk(self) -> None:
        self._control.dead = 0

    def leave_room(self, size: int | None) -> None:
        """The files may grow by so many bytes in all; None: for ever."""
        self._control.room = UNLIMITED if size is None else size

    @property
    def room(self) -> int:
        return self._control.room

    def step_clock(self, ns: int) -> None:
        """The wall clock is ahead of the true time by `ns`; the monotonic one never is."""
        self._control.offset = ns

    def synchronised(self, known: bool) -> None:
        """What the kernel says of its clock: whether somebody sets it right."""
        self._control.unsynced = int(not known)
