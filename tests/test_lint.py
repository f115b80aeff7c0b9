"""Each mistake of an author gets a finding that names the line, what is wrong, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn import loader
from edgefn.errors import Finding, HandlerError

HEAD = """import math
from dataclasses import dataclass, field
from typing import NamedTuple
import numpy as np
from edgefn import aggregate, anomaly, count, filter, hopping, summarize, transform, tumbling
"""


def findings(tmp_path: Path, source: str, head: str = HEAD) -> list[Finding]:
    """What is said about a file before anything is compiled. Lines are counted without the imports."""
    file = tmp_path / "handler.py"
    file.write_text(head + source)
    manifest_findings: tuple[Finding, ...]
    try:
        loader.describe(file, head + source)
    except HandlerError as error:
        manifest_findings = error.findings
    else:
        manifest_findings = ()
    assert all(finding.file == str(file) for finding in manifest_findings)
    lines = head.count("\n")
    return [Finding(one.file, max(0, one.line - lines), one.message, one.hint) for one in manifest_findings]


def body(statement: str) -> str:
    return f"@filter('t')\ndef f(x):\n    {statement}\n    return x > 0\n"


@pytest.mark.parametrize(
    ("statement", "message", "hint"),
    [
        ('y = f"{x}"', "an f-string", "numbers"),
        ("y = {1: x}", "a dict", "NamedTuple"),
        ("y = {i: x for i in range(3)}", "a dict", "state's fields"),
        ("y = {1, 2}", "a set", "numpy array"),
        ("y = lambda z: z", "a lambda", "helper function"),
        ("with x: pass", "a `with` block", "Python program"),
        ("import json", "an import inside", "top of the file"),
        ("from json import dumps", "an import inside", "top of the file"),
        ("global y", "`global`", "state"),
        ("yield x", "", ""),
        ("def g(): pass", "a function inside", "top of the file"),
        ("class G: pass", "a class inside", "top of the file"),
        ("print(x)", "print()", "debug"),
        ("open('a')", "open()", "Python program"),
        ("y = str(x)", "str()", "numbers"),
        ("y = eval('1')", "eval()", "expression"),
        ("y = getattr(x, 'a')", "getattr()", "attribute"),
        ("y = undefined_thing", "the name 'undefined_thing' is not defined", "above"),
        ("y = nps.mean(x)", "the name 'nps' is not defined", "did you mean np?"),
        ("del x", "`del`", "leave it away"),
    ],
)
def test_what_cannot_be_compiled_is_named_by_its_line(tmp_path: Path, statement: str, message: str, hint: str) -> None:
    found = findings(tmp_path, body(statement))
    assert found
    if message:
        assert (found[0].line, found[0].message.startswith("f: ")) == (3, True)
        assert message in found[0].message
        assert hint in found[0].hint


@pytest.mark.parametrize(
    "statement",
    [
        "y = [i for i in range(3)]",
        "y = 0 if x else 1",
        "y = math.sin(x) + np.pi",
        "y: float = 1.0",
        "for i in range(3): pass",
        "print = x; print + 1",
        "while (n := x) > 3: break",
    ],
)
def test_what_can_be_compiled_is_left_alone(tmp_path: Path, statement: str) -> None:
    assert findings(tmp_path, body(statement)) == []


def test_helpers_are_looked_at_and_other_functions_are_not(tmp_path: Path) -> None:
    source = """
def helper(x):
    return f"{x}"

def not_reached(x):
    return f"{x}"

@filter("t")
def f(x):
    return helper(x) > 0
"""
    assert [(one.line, one.message) for one in findings(tmp_path, source)] == [
        (3, "helper: an f-string cannot be compiled")
    ]


def state(fields: str, use: str = "state.mean") -> str:
    return f"@dataclass\nclass S:\n    {fields}\n@filter('t')\ndef f(x, state: S):\n    return {use} > x\n"


@pytest.mark.parametrize(
    ("source", "line", "message", "hint"),
    [
        (state("mean: float = 0.0", "state.meen"), 6, "state.meen does not exist; S has mean", "did you mean mean?"),
        (state("mean: float"), 4, "missing 1 required positional argument: 'mean'", "every field a default"),
        (state("mean: str = ''"), 4, "S.mean holds a str", "float, int, bool, numpy arrays"),
        (state("mean: object = None"), 4, "S.mean holds a NoneType", "float, int, bool"),
        (state("mean: list = field(default_factory=list)"), 4, "S.mean holds a list", "numpy arrays of fixed length"),
        (state("mean: np.ndarray = field(default_factory=lambda: np.zeros(0))"), 4, "holds a ndarray", "fixed length"),
        ("@filter('t')\ndef f(x, state):\n    return x > 0\n", 1, "its state has no type", "dataclass"),
        (
            "class S: pass\n@filter('t')\ndef f(x, state: S):\n    return x > 0\n",
            2,
            "its state has no type",
            "dataclass",
        ),
    ],
)
def test_states(tmp_path: Path, source: str, line: int, message: str, hint: str) -> None:
    [found] = findings(tmp_path, source)
    assert found.line == line
    assert message in found.message
    assert hint in found.hint


MADE = (
    "class R(NamedTuple):\n    mean: float\n    peak: float\n@transform('t')\ndef made(x) -> R:\n    return R(x, x)\n"
)


@pytest.mark.parametrize(
    "source",
    [
        "@aggregate(made, tumbling('1s'))\ndef f(maen):\n    return maen.sum()\n",
        "@filter(made)\ndef f(maen):\n    return maen > 0\n",
        "f = summarize(made, '1s', fields='maen')\n",
        "@filter(made)\ndef f0(mean):\n    return mean > 0\n@anomaly(f0, threshold=1)\ndef f(maen):\n    return maen\n",
    ],
)
def test_a_field_that_the_source_does_not_put_out(tmp_path: Path, source: str) -> None:
    [found] = findings(tmp_path, MADE + source)
    assert found.line >= 7
    assert found.message == "f: its source made puts out mean, peak, and no maen"
    assert found.hint == "did you mean mean?"


def test_a_filter_passes_on_the_fields_of_the_payload(tmp_path: Path) -> None:
    source = (
        "@filter('t')\ndef f(x):\n    return x > 0\n@aggregate(f, count(3))\ndef g(other):\n    return other.sum()\n"
    )
    assert findings(tmp_path, source) == []


def test_what_an_anomaly_puts_out(tmp_path: Path) -> None:
    source = "@anomaly('t', threshold=1)\ndef a(x):\n    return x\n@aggregate(a, count(3))\ndef g({0}):\n    return {0}.sum()\n"
    assert findings(tmp_path, source.format("score")) == []
    [found] = findings(tmp_path, source.format("x"))
    assert found.message == "g: its source a puts out score, value, raised, and no x"
    assert found.hint == "take it from a"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@filter('t')\ndef a(x):\n    return x > 0\n@filter(a)\ndef a(x):\n    return x > 1\n", "takes its place"),
        (
            "@filter('t')\ndef a(x):\n    return x > 0\n@filter(a)\ndef b(x):\n    return x > 1\na = 3\n",
            "its source a is replaced",
        ),
        (
            "@filter('t')\ndef a(x):\n    return x\n@filter('t', name='a')\ndef b(x):\n    return x\n",
            "a: defined twice in this file",
        ),
        ("def a(x): return x\n@filter(a)\ndef f(x):\n    return x > 0\n", "its source a is not a handler"),
        ("@filter('t/#/x')\ndef f(x):\n    return x > 0\n", "# can only be the last level"),
        ("@filter('t', name='a/b')\ndef f(x):\n    return x > 0\n", "name 'a/b'"),
        ("x = 1\n", "no handler in this file"),
        ("@filter\ndef f(x):\n    return True\n", "f: @filter has no arguments"),
        (
            "@filter('t')\ndef f(x):\n    return True\n@transform\ndef g(x):\n    return x\n",
            "g: @transform has no arguments",
        ),
        ("@filter('t')\ndef f():\n    return True\n", "it takes no field"),
        ("@filter('t')\ndef f(*x):\n    return True\n", "named one by one"),
        ("@filter('t')\nasync def f(x):\n    return True\n", "a compiled handler is a plain function"),
        ("@filter('t')\ndef f(x: str):\n    return True\n", "is annotated str"),
        ("@transform('t')\ndef f(x) -> str:\n    return ''\n", "its result is annotated str"),
        ("@transform('t')\ndef f(x) -> tuple:\n    return (x, x)\n", "its result is annotated tuple"),
        ("@filter('t')\ndef f(x=None):\n    return True\n", "the default of x is not a number"),
        ("@aggregate('t', '1m')\ndef f(x):\n    return x.sum()\n", "its window is '1m'"),
        ("@aggregate('t', count(1))\ndef f(x=1):\n    return x.sum()\n", "which an array of samples cannot use"),
        ("@anomaly('t', threshold=1, clear=2)\ndef f(x):\n    return x\n", "clear=2 is above threshold=1"),
        ("s = summarize('t', '1m')\n", "it does not know what to summarise"),
        ("s = summarize('t', '1m', ['p0'], fields='x')\n", "unknown statistic 'p0'"),
        (f"@filter('t')\ndef f({', '.join(f'x{i}' for i in range(63))}):\n    return True\n", "it takes 63 fields"),
        (
            f"s = summarize('t', '1m', fields={[f'x{i}' for i in range(40)]}, stats=['n'])\n"
            f"r = summarize('t', '1m', fields={[f'y{i}' for i in range(40)]}, stats=['n'])\n",
            "with it 80 fields of t are taken",
        ),
    ],
)
def test_what_is_wrong_with_a_handler_as_a_whole(tmp_path: Path, source: str, message: str) -> None:
    found = findings(tmp_path, source)
    assert any(message in one.message for one in found), found


def test_findings_come_all_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    source = body("y = f'{x}'") + state("mean: float = 0.0", "state.meen").replace("def f", "def g")
    assert [one.line for one in findings(tmp_path, source)] == [3, 10]
