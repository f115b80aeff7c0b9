"""Each handler that ships does with a recorded case what is written down beside it.

A case that is meant to change is written anew by the command itself, and then read:
TZ=UTC edgefn replay cases/NAME.ndjson --handlers handlers/NAME.py --json > cases/NAME.expected.ndjson
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgefn.resources import bundled
from edgefn.testing import Bench
from tests.cli.helpers import edgefn

HANDLERS = bundled("handlers")
CASES = Path(__file__).parent / "cases"
RECORDED = sorted(file.stem for file in CASES.glob("*.ndjson") if not file.stem.endswith(".expected"))


def about(value: Any) -> Any:
    """Floats as near as two processors come to one another."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-6)
    if isinstance(value, dict):
        return {name: about(one) for name, one in value.items()}
    return [about(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_case_comes_out_as_it_is_written_down(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    result = edgefn("replay", CASES / f"{name}.ndjson", "--handlers", HANDLERS / f"{name}.py", "--json")
    assert result.exit_code == 0, result.output
    got = [json.loads(line) for line in result.stdout.splitlines()]
    expected = [json.loads(line) for line in (CASES / f"{name}.expected.ndjson").read_text().splitlines()]
    assert got == about(expected)
    assert len(got) > 1, "a case in which nothing comes out shows nothing"


def test_every_handler_that_ships_has_a_case():
    shipped = {file.stem for file in HANDLERS.glob("*.py")}
    assert shipped == {*RECORDED, "csv_import"}


def test_the_rows_of_a_file_are_published():
    bench = Bench(HANDLERS / "csv_import.py")
    bench.drop(CASES / "csv_import.csv")
    assert [message.data for message in bench.published] == [
        {"ts": "2026-11-25T06:00:00Z", "room": "attic", "temperature": 21.5, "humidity": 40.0},
        {"ts": "2026-11-25T06:01:00Z", "room": "attic", "temperature": 21.7},
        {"ts": "2026-11-25T06:02:00Z", "room": "cellar, old", "temperature": -0.5, "humidity": 81.0},
    ]
    assert {(message.topic, message.qos) for message in bench.published} == {("import/readings", 1)}


def test_a_long_file_is_published_in_several_goes(tmp_path: Path):
    file = tmp_path / "long.csv"
    file.write_text("n\n" + "".join(f"{n}\n" for n in range(2500)))
    bench = Bench(HANDLERS / "csv_import.py")
    bench.drop(file)
    assert [message.data["n"] for message in bench.published] == list(range(2500))
