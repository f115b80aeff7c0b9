"""Which files of a folder are handler files, and whether one may be run at all: who could have written it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import edgefn
from edgefn.errors import Finding


def is_handler_file(path: Path) -> bool:
    return path.suffix == ".py" and path.name[0] not in "._"


def handler_files(folder: Path) -> list[Path]:
    """Those that are in the folder now."""
    return [path for path in sorted(folder.glob("*.py")) if is_handler_file(path)]


def trusted_owners() -> frozenset[int]:
    """This user, root, and whoever installed edgefn and could as well change that."""
    return frozenset({os.geteuid(), 0, Path(edgefn.__file__).stat().st_uid})


def checking_owners() -> frozenset[int] | None:
    """For who only checks files: root cannot know which user the gateway will run as."""
    return trusted_owners() if os.geteuid() else None


def refusal(path: Path, owners: frozenset[int] | None) -> Finding | None:
    """What is wrong with the file's owner or mode or with those of its folder; None: nothing. `owners` None: all are right.

    A file that is not there is no matter for here: whoever reads it says so.
    """
    try:
        file, folder = path.stat(), path.parent.stat()
    except OSError:
        return None
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return _finding(
            path, f"everybody may put files into its folder {path.parent}", folder, "chmod o-w", path.parent
        )
    if not stat.S_ISREG(file.st_mode):
        return Finding(str(path), 0, "it is no file", "remove it, or give it a name that does not end in .py")
    if owners is not None and file.st_uid not in owners:
        wanted = "the user of this gateway nor root"
        return _finding(path, f"it belongs to user {file.st_uid}, who is neither {wanted}", file, "chown root", path)
    if file.st_mode & stat.S_IWOTH:
        return _finding(path, "everybody may write it", file, "chmod o-w", path)
    return None


def _finding(path: Path, what: str, status: os.stat_result, command: str, target: Path) -> Finding:
    mode = f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
    return Finding(
        str(path),
        0,
        f"it is not loaded: {what} ({mode})",
        f"when you know what is in it: {command} {shlex.quote(str(target))}",
    )
