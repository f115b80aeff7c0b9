"""Compiles modules ahead of time, into shared libraries that need no numba: `numba.pycc` and the system's C compiler.

    python -P -m edgefn.engine.aot_build --cache DIR

makes those of the engine's own modules that are missing, and prints how far it is, a line of JSON each time.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numba.pycc.cc
import numba.pycc.compiler

from edgefn import aot
from edgefn.engine import jit
from edgefn.engine.types import Signature
from edgefn.manifest import Progress

Export = tuple[jit.Function, Signature]
KEPT = 30 * 86400.0  # seconds that libraries of other versions are kept
pycc: Any = numba.pycc  # it has no annotations


def collect(run: Callable[[], object]) -> list[Export]:
    """What the modules that `run` imports have to compile."""
    jit.exports = []
    try:
        run()
        return jit.exports
    finally:
        jit.exports = None


def build(functions: Sequence[Export], target: Path, support: Path) -> None:
    """Makes a library of these functions, whole or not at all. `jit.told` hears of each.

    support: the folder for what is the same in all libraries. Raises numba's errors, and those of the C compiler.
    """
    with tempfile.TemporaryDirectory(dir=_made(target.parent), prefix="building-") as scratch, _as_jit():
        made = pycc.cc.CC(aot.NAME)
        made.target_cpu = "host"
        for function, signature in functions:
            made.export(aot.symbol(function.__name__), signature.in_numba())(function)
        objects, symbols = made._compile_object_files(scratch)
        output = Path(scratch) / target.name
        made._toolchain.link_shared(
            str(output),
            [*objects, *_support(made, support)],
            made._toolchain.get_python_libraries(),
            made._toolchain.get_python_library_dirs(),
            export_symbols=symbols,
            extra_ldflags=[*made._get_extra_ldflags(), "-Wl,-s"],  # nine tenths are for debuggers
        )
        _sync(output)
        output.replace(target)


def build_own(folder: Path, tell: Callable[[Progress], None]) -> None:
    """Makes the libraries of the engine's own modules that are missing there, and removes old ones of other versions."""
    todo = aot.missing(folder)
    by_module: dict[str, list[Export]] = {name: [] for name in todo}
    for function, signature in collect(lambda: [importlib.import_module(name) for name in aot.modules()]):
        if function.__module__ in by_module:
            by_module[function.__module__].append((function, signature))
    for number, (name, functions) in enumerate(by_module.items()):
        if not functions:
            raise RuntimeError(f"{name} was imported before; nothing of it is left to compile in this process")
        tell(Progress("compiling", number, len(todo)))
        build(functions, folder / aot.modules()[name], folder / "support")
    wanted = {file.name for file in aot.modules().values()}
    for file in folder.glob(f"*{aot.SUFFIX}"):
        if file.name not in wanted and _is_old(file):
            file.unlink(missing_ok=True)
    for other in folder.parent.iterdir():
        if other != folder and _is_old(other):
            shutil.rmtree(other, ignore_errors=True)


def _is_old(path: Path) -> bool:
    """Another edgefn on this machine may use what is not ours."""
    return time.time() - path.stat().st_mtime > KEPT


def _support(made: Any, folder: Path) -> list[str]:
    """The objects of numba's own C files: the same for all, and three seconds of work."""
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_made(folder.parent), prefix="building-") as scratch:
            made._compile_mixins(scratch)
            Path(scratch).rename(folder)
            Path(scratch).mkdir()  # which the block removes
    return sorted(map(str, folder.rglob("*.o")))


@contextmanager
def _as_jit() -> Iterator[None]:
    """pycc compiles with options of its own; here functions mean the same whenever they are compiled."""
    original = pycc.compiler.compile_extra

    def compile_extra(
        typing: Any, target: Any, function: Any, types: Any, returns: Any, flags: Any, **more: Any
    ) -> Any:
        flags.error_model = jit.OPTIONS["error_model"]
        flags.release_gil = jit.OPTIONS["nogil"]
        done = original(typing, target, function, types, returns, flags, **more)
        jit.told()
        return done

    pycc.compiler.compile_extra = compile_extra
    try:
        yield
    finally:
        pycc.compiler.compile_extra = original


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _sync(path: Path) -> None:
    """A library that a power cut has left in parts would end the engine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def main(arguments: list[str]) -> int:
    def tell(progress: Progress) -> None:
        sys.stdout.write(msgspec.json.encode(progress).decode() + "\n")
        sys.stdout.flush()

    os.nice(5)
    build_own(aot.folder(Path(arguments[1])), tell)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
