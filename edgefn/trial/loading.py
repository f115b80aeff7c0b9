"""From paths to what can be tried out: handler files compiled, checked together, and refused as a whole where one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgefn.errors import Finding, HandlerError
from edgefn.manifest import Manifest, conflicts

Build = Callable[[Path, Path], Manifest]  # a file and the cache folder


def files_of(places: Iterable[Path]) -> list[Path]:
    """Files as they are, and the handler files of folders. Raises HandlerError for what is not there."""
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise HandlerError(Finding(str(place), 0, "there is no such file or folder"))
        inside = sorted(one for one in place.glob("*.py") if one.name[0] not in "._") if place.is_dir() else [place]
        if not inside:
            raise HandlerError(Finding(str(place), 0, "no handler file in this folder"))
        found += [one.resolve() for one in inside if one.resolve() not in found]
    return found


def load(files: Iterable[Path], cache: Path | None = None, build: Build | None = None) -> list[Manifest]:
    """What the cache does not have is built by `build`, by default in this process.

    Raises HandlerError with all that is wrong.
    """
    from edgefn import loader
    from edgefn.config import cache_folder

    folder = cache or cache_folder()
    manifests: list[Manifest] = []
    findings: list[Finding] = []
    for file in files:
        manifest = loader.cached(file, folder) or (build or loader.load)(file, folder)
        manifests.append(manifest)
        findings += manifest.findings
    findings += conflicts(manifests)
    if findings:
        raise HandlerError(*findings)
    return manifests
