"""From a handler file to a validated, compiled and self-tested module and its manifest, in a short-lived process.

    python -P -m edgefn.loader --cache DIR FILE

prints how far it is, a line of JSON each time, and at the end the manifest, also in a line. A file that cannot be used
gives a manifest with findings, never an exception; only this process runs code that nobody has checked yet.
"""

from __future__ import annotations

import codecs
import importlib.util
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

import edgefn
from edgefn import aot, api, lint, machine, triggers
from edgefn.api import Handler
from edgefn.errors import Finding, HandlerError
from edgefn.manifest import FunctionManifest, HandlerManifest, Manifest, Progress
from edgefn.triggers import FunctionSpec

MAX_SOURCE = 1 << 20
# Bytes of data that loading may take, and for each handler more: 144 MB are taken for two, 331 MB for sixty.
MAX_MEMORY, MAX_MEMORY_EACH = 768 << 20, 6 << 20
Tell = Callable[[Progress], None]
COMPILED = ("engine/aot_build.py", "engine/codegen.py", "engine/compiled.py", "engine/jit.py", "kernels")


def version_of(source: bytes) -> str:
    """The hash of all that the machine code depends on: source, edgefn, its kernels, numba, Python and the CPU."""
    package = Path(edgefn.__file__).parent
    parts = [source, edgefn.__version__.encode(), machine.fingerprint()]
    for name in COMPILED:
        path = package / name
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        parts += [file.read_bytes() for file in files]
    return machine.digest(*parts)


def cached(file: Path, cache: Path) -> Manifest | None:
    """The manifest of an earlier load of the same content, or None."""
    try:
        data = (cache / f"{_module_name(version_of(plain(file.read_bytes())))}.json").read_bytes()
        manifest = msgspec.json.decode(data, type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    # The same content may have been loaded under another name.
    return msgspec.structs.replace(manifest, file=str(file), seconds=0.0) if _is_whole(manifest) else None


def _is_whole(manifest: Manifest) -> bool:
    """Whether the machine code is there too, and as good as this machine can make it."""
    module = Path(manifest.module)
    if not manifest.handlers:
        return True
    ahead = module.with_suffix(aot.SUFFIX).exists() or manifest.just_in_time or aot.unavailable()
    return module.exists() and bool(ahead)


def plain(data: bytes) -> bytes:
    """The bytes of a file as its version is made of them: editors of some systems put a mark in front."""
    return data.removeprefix(codecs.BOM_UTF8)


def load(file: Path, cache: Path, tell: Tell = lambda _: None) -> Manifest:
    """Builds the file's module in the cache folder; `tell` hears how far it is. Never raises for what stands in the file."""
    started = time.perf_counter()
    try:
        manifest = _build(file, cache, tell)
    except HandlerError as error:
        return Manifest(str(file), findings=error.findings)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        line = next((frame.lineno for frame in _frames(error, str(file))), 0)
        hint = "a handler file is imported, not run" if isinstance(error, SystemExit) else ""
        finding = Finding(str(file), line or 0, f"{type(error).__name__}: {error}", hint)
        return Manifest(str(file), findings=(finding,), traceback=traceback.format_exc())
    return msgspec.structs.replace(manifest, seconds=round(time.perf_counter() - started, 3))


def _frames(error: BaseException, file: str) -> Iterator[traceback.FrameSummary]:
    return (frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename == file)


def _build(file: Path, cache: Path, tell: Tell) -> Manifest:
    source = read_source(file)
    handlers, specs = describe(file, source)
    version = version_of(source.encode())
    name = _module_name(version)
    target = cache / f"{name}.py"
    just_in_time = _compile(file, source, handlers, target, tell) if handlers else ""
    manifest = Manifest(
        str(file),
        version,
        str(target) if handlers else "",
        tuple(HandlerManifest.of(handler) for handler in handlers),
        tuple(FunctionManifest.of(spec) for spec in specs),
        just_in_time=just_in_time,
    )
    _write(cache / f"{name}.json", msgspec.json.encode(manifest).decode())
    return manifest


def _compile(file: Path, source: str, handlers: list[Handler], target: Path, tell: Tell) -> str:
    """Returns why numba has to compile the module wherever it is imported; empty: there is a library beside it."""
    functions = lint.Functions(source, str(file))
    n = sum(handler.function is not None for handler in handlers)
    tell(Progress("compiling", 0, n))

    from edgefn.engine import codegen

    _write(target, codegen.module_source(source, handlers, functions.reached(handlers)))
    try:
        with _counted(n, tell):
            why = aot.unavailable() or _compile_ahead(target) or "its library cannot be loaded"
        with _counted(n, tell):
            module = import_module(target)
        tell(Progress("self-test", n, n))
        _self_test(module, handlers)
    except Exception as error:
        target.unlink(missing_ok=True)
        from edgefn.engine.explain import explain

        raise HandlerError(explain(error, str(file), target, source)) from error
    return "" if target.with_suffix(aot.SUFFIX).exists() or aot.unavailable() else why


def _compile_ahead(module: Path) -> str:
    """Returns why it could not be done. What is wrong with the file is found again, and explained, when numba is asked."""
    from edgefn.engine import aot_build

    sys.modules.pop(module.stem, None)  # what was imported before has nothing left to compile
    try:
        functions = aot_build.collect(lambda: import_module(module))
        if not functions:
            return "nothing in it has to be compiled"
        aot_build.build(functions, module.with_suffix(aot.SUFFIX), aot.folder(module.parent) / "support")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        sys.modules.pop(module.stem, None)
    return ""


@contextmanager
def _counted(n: int, tell: Tell) -> Iterator[None]:
    """Tells of each loop that is compiled."""
    from edgefn.engine import jit

    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        tell(Progress("compiling", min(done, n), n))

    jit.told, before = told, jit.told
    try:
        yield
    finally:
        jit.told = before


def describe(file: Path, source: str) -> tuple[list[Handler], list[FunctionSpec]]:
    """Runs the file as the plain Python it is and returns its compiled and its Python handlers.

    Raises HandlerError with all findings.
    """
    try:
        functions = lint.Functions(source, str(file))
    except SyntaxError as error:
        shown = f" in `{error.text.strip()}`" if error.text else ""
        raise HandlerError(Finding(str(file), error.lineno or 0, f"not valid Python: {error.msg}{shown}")) from error
    if wrong := lint.wrong_fields(functions):
        raise HandlerError(*wrong)
    module = run(file, source)
    handlers, specs = api.handlers_of(module.__dict__), triggers.functions_of(module.__dict__)
    findings = lint.without_arguments(functions, module.__dict__)
    if not handlers and not specs and not findings:
        raise HandlerError(
            Finding(
                str(file),
                0,
                "no handler in this file",
                "put a decorator on a function, such as @filter, @aggregate, @anomaly, @on, @every, @cron, @watch or @system",
            )
        )
    findings += lint.check(functions, handlers, module.__dict__)
    names: dict[str, Handler | FunctionSpec] = {}
    everything: list[Handler | FunctionSpec] = [*handlers, *specs]
    for handler in everything:
        if names.setdefault(handler.name, handler) is not handler:
            findings.append(
                Finding(str(file), handler.line, f"{handler.name}: defined twice in this file", "rename one")
            )
    if findings:
        raise HandlerError(*findings)
    return handlers, specs


def run(file: Path, source: str) -> ModuleType:
    """Executes a handler file as a module whose name no other module has, whatever the file is called."""
    module = ModuleType(f"edgefn_file_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    return module


def read_source(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        hint = "it was renamed or removed while it was read" if isinstance(error, FileNotFoundError) else ""
        raise HandlerError(Finding(str(file), 0, f"cannot be read: {error.strerror}", hint)) from error
    if len(data) > MAX_SOURCE:
        raise HandlerError(
            Finding(str(file), 0, f"the file has {len(data)} bytes", f"a handler file has {MAX_SOURCE} at most")
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HandlerError(Finding(str(file), 0, f"not UTF-8: {error}", "save the file as UTF-8")) from error


def _module_name(version: str) -> str:
    return f"edgefn_module_{version}"


def _write(path: Path, text: str) -> None:
    """Whole or not at all: another process may read it at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def import_module(path: Path) -> ModuleType:
    """Imports a generated module under its own unique name, compiling it where the cache does not have it.

    Its name is the hash of its content: what is loaded already, machine code included, is taken as it is.
    """
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _self_test(module: ModuleType, handlers: list[Handler]) -> None:
    """Calls every loop once over nothing: what cannot even start must not reach the engine."""
    import numpy as np

    from edgefn.engine import compiled
    from edgefn.engine.codegen import PREFIX

    loops = getattr(module, f"{PREFIX}LOOPS")
    i32, i64, counts = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(3, np.int64)
    columns = np.zeros((1, 0))
    for handler in handlers:
        if handler.function is None:
            continue
        loop, dtype, _ = loops[handler.name]
        state = compiled.no_state() if dtype is None else np.zeros(1, dtype)
        if handler.kind == "aggregate":
            loop(0, i64, i64, i32, i64, i64, columns, state, columns, np.zeros(0, np.uint8), counts)
            continue
        outputs: tuple[Any, ...] = {
            "filter": (i32,),
            "transform": (columns, i32),
            "anomaly": (np.zeros(0),),
        }[handler.kind]
        loop(0, i32, i64, i32, i64, columns, i64, 0, state, *outputs, counts)


def _roughly_handlers(file: Path) -> int:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_SOURCE).count(b"\n@")
    except OSError:
        return 0  # which is told when it is loaded


def main(arguments: list[str]) -> int:
    cache, file = Path(arguments[1]), Path(arguments[2])
    # What the author's file prints must not get between the manifest and its reader.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(5)
    # The kernel would otherwise look for somebody to kill, and may find the gateway.
    memory = MAX_MEMORY + MAX_MEMORY_EACH * _roughly_handlers(file)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    def say(what: Progress | Manifest) -> None:
        out.write(msgspec.json.encode(what) + b"\n")
        out.flush()

    manifest = cached(file, cache) or load(file, cache, say)
    say(manifest)
    out.close()
    return 0 if manifest.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
