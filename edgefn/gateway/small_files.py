"""Small files of JSON in the state folder: written whole or not at all, and a damaged one costs itself only."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_BYTES = 1 << 20  # of a file that is read: larger ones are not ours


def read(path: Path, kind: type[T]) -> T | None:
    """None where it is not there, and where it cannot be used, which is told."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("%s cannot be used and is left aside: %s", path, error)
        return None


def write(path: Path, value: object) -> None:
    write_bytes(path, msgspec.json.encode(value))


def write_bytes(path: Path, data: bytes) -> None:
    """On the disk when it returns, under its name only when it is whole. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # the name, too, survives a power cut
    finally:
        os.close(folder)
