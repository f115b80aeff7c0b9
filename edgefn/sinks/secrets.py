"""From the option that names a password's or a token's file to the secret, or to what is wrong with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgefn.certificates import check_readable
from edgefn.credentials import find_secret, read_secret
from edgefn.errors import ConfigError, Trouble


def secret(key: str, file: str) -> str:
    """Raises ConfigError where it cannot be read."""
    try:
        return read_secret(Path(file))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{key} = {file!r} cannot be used: {why}") from error


def check_secret(key: str, file: str) -> Iterator[Trouble]:
    """What is wrong with the file; one that systemd hands over is there only where systemd started us."""
    path = find_secret(Path(file))
    if trouble := check_readable(key, str(path)):
        yield trouble
        return
    try:
        read_secret(path)
    except ValueError as error:
        yield Trouble(f"{key} = {file!r}: {error}; write the secret on its only line")
