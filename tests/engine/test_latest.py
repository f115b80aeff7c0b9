"""Handlers read the newest values of other topics beside their events."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.errors import HandlerError
from edgefn.testing import Bench

SOURCE = """
from edgefn import filter, latest, transform

@filter("rooms/{room}")
def too_cold(t, wanted=latest("settings/wanted", default=20.0)):
    return t < wanted

@transform(too_cold, to="heat")
def missing(t, wanted=latest("settings/wanted", default=20.0), gain=latest("settings/heater", "gain")):
    return gain * (wanted - t)
"""


def test_the_newest_value_holds_from_the_event_on_that_comes_after_it(tmp_path: Path) -> None:
    file = tmp_path / "heating.py"
    file.write_text(SOURCE)
    bench = Bench(file)
    bench.publish("rooms/attic", {"t": 18})  # there is no gain yet: skipped
    bench.publish("settings/heater", {"gain": 2})
    bench.publish("rooms/attic", {"t": 18})
    bench.publish("settings/wanted", 30)
    bench.publish("settings/wanted", b'"a text"')  # no number: the value before stays
    bench.publish("rooms/attic", {"t": 18})
    bench.publish("rooms/attic", {"t": 18, ".latest settings/wanted value": 99})  # a payload cannot pretend to be it
    assert [row.values["value"] for row in bench.rows("missing")] == [4.0, 24.0, 24.0]


def test_an_aggregate_cannot_read_it(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(
        "from edgefn import aggregate, count, latest\n"
        "@aggregate('a', count(2))\ndef wrong(x, y=latest('b')):\n    return x.sum()\n"
    )
    with pytest.raises(HandlerError, match=r"wrong\.py:2: wrong: parameter y is a latest\(\).*\n.*@transform"):
        Bench(file)


def test_the_way_that_times_are_written_can_be_said(tmp_path: Path) -> None:
    file = tmp_path / "times.py"
    file.write_text(
        "from edgefn import transform\n"
        "@transform('a', to='b', ts='s')\ndef seconds(x):\n    return x\n"
        "@transform('a', to='c', ts='arrival')\ndef arrival(x):\n    return x\n"
    )
    bench = Bench(file)
    bench.publish("a", {"x": 1, "ts": 5})  # 1970: "auto" would not believe it
    assert [row.ts for row in bench.rows("seconds")] == [5_000_000_000]
    assert [row.ts for row in bench.rows("arrival")] == [bench.clock.now()]
