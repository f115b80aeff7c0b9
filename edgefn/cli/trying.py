"""What the verbs that try handlers out share: which handlers, whose gateway, and how compiling is shown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefn.cli import common
from edgefn.config import cache_folder
from edgefn.resources import bundled

if TYPE_CHECKING:
    from edgefn.manifest import Manifest, Progress


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
    return Places(handlers, settings.gateway.id, settings.secrets_path)


def load(handlers: Iterable[Path]) -> list[Manifest]:
    """The manifests of files and folders; what the cache does not have is built in a process of its own, one after the other.

    Raises HandlerError with all that is wrong.
    """
    from rich.console import Console

    from edgefn import aot
    from edgefn.trial import loading

    cache = cache_folder()
    # The gateway's loader keeps machine code there: what it has compiled is not compiled again. Before numba is imported.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    with Console(stderr=True).status("") as status:

        def build(file: Path, cache: Path) -> Manifest:
            async def told(progress: Progress) -> None:
                status.update(f"{file.name}: {progress.state}, {progress.done} of {progress.of}")

            # Code that nobody has checked yet may do anything, also loop for ever; there it does so in a child.
            from edgefn.gateway.loading import Loader

            status.update(f"compiling {file.name}")
            return asyncio.run(Loader(cache).load(file, told))

        manifests = loading.load(loading.files_of(handlers), cache, build)
        if not aot.missing(aot.folder(cache)):
            os.environ.setdefault(aot.ENVIRONMENT, str(aot.folder(cache)))
        return manifests
