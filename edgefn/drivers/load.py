"""From the name or path that a configuration gives to the driver in a file.

Driver files are found without running them, since importing one may need a library that only its users install.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import sys
import traceback
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgefn.drivers.contract import MARK, Driver
from edgefn.errors import DriverError
from edgefn.resources import bundled


@dataclass(frozen=True, slots=True)
class Found:
    """A driver seen in a file that has not been run."""

    name: str
    file: Path
    summary: str


def list_drivers(folders: Sequence[Path | str] = ()) -> list[Found]:
    """All drivers in the folders and the bundled ones; of those with the same name, the first folder's."""
    found: dict[str, Found] = {}
    for folder in _search_order(folders):
        for file in sorted(folder.glob("*.py")):
            for driver in _scan(file):
                found.setdefault(driver.name, driver)
    return list(found.values())


def load_driver(use: str | Path, folders: Sequence[Path | str] = ()) -> Driver:
    """The driver called `use`, or the one in the file `use`; `path.py:name` picks one where a file has several.

    Names are looked for in `folders` in order, and then in the bundled one. Raises DriverError.
    """
    path, _, name = str(use).partition(".py:")
    if name or str(use).endswith(".py"):
        file = Path(path + ".py" if name else path).expanduser()
        if not file.is_absolute():
            file = next((f / file for f in _search_order(folders) if (f / file).is_file()), file)
        if not file.is_file():
            raise DriverError(f"driver {str(use)!r}: there is no file {file}")
        return _pick(str(use), name, file)
    known = list_drivers(folders)
    for driver in known:
        if driver.name == use:
            return _pick(str(use), driver.name, driver.file)
    names = [driver.name for driver in known]
    close = difflib.get_close_matches(str(use), names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(names))}"
    where = ", ".join(str(folder) for folder in _search_order(folders))
    raise DriverError(f"no driver is called {str(use)!r}; {hint} (looked in {where})")


def _search_order(folders: Sequence[Path | str]) -> list[Path]:
    return [*(Path(folder).expanduser() for folder in folders), bundled("hw")]


def _scan(file: Path) -> Iterator[Found]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        # Whoever asks for this file by its name is told what is wrong with it.
        yield Found(file.stem, file, "(cannot be read)")
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            _is_driver(decorator) for decorator in node.decorator_list
        ):
            yield Found(node.name, file, (ast.get_docstring(node) or "").partition("\n")[0])


def _is_driver(decorator: ast.expr) -> bool:
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    return getattr(decorator, "id", getattr(decorator, "attr", "")) == "driver"


def _pick(use: str, name: str, file: Path) -> Driver:
    drivers = {
        value.__dict__[MARK].name: value.__dict__[MARK]
        for value in vars(_import(use, file)).values()
        if callable(value) and MARK in getattr(value, "__dict__", {})
    }
    if not name and len(drivers) == 1:
        name = next(iter(drivers))
    if name in drivers:
        return drivers[name]  # type: ignore[no-any-return]
    there = ", ".join(f"{file}:{other}" for other in drivers) or "none: decorate one with @driver"
    raise DriverError(f"driver {use!r}: {file} does not say which one; it has {there}")


def _import(use: str, file: Path) -> ModuleType:
    file = file.resolve()
    # Below a name of ours, so that hw/serial.py does not hide a top-level module; once per file, whatever its drivers.
    module_name = f"edgefn.drivers.file_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        missing = f"; install {error.name!r}" if isinstance(error, ModuleNotFoundError) else ""
        raise DriverError(
            f"driver {use!r}: {file}:{_line(error, file)}: {type(error).__name__}: {error}{missing}"
        ) from error
    return module


def _line(error: BaseException, file: Path) -> int:
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    return next(
        (frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__)[::-1] if frame.filename == str(file)),
        0,
    )
