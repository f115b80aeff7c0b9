"""Where the files that travel with edgefn are: the example handlers, the drivers and the systemd units."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def bundled(name: Literal["handlers", "hw", "systemd"]) -> Path:
    """The folder in the installed wheel, else the one in the repository. Raises FileNotFoundError where neither is."""
    candidates = (_PACKAGE / "_bundled" / name, _PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the folder {name!r} that belongs to edgefn is missing (looked for {candidates[0]} and {candidates[1]}); "
        "install edgefn again"
    )
