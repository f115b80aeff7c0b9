"""Handler files compile slowly: one folder and its cache serve all tests of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.manifest import Manifest
from tests.engine.harness import compiled
from tests.engine.zoo import ZOO


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where handler files and their cache are kept for this run."""
    return tmp_path_factory.mktemp("handlers")


@pytest.fixture(scope="session")
def zoo(folder: Path) -> Manifest:
    """One of each kind of handler, compiled."""
    return compiled(folder, "zoo", ZOO)
