"""What the verbs that try handlers out share: which handlers, whose gateway, and how compiling is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefn.cli import common
from edgefn.config import cache_folder
from edgefn.resources import bundled

if TYPE_CHECKING:
    from edgefn.manifest import Manifest


LOAD_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are: those of the gateway whose settings are in this folder, if there is one."""

    handlers: tuple[Path, ...]
    gateway: str
    secrets: Path


def places(handlers: tuple[Path, ...] = ()) -> Places:
    """`handlers`: those that were named. Raises ConfigError."""
    settings = common.load(None)
    if not handlers:
        own = settings.gateway.handlers
        handlers = (Path(own),) if own else (bundled("handlers"),)
    return Places(handlers, settings.gateway.id, Path(settings.gateway.state) / "secrets")


def load(handlers: Iterable[Path]) -> list[Manifest]:
    """The manifests of files and folders; what the cache does not have is built in a process of its own, one after the other.

    Raises HandlerError with all that is wrong.
    """
    from rich.console import Console

    from edgefn.trial import loading

    cache = cache_folder()
    # The gateway's loader keeps machine code there: what it has compiled is not compiled again. Before numba is imported.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    with Console(stderr=True).status("") as status:

        def build(file: Path, cache: Path) -> Manifest:
            status.update(f"compiling {file.name}")
            return _build(file, cache)

        return loading.load(loading.files_of(handlers), cache, build)


def _build(file: Path, cache: Path) -> Manifest:
    """Code that nobody has checked yet may do anything, also loop for ever; here it does so in a child."""
    import msgspec

    from edgefn.errors import Finding
    from edgefn.manifest import Manifest

    command = [sys.executable, "-m", "edgefn.loader", "--cache", str(cache), str(file)]
    try:
        # What the file prints when it is imported is its author's to see.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LOAD_TIMEOUT)
        return msgspec.json.decode(done.stdout, type=Manifest)
    except subprocess.TimeoutExpired:
        trouble = f"it did not load within {LOAD_TIMEOUT:g} s; does it loop when it is imported?"
    except msgspec.DecodeError:
        trouble = f"the loader ended with status {done.returncode}; does the file crash when it is imported?"
    return Manifest(str(file), findings=(Finding(str(file), 0, trouble),))
