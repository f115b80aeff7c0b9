"""docs/kernels.md names every kernel, and its examples run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefn import kernels

TABLE = Path(__file__).parents[2] / "docs" / "kernels.md"
FACTORIES = {"window", "make_window", "sketch"}
ARGUMENTS = {"ts": 1_700_000_000_000_000_000, "acceleration": np.ones(10), "latency": np.arange(9.0)}


def rows() -> dict[str, str]:
    """The kernel that each line of the table is about, and its example."""
    found = {}
    for line in TABLE.read_text().splitlines():
        if match := re.match(r"\| `(\w+)`.*\| `(.*)`<br>`(.*)` \|$", line):
            found[match[1]] = f"{match[2]}\n{match[3]}\n"
    return found


def test_every_kernel_is_in_the_table() -> None:
    public = {name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))}
    assert set(rows()) == public - FACTORIES


def test_every_kernel_says_where_it_comes_from_and_what_nan_does() -> None:
    for name in rows():
        doc = inspect.getdoc(getattr(kernels, name)) or ""
        if not name.startswith(("sketch_", "throttle")):
            assert "NaN" in doc, name
            assert re.search(r"\d{4}|OPC UA|backward difference", doc), name


@pytest.mark.parametrize("name", rows())
def test_the_example_runs(name: str) -> None:
    namespace: dict[str, Any] = dict(vars(kernels))
    exec(compile(rows()[name], "<example>", "exec", dont_inherit=True), namespace)
    function = next(value for value in namespace.values() if is_new(value))
    parameters = inspect.signature(function).parameters
    function(*[argument(parameter, name) for parameter in parameters.values()])


def is_new(value: Any) -> bool:
    return inspect.isfunction(value) and value.__code__.co_filename == "<example>"


def argument(parameter: inspect.Parameter, kernel: str) -> Any:
    if parameter.annotation is not inspect.Parameter.empty:
        return parameter.annotation()
    if kernel == "mad":
        return np.arange(5.0)
    return ARGUMENTS.get(parameter.name, 20.0)
