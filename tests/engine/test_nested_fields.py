"""Fields inside objects, from a handler file through the engine's plan, whichever way a payload is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from edgefn.manifest import Manifest
from edgefn.testing import Bench
from edgefn.trial.invoke import Asked
from edgefn.trial.loading import load
from tests.engine.harness import NOW, compiled
from tests.engine.test_ingest import Rig

SOURCE = '''
"""A sensor of Tasmota's, and what is made of it."""
from dataclasses import dataclass
from typing import NamedTuple

from edgefn import aggregate, anomaly, count, field, filter, latest, summarize, transform


@filter("tele/{device}/SENSOR")
def plausible(*, t=field("AM2301.Temperature"), humidity=field("AM2301.Humidity", default=50.0)):
    return -40 < t < 85 and humidity <= 100


class Comfort(NamedTuple):
    feels: float
    wet: float


@transform(plausible, to="local")
def comfort(
    t=field("AM2301.Temperature"), again=field("AM2301.Temperature"), h: int = field("AM2301.Humidity", default=50),
    gain=latest("set/point", "am.gain", default=1.0),
) -> Comfort:
    return Comfort(gain * (t + again) / 2, h)


@aggregate(comfort, count(2))
def pair(wet, warm=field("feels")):
    return wet.sum() + warm.sum()


@aggregate(plausible, count(2))
def temperatures(x=field("AM2301.Temperature")):
    return x.mean()


@aggregate(plausible, count(2))
def humidities(x=field("AM2301.Humidity")):
    return x.mean()


@dataclass
class Seen:
    n: int = 0


@anomaly("tele/{device}/SENSOR", threshold=30)
def hot(state: Seen, t=field("AM2301.Temperature")) -> float:
    state.n += 1
    return t


both = summarize(plausible, count(2), ("max",), fields=("AM2301.Temperature", "AM2301.Humidity"), name="both")


@transform(both, to="local")
def warmest(t=field("AM2301.Temperature_max")):
    return t
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("handlers") / "tasmota.py"
    path.write_text(SOURCE)
    return path


def sensor(**fields: Any) -> dict[str, Any]:
    return {"Time": "2026-11-23T10:00:00", "AM2301": fields, "TempUnit": "C"}


def test_each_kind_of_handler_takes_them(file: Path) -> None:
    bench = Bench(file)
    bench.publish("tele/attic/SENSOR", sensor(Temperature=21.5, Humidity=40))
    bench.publish("set/point", {"am": {"gain": 2}})
    bench.publish("tele/attic/SENSOR", sensor(Temperature=31.5))  # without a humidity: the default, or not for it
    bench.publish("tele/attic/SENSOR", sensor(Temperature=31.5, Humidity=60))
    bench.publish("tele/attic/SENSOR", {"AM2301": 5})  # skipped
    rows = {
        name: [row.values for row in bench.rows(name)] for name in ("comfort", "pair", "temperatures", "humidities")
    }
    assert rows["comfort"] == [{"feels": 21.5, "wet": 40}, {"feels": 63.0, "wet": 50}, {"feels": 63.0, "wet": 60}]
    assert rows["pair"] == [{"value": 174.5}]
    assert rows["temperatures"] == [{"value": 26.5}]
    assert rows["humidities"] == [{"value": 50.0}]
    assert [row.values["value"] for row in bench.rows("hot")] == [31.5]
    summary = {"AM2301.Temperature_max": 31.5, "AM2301.Humidity_max": 60.0}
    assert [row.values for row in bench.rows("both")] == [summary]
    assert [row.values["value"] for row in bench.rows("warmest")] == [31.5]


def test_what_is_missing_is_said_with_its_path(file: Path) -> None:
    from edgefn.trial.once import run

    (manifest,) = load([file])
    answer = run(manifest, "plausible", Asked("tele/attic/SENSOR", b'{"AM2301": {"Temp": 5, "Unit": "C"}, "n": {}}'))
    said = "plausible skips it: it has no number for AM2301.Temperature; it has AM2301.Temp, AM2301.Unit (a text), n"
    assert answer.error == said


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return compiled(tmp_path_factory.mktemp("handlers"), "tasmota", SOURCE)


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize(
    "pack", [lambda fields: str(fields).replace("'", '"').encode(), msgpack.packb], ids=["json", "map"]
)
def test_they_come_through_the_ingest(manifest: Manifest, pack: Any, n: int) -> None:
    rig = Rig(manifest)
    messages = [(b"tele/attic/SENSOR", pack(sensor(Temperature=i + 0.5, Humidity=40)), 0) for i in range(n)]
    rig.take(*messages)
    assert rig.rows("tele/{device}/SENSOR") == [
        ("attic", {"AM2301.Temperature": i + 0.5, "AM2301.Humidity": 40.0}) for i in range(n)
    ]
    assert rig.plan.sources["tele/{device}/SENSOR"].table.ts[:n].tolist() == [NOW] * n
