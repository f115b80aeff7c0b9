"""Machine code made ahead of time: where it is, what makes it old, and what happens where it is missing or damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgefn import aot, loader
from edgefn.aot import unavailable
from edgefn.config import cache_folder
from edgefn.engine import aot_build, topic_numbers
from edgefn.engine.codegen import PREFIX
from edgefn.manifest import Manifest, Progress

pytestmark = pytest.mark.timeout(900)  # where nothing has been made yet, all is made here
needs_compiler = pytest.mark.skipif(bool(unavailable()), reason=unavailable())

FILE = """
from edgefn import anomaly, filter
from edgefn.kernels import Deadband, deadband

@filter("a", name="bigger")
def größer(x):
    return 1 / x > 2.0

@anomaly("a", threshold=1.0)
def out_of_range(x, state: Deadband) -> float:
    values = [1.0, 2.0]
    return values[int(x)] + deadband(state, x, 1.0)
"""


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot, "unavailable", unavailable)


def load(folder: Path, source: str = FILE) -> tuple[Path, Manifest]:
    file = folder / "handlers.py"
    file.write_text(source)
    manifest = loader.load(file, folder / "cache")
    assert manifest.ok, manifest
    return file, manifest


def library(manifest: Manifest) -> Path:
    return Path(manifest.module).with_suffix(".so")


@pytest.fixture(scope="module")
def own() -> Path:
    """The libraries of the engine's own modules, as `make setup` has made them."""
    command = [sys.executable, "-P", "-m", "edgefn.engine.aot_build", "--cache", str(cache_folder())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return aot.folder(cache_folder())


@needs_compiler
def test_the_engine_runs_without_numba(own: Path) -> None:
    program = (
        "import sys, edgefn.engine.engine\n"
        "from edgefn.engine import number_kernels\n"
        "print('numba' in sys.modules, type(number_kernels._nearest).__name__)\n"
    )
    environment = {**os.environ, aot.ENVIRONMENT: str(own)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "builtin_function_or_method"]


@needs_compiler
def test_nothing_is_made_twice_and_what_is_old_goes(own: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    new, old = own / "edgefn.engine.frames-0123456789abcdef.so", own / "edgefn.engine.frames-fedcba9876543210.so"
    other = own.parent / "another-machine"
    new.write_bytes(b"")
    old.write_bytes(b"")
    other.mkdir(exist_ok=True)
    for path in (old, other):
        os.utime(path, (time.time() - aot_build.KEPT - 60,) * 2)
    aot_build.build_own(own, told.append)
    assert (told, aot.missing(own), new.exists(), old.exists(), other.exists()) == ([], [], True, False, False)
    new.unlink()


@needs_compiler
def test_a_library_says_what_numba_says(own: Path) -> None:
    """One of the engine's own loops, called both ways."""
    made = aot.load(own / aot.modules()["edgefn.engine.topic_numbers"])
    assert made is not None
    data = np.frombuffer(b"a/b" + b"c" * 61, np.uint8).copy()
    rows = np.zeros((1, 8), np.int64)
    rows[0, [topic_numbers.TOPIC, topic_numbers.TOPIC_LENGTH]] = 0, 3
    numbers = topic_numbers.TopicNumbers()
    numbers.add(b"x/y")
    number = numbers.add(b"a/b")
    out = np.full(1, -7, np.int32)
    made._look_up(
        data, rows, np.uint64(numbers._seed), numbers._slots, numbers._hashes, numbers._starts, numbers._text, out
    )
    assert out.tolist() == [number]


def test_a_constant_of_another_module_makes_a_library_old() -> None:
    engine = aot.PACKAGE / "engine"
    sources = aot._sources(engine / "payload_kernels.py")
    assert {aot.PACKAGE / "events.py", engine / "json_kernels.py", engine / "jit.py"} <= sources
    assert engine / "nodes.py" not in sources


@needs_compiler
@pytest.mark.usefixtures("ahead")
def test_a_handler_file_gets_a_library_whatever_its_handlers_are_called(tmp_path: Path) -> None:
    file, manifest = load(tmp_path)
    assert library(manifest).exists()
    assert loader.cached(file, tmp_path / "cache") is not None
    loops = getattr(loader.import_module(Path(manifest.module)), f"{PREFIX}LOOPS")
    assert {type(loop).__name__ for loop, _, _ in loops.values()} != {"CPUDispatcher"}


@needs_compiler
@pytest.mark.usefixtures("ahead")
def test_a_library_that_is_gone_is_made_again(tmp_path: Path) -> None:
    file, manifest = load(tmp_path)
    library(manifest).unlink()
    assert loader.cached(file, tmp_path / "cache") is None


def test_without_a_compiler_numba_compiles_until_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, manifest = load(tmp_path)  # the tests' own aot.unavailable says that there is none
    assert not library(manifest).exists()
    assert loader.cached(file, tmp_path / "cache") is not None
    monkeypatch.setattr(aot, "unavailable", lambda: "")
    assert loader.cached(file, tmp_path / "cache") is None


def test_what_cannot_be_made_ahead_is_left_to_numba_and_not_tried_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(aot, "unavailable", lambda: "")
    monkeypatch.setattr(aot_build, "build", build)
    file, manifest = load(tmp_path)
    assert manifest.just_in_time == "OSError: No space left on device"
    assert loader.cached(file, tmp_path / "cache") is not None


def test_a_damaged_library_is_removed_and_numba_does_its_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, manifest = load(tmp_path, FILE + "# once more\n")
    library(manifest).write_bytes(b"\x7fELF, and then the power went")
    module = Path(manifest.module)
    sys.modules.pop(module.stem)
    assert getattr(loader.import_module(module), f"{PREFIX}LOOPS")
    assert not library(manifest).exists()
    assert f"{library(manifest)} cannot be loaded" in caplog.text


@needs_compiler
@pytest.mark.usefixtures("ahead")
def test_an_engine_in_doubt_loads_no_library_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, manifest = load(tmp_path, FILE + "# in doubt\n")
    assert aot.load(library(manifest)) is not None
    monkeypatch.setenv(aot.ENVIRONMENT, aot.NOTHING)
    assert aot.load(library(manifest)) is None
    assert library(manifest).exists()


@pytest.mark.parametrize(
    ("missing", "told"),
    [("compiler", "no C compiler (none-such): sudo apt install gcc g++"), ("header", "python3-dev")],
)
def test_it_says_what_to_install(missing: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "compiler":
        monkeypatch.setattr(aot.sysconfig, "get_config_var", lambda name: "none-such -pthread")
    else:
        monkeypatch.setattr(aot.sysconfig, "get_config_var", lambda name: "true")
        monkeypatch.setattr(aot.sysconfig, "get_path", lambda name: str(tmp_path))
    assert told in unavailable()
