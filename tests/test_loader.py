"""A handler file becomes a compiled module once for each content, and a file that cannot is told why, by its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgefn import loader
from edgefn.manifest import Manifest, duplicates

GOOD = '''"""A file."""
from edgefn import filter

def limit():
    return 3.0

@filter("t/+")
def warm(x):
    """Keeps what is warm.

    And more."""
    return x > limit()

if __name__ == "__main__":
    raise SystemExit(7)
'''
HEAD = "from typing import NamedTuple\nimport json\nimport numpy as np\nfrom edgefn import aggregate, count, filter, transform\n"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def load(tmp_path: Path, cache: Path, source: str | bytes, name: str = "handler.py") -> Manifest:
    file = tmp_path / name
    file.write_bytes(source.encode() if isinstance(source, str) else source)
    return loader.cached(file, cache) or loader.load(file, cache)


def test_a_good_file_becomes_a_module_with_a_loop_for_each_handler(tmp_path: Path, cache: Path) -> None:
    manifest = load(tmp_path, cache, GOOD)
    assert manifest.ok
    [handler] = manifest.handlers
    assert (handler.name, handler.kind, handler.pattern, handler.doc) == (
        "warm",
        "filter",
        "t/+",
        "Keeps what is warm.",
    )
    assert Path(manifest.module).parent == cache
    assert manifest.seconds > 0
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_the_same_content_is_not_compiled_again_under_any_name(tmp_path: Path, cache: Path) -> None:
    first = load(tmp_path, cache, GOOD)
    again = load(tmp_path, cache, GOOD, "other.py")
    assert again.seconds == 0
    assert (again.module, again.file) == (first.module, str(tmp_path / "other.py"))


def test_a_changed_helper_is_another_version(tmp_path: Path, cache: Path) -> None:
    assert load(tmp_path, cache, GOOD.replace("3.0", "4.0")).version != load(tmp_path, cache, GOOD).version


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path) -> None:
    module = Path(load(tmp_path, cache, GOOD).module)
    module.with_suffix(".json").write_text("{")
    assert load(tmp_path, cache, GOOD).ok
    module.unlink()
    assert load(tmp_path, cache, GOOD).ok
    assert module.exists()


def test_the_cache_is_private(tmp_path: Path) -> None:
    loader._write(tmp_path / "cache" / "file", "x")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_loaded_module_is_not_loaded_again(tmp_path: Path, cache: Path) -> None:
    path = Path(load(tmp_path, cache, GOOD).module)
    assert loader.import_module(path) is loader.import_module(path)


@pytest.mark.parametrize("name", ["json.py", "numpy.py", "with space.py", "ümläut.py"])
def test_a_file_may_have_any_name(tmp_path: Path, cache: Path, name: str) -> None:
    assert load(tmp_path, cache, GOOD, name).ok
    assert "dumps" in dir(json)


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path: Path, cache: Path) -> None:
    assert load(tmp_path, cache, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).ok


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (b"x = 1\ndef f(:\n", 2, "not valid Python"),
        (b"x = 1\n  y = 2\n", 2, "unexpected indent"),
        (b"x = '\xff'\n", 0, "not UTF-8"),
        (b"x = '\0'\n", 0, "null bytes"),
        (b"#" * (2 << 20), 0, "the file has 2097152 bytes"),
        (b"", 0, "no handler in this file"),
        (b"from edgefn import every\n@every\ndef f(): pass\n", 3, "f: @every has no arguments"),
        (
            b"from edgefn import system\n@system('disk-full')\ndef f(): pass\n",
            2,
            "@system('disk-full'): there is no such occasion",
        ),
        (b"import nothing_of_that_name\n", 1, "No module named 'nothing_of_that_name'"),
        (b"\nx = 1 / 0\n", 2, "ZeroDivisionError"),
        (b"import sys\nsys.exit(0)\n", 2, "SystemExit"),
        (b"raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        (b"from edgefn import tumbling\n\ntumbling('0s')\n", 3, "a window of no length holds nothing"),
        (b"from edgefn import tumbling\ntumbling('soon')\n", 2, "'soon' is not a duration"),
        (b"from edgefn import hopping\nhopping('1s', '2s')\n", 2, "would lose what falls between"),
        (b"from edgefn import count\ncount(0)\n", 2, "a window of no length"),
        (b"def f(): f()\nf()\n", 1, "RecursionError"),
    ],
)
def test_a_file_that_is_no_handler_file(tmp_path: Path, cache: Path, source: bytes, line: int, message: str) -> None:
    manifest = load(tmp_path, cache, source)
    [finding] = manifest.findings
    assert (finding.file, finding.line) == (str(tmp_path / "handler.py"), line)
    assert message in finding.message


def test_a_file_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    [finding] = loader.load(tmp_path / "none.py", cache).findings
    assert "cannot be read: No such file" in finding.message


@pytest.mark.parametrize(
    ("source", "line", "message", "hint"),
    [
        ("@transform('t')\ndef f(x):\n    x + 1\n", 1, "f: it returns nothing", "`return` and a value"),
        ("@transform('t')\ndef f(x):\n    if x > 0:\n        return x\n", 1, "not every way", "math.nan"),
        ("@transform('t')\ndef f(x):\n    return 'hot'\n", 2, "f: it returns a text", "NamedTuple"),
        ("@transform('t')\ndef f(x):\n    return x, x\n", 2, "f: it returns a tuple", "NamedTuple"),
        ("@aggregate('t', count(3))\ndef f(x):\n    return x\n", 2, "f: it returns an array", "NamedTuple"),
        (
            "@transform('t')\ndef f(x):\n    if x:\n        return 1.0\n    return (1.0, 2.0)\n",
            4,
            "Can't unify",
            "every branch",
        ),
        ("@transform('t')\ndef f(x):\n    return json.loads(x)\n", 3, "Unknown attribute 'loads'", "numpy, math"),
        ("@aggregate('t', count(3))\ndef f(x):\n    return x.maxx()\n", 3, "Unknown attribute 'maxx'", "spelling"),
        ("def g(a, b):\n    return a\n@filter('t')\ndef f(x):\n    return g(x) > 0\n", 5, "missing a required", ""),
        ("if True:\n    @filter('t')\n    def f(x):\n        return x > 0\n", 2, "top level", "move it out"),
    ],
)
def test_what_cannot_be_compiled_is_explained_by_its_line(
    tmp_path: Path, cache: Path, source: str, line: int, message: str, hint: str
) -> None:
    manifest = load(tmp_path, cache, HEAD + source)
    assert not manifest.ok
    finding = manifest.findings[0]
    assert message in finding.message
    assert finding.line - 4 == line
    assert hint in finding.hint
    assert not list(cache.glob("*.tmp"))


def test_defaults_and_keywords_are_handed_on_as_they_are_written(tmp_path: Path, cache: Path) -> None:
    parameters = "x, low=float('-inf'), n: int = 3, on: bool = True"
    source = f"@transform('t')\ndef f({parameters}):\n    return max(x, low) * n if on else 0.0\n"
    assert load(tmp_path, cache, HEAD + source).ok


def test_a_name_in_two_files_is_refused_in_the_second(tmp_path: Path, cache: Path) -> None:
    one, two = (load(tmp_path, cache, GOOD + f"# {n}", f"{n}.py") for n in "ab")
    [finding] = duplicates([one, two])
    assert finding.file == two.file
    assert f"already defined in {one.file}" in finding.message


def test_the_process_prints_the_manifest_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text("import os\nprint('hello')\nos.write(1, b'there')\n" + "x = 1\n")
    command = [sys.executable, "-m", "edgefn.loader", "--cache", str(cache), str(file)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    manifest = msgspec.json.decode(done.stdout, type=Manifest)
    assert done.returncode == 1
    assert manifest.findings[0].message == "no handler in this file"
    assert b"there" in done.stderr
    assert b"hello" in done.stderr


def test_a_file_that_ends_the_process_is_known_by_its_status(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "gone.py"
    file.write_text("import os\nos._exit(9)\n")
    command = [sys.executable, "-m", "edgefn.loader", "--cache", str(cache), str(file)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (9, b"")
