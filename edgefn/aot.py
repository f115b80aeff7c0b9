"""Machine code that was compiled ahead of time: one shared library for each module, loaded without numba.

Those of the engine's own modules are in a folder of the cache, which whoever starts the engine names in its environment; that
of a handler file's module is beside it. What cannot be loaded is removed and told, and numba does its work.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sysconfig
from contextlib import suppress
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from edgefn import machine

log = logging.getLogger(__name__)

ENVIRONMENT = "EDGEFN_MACHINE_CODE"
NOTHING = "none"  # as that folder: no library is loaded, wherever it is
NAME = "edgefn_machine_code"  # of every library: what is the same in all is compiled once
SUFFIX = ".so"
PACKAGE = Path(__file__).parent
_USES_COMPILER = re.compile(r"^from edgefn\.engine\.jit import .*\bcompiled\b", re.MULTILINE)
_IMPORT = re.compile(r"^from (edgefn[\w.]*) import (.*)|^import (edgefn[\w.]*)", re.MULTILINE)


def folder(cache: Path) -> Path:
    """Where the libraries of this numba, Python and processor are."""
    return cache / "machine-code" / machine.digest(machine.fingerprint())


def unavailable() -> str:
    """Why nothing can be compiled ahead of time here, and what to install; empty: it can."""
    for variable in ("CC", "CXX"):
        command = (sysconfig.get_config_var(variable) or "").split()
        if not command or shutil.which(command[0]) is None:
            return f"no C compiler ({command[0] if command else variable}): sudo apt install gcc g++"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.exists() else f"no {header}: sudo apt install python3-dev"


@cache
def modules() -> dict[str, Path]:
    """The engine's modules that have something to compile, and the names of their libraries within a folder."""
    found = {}
    for file in sorted((PACKAGE / "engine").glob("*.py")):
        if _USES_COMPILER.search(file.read_text(encoding="utf-8")):
            name = f"edgefn.engine.{file.stem}"
            sources = (path.read_bytes() for path in sorted(_sources(file)))
            found[name] = Path(f"{name}-{machine.digest(*sources)}{SUFFIX}")
    return found


def missing(folder: Path) -> list[str]:
    """The engine's modules without a library there."""
    return [name for name, file in modules().items() if not (folder / file).exists()]


def _sources(file: Path, seen: frozenset[Path] = frozenset()) -> frozenset[Path]:
    """A module and all of edgefn that it imports: their constants become part of the machine code."""
    seen |= {file}
    for package, names, module in _IMPORT.findall(file.read_text(encoding="utf-8")):
        base = PACKAGE.parent.joinpath(*(package or module).split("."))
        below = (base / f"{name.split()[0]}.py" for name in names.split(",") if name.strip())
        for path in (base.with_suffix(".py"), *below):
            if path not in seen and path.exists():
                seen = _sources(path, seen)
    return seen


def symbol(name: str) -> str:
    """What a function is called in its library: an author's names may have letters that no linker takes."""
    return "".join(letter if letter.isascii() else f"_{ord(letter):x}_" for letter in name)


def load(path: Path) -> ModuleType | None:
    """The library at that place, if there is one."""
    if os.environ.get(ENVIRONMENT) == NOTHING or not path.exists():
        return None
    try:
        spec = spec_from_file_location(NAME, path, loader=ExtensionFileLoader(NAME, str(path)))
        assert spec is not None
        assert spec.loader is not None
        library = module_from_spec(spec)
        spec.loader.exec_module(library)
    except ImportError as error:
        log.error("%s cannot be loaded (%s); it is removed, and numba compiles in its place", path, error)
        with suppress(OSError):
            path.unlink()
        return None
    return library


def own(module: str) -> ModuleType | None:
    """The library of one of the engine's own modules; None where numba has to do its work."""
    return _libraries().get(module)


def is_used() -> bool:
    """Whether the engine's own modules have their machine code from libraries, in this process."""
    return bool(_libraries())


@cache
def _libraries() -> dict[str, ModuleType]:
    """All or none: what numba compiles cannot call what it has not compiled itself."""
    given = os.environ.get(ENVIRONMENT)
    if not given:
        return {}
    libraries = {}
    for name, file in modules().items():
        library = load(Path(given) / file)
        if library is None:
            return {}
        libraries[name] = library
    return libraries
