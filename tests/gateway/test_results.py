"""What the engine puts out becomes JSON for people and items for the outbox."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec
import numpy as np

from edgefn.fields import Field
from edgefn.gateway.results import rows
from edgefn.manifest import HandlerManifest
from edgefn.monitor import Topics
from edgefn.options import Options
from edgefn.policies import StreamPolicy
from edgefn.timestamps import to_iso
from edgefn.windows import tumbling

TOPICS = Topics("gw")
MINUTE = HandlerManifest(
    name="minute",
    kind="aggregate",
    pattern="rooms/+",
    parent=None,
    inputs=(Field("t"),),
    outputs=(Field("mean"), Field("n", "int"), Field("hot", "bool")),
    options=Options(("local", "uplink", "copies/minute"), priority=2, ttl=5, qos=1),
    line=1,
    window=tumbling("1m"),
)
SPIKE = HandlerManifest(
    name="spike",
    kind="anomaly",
    pattern="rooms/+",
    parent=None,
    inputs=(Field("t"),),
    outputs=(Field("score"), Field("value"), Field("raised", "bool")),
    options=Options(("local",), qos=1),
    line=2,
)


def output(handler: HandlerManifest, values: list[list[float]], **more: Any) -> dict[str, Any]:
    n = len(values[0])
    return {
        "handler": handler.name,
        "version": "v1",
        "labels": ["attic/north", "a+b"][:n],
        "ts": np.arange(n) + 1_790_000_000_000_000_000,
        "own": np.array(more.get("own", [1, 1]), np.uint8)[:n],
        "offset": 5,
        "n": more.get("n", np.zeros(0, np.int64)),
        "revised": more.get("revised", np.zeros(0, np.uint8)),
        "values": [np.array(column, float) for column in values],
    }


def made(handler: HandlerManifest, message: dict[str, Any], correction: int | None = 0) -> list[Any]:
    found = {("v1", handler.name): handler}
    return list(rows([message], lambda name, version: found[version, name], {5: correction}.__getitem__))


def test_a_summary_says_its_values_in_their_types_and_what_it_is_made_of() -> None:
    message = output(MINUTE, [[1.5, float("nan")], [3, 4], [1, 0]], n=np.array([3, 4]), revised=np.array([0, 1]))
    first, second = made(MINUTE, message)
    body = json.loads(first.payload)
    assert body["values"] == {"mean": 1.5, "n": 3, "hot": True}
    assert (body["key"], body["samples"], body["window_s"]) == ("attic/north", 3, 60)
    assert "revision" not in body
    later = json.loads(second.payload)
    assert later["values"]["mean"] is None  # JSON has no word for what is not a number
    assert later["revision"] is True


def test_it_goes_where_its_options_say() -> None:
    first, second = made(MINUTE, output(MINUTE, [[1, 2], [3, 4], [1, 0]], n=np.array([3, 4]), revised=np.array([0, 0])))
    item = first.item()
    assert item is not None
    assert (item.stream, item.priority, item.ttl) == ("summary/minute", 2, 5)
    local, copy = first.publications(TOPICS)
    assert (local.topic, local.retain, local.qos) == ("edgefn/gw/summary/minute/attic/north", False, 1)
    assert copy.topic == "copies/minute"
    # A key is text of a device: what a topic cannot hold is replaced.
    assert next(second.publications(TOPICS)).topic == "edgefn/gw/summary/minute/a_b"


def test_what_its_stream_may_have_goes_along_with_it_and_what_merging_it_takes() -> None:
    options = dataclasses.replace(MINUTE.options, quota=5000, on_full=("thin", "reject"))
    handler = msgspec.structs.replace(MINUTE, options=options)
    message = output(handler, [[1, 2], [3, 4], [1, 0]], n=np.array([3, 4]), revised=np.array([0, 0]))
    first, second = made(handler, {**message, "summaries": [b"one", b"two"]})
    items = [first.item(), second.item()]
    assert [item.summary for item in items] == [b"one", b"two"]
    assert {item.policy for item in items} == {StreamPolicy(5000, ("thin", "reject"))}


def test_an_alert_is_retained_and_says_its_state() -> None:
    raised, cleared = made(SPIKE, output(SPIKE, [[9, 1], [50, 20], [1, 0]]))
    assert raised.item() is None  # it is for here only
    (publication,) = raised.publications(TOPICS)
    assert (publication.topic, publication.retain) == ("edgefn/gw/alert/spike/attic/north", True)
    assert json.loads(raised.payload)["state"] == "raised"
    assert json.loads(cleared.payload)["state"] == "cleared"


def test_times_of_the_gateways_clock_are_put_right_and_those_of_devices_are_not() -> None:
    message = output(MINUTE, [[1, 2], [3, 4], [1, 0]], n=np.array([3, 4]), revised=np.array([0, 0]), own=[1, 0])
    own, device = made(MINUTE, message, 3600 * 10**9)
    assert (own.ts, device.ts) == (1_790_003_600_000_000_000, 1_790_000_000_000_000_001)
    assert json.loads(own.payload)["ts"] == to_iso(own.ts)
    assert [row.item().own_clock for row in (own, device)] == [True, False]


def test_a_time_that_is_of_a_clock_nobody_can_put_right_stays_for_good() -> None:
    (own,) = made(MINUTE, output(MINUTE, [[1], [3], [1]], n=np.array([3]), revised=np.array([0])), None)
    assert own.ts == 1_790_000_000_000_000_000
    assert not own.item().own_clock
