"""edgefn store: what an operator reads when the gateway is stopped."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edgefn.store.files import Lock
from tests.cli.helpers import edgefn
from tests.store.test_salvage import filled, leaves, spoil


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a gateway's settings, with a store."""
    (tmp_path / "edgefn.toml").write_text('[gateway]\nstate = "state"\n')
    (tmp_path / "state").mkdir()
    asyncio.run(filled(tmp_path / "state" / "edgefn.db", 300))
    return tmp_path


def test_a_sound_store_in_words_and_as_json(folder: Path):
    for where in (folder, folder / "state"):
        done = edgefn("store", "check", str(where))
        assert done.exit_code == 0, done.stderr
        assert "s0" in done.stdout
        assert "all is well" in done.stderr
    report = json.loads(edgefn("store", "check", str(folder), "--json").stdout)
    assert report["findings"] == []
    assert report["rows"] == 260


def test_findings_end_with_1_and_what_cannot_be_read_with_2(folder: Path):
    spoil(folder / "state" / "edgefn.db", leaves(folder / "state" / "edgefn.db", "item_1")[1])
    done = edgefn("store", "check", str(folder))
    assert done.exit_code == 1
    assert "rows are missing" in done.stdout

    with Lock(folder / "state" / "edgefn.db"):
        busy = edgefn("store", "check", str(folder))
    assert busy.exit_code == 2
    assert "has this store open; stop it first" in busy.stderr
    (folder / "state" / "edgefn.db").unlink()
    assert edgefn("store", "check", str(folder)).exit_code == 2


def test_salvage_says_what_it_took_and_what_not(folder: Path, tmp_path: Path):
    other = tmp_path / "elsewhere" / "old.db"
    other.parent.mkdir()
    asyncio.run(filled(other, 300))
    spoil(other, leaves(other, "item_1")[1])
    done = edgefn("store", "salvage", str(other), str(folder))
    assert done.exit_code == 1, done.stderr
    assert "items cannot be read and are counted as dropped (damaged)" in done.stdout
    done = edgefn("store", "salvage", str(other), str(folder))
    assert done.exit_code == 0
    assert "was taken over before" in done.stdout
    itself = edgefn("store", "salvage", str(folder / "state" / "edgefn.db"), str(folder))
    assert itself.exit_code == 2
    assert "a gateway that starts mends it" in itself.stderr
