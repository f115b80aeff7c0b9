"""One bench for both kinds of handlers: what starts them, what comes out of them, and what a test sees of their mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgefn.errors import EdgefnError, HandlerError
from edgefn.testing import Bench, Published
from edgefn.trial.trial import CircleError

HOUR = 3600 * 10**9


def bench(tmp_path: Path, source: str, **options: object) -> Bench:
    file = tmp_path / "handlers_of_a_test.py"
    file.write_text(f"from edgefn import *\n{source}")
    return Bench(file, **options)  # type: ignore[arg-type]


def test_a_handler_sees_the_event_and_what_it_publishes_is_kept(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@on("sensors/{room}/motion")
async def light(event, ctx):
    await ctx.publish(f"lights/{event.key.room}/set", {"on": event["moving"]}, qos=1)
""",
    )
    one.publish("sensors/attic/motion", {"moving": True})
    one.publish("sensors/attic/climate", {"moving": True})
    (published,) = one.published
    assert published == Published("light", one.clock.now(), "lights/attic/set", b'{"on":true}', 1, False)
    assert published.data == {"on": True}


def test_state_counts_and_returned_values_are_rows(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@on("visits")
def visits(event, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + event.data
    return {"n": ctx.state["n"]}
""",
    )
    one.publish("visits", 2)
    one.publish("visits", 3)
    assert one.returned("visits") == [{"n": 2}, {"n": 5}]
    assert one.rows("visits")[1].key == "visits"
    assert one.state("visits") == {"n": 5}


def test_time_starts_what_waits_for_it_in_the_right_order(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@every("20m")
def tick():
    return "tick"

@cron("30 * * * *", zone="UTC")
def half(event):
    return event["scheduled"]
""",
    )
    one.advance("59m")
    assert one.returned("tick") == ["tick", "tick"]
    assert [row.ts % HOUR for row in one.rows("half")] == [HOUR // 2]
    assert one.returned("half")[0].endswith(":30:00.000Z")
    one.advance("24h")
    assert len(one.returned("half")) == 25


def test_cron_goes_by_the_hands_of_its_zone(tmp_path: Path):
    from edgefn.testing import ManualClock

    # 25 October 2026, 0:30 UTC: Berlin sets its clocks back at 1:00 UTC, and 6 o'clock is an hour later from then on.
    clock = ManualClock(1_792_888_200 * 10**9)
    one = bench(
        tmp_path, "\n@cron('0 6 * * *', zone='Europe/Berlin')\ndef six(event):\n    return event.ts\n", clock=clock
    )
    one.advance("48h")
    assert [row.ts // HOUR % 24 for row in one.rows("six")] == [5, 5]


def test_rows_of_a_compiled_handler_start_a_python_one(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@anomaly("boiler/{house}", threshold=80, clear=70)
def hot(flow) -> float:
    return flow

@on(hot)
def told(event):
    return [event.topic, event.key, event["state"], event["values"]["score"]]

@on("edgefn/+/alert/hot/{house}")
def heard(event):
    return event.key.house
""",
    )
    for flow in (60, 90, 60):
        one.publish("boiler/north", {"flow": flow})
    assert one.returned("told") == [["output/hot", "north", "raised", 90], ["output/hot", "north", "cleared", 60]]
    assert one.returned("heard") == ["north", "north"]


def test_what_handlers_publish_and_invoke_reaches_the_others(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@on("a", to="b")
def first(event, ctx):
    ctx.invoke(second, {"x": 1})
    ctx.invoke("second", {"x": 2})
    return 21

@on("never")
def second(event):
    return event["x"]

@on("b", "+")
def third(event):
    return event["values"]["value"] if event.topic == "b" else None

@transform("b", to="c")
def other(value) -> float:
    return value
""",
    )
    one.publish("a")
    assert one.returned("second") == [1, 2]
    assert one.returned("third") == [21]
    assert [message.topic for message in one.published] == ["b"]


def test_rows_for_the_cloud_are_kept(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@on("a/{part}", to="uplink")
def both(event, ctx):
    ctx.forward({"x": 1})
    ctx.forward([2], key="other", ts=7)
    return 3
""",
    )
    one.publish("a/b")
    now = one.clock.now()
    assert [(row.stream, row.key, row.ts, row.values) for row in one.forwarded] == [
        ("summary/both", "b", now, {"x": 1}),
        ("summary/both", "other", 7, [2]),
        ("summary/both", "b", now, 3),
    ]


def test_files_and_occasions(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@watch("/data/*.csv")
def read(event):
    return [event.topic[:6], event.key, event["size"], open(event["path"]).read()]

@system("start", "disk-low")
def noted(event):
    return event.topic
""",
    )
    file = tmp_path / "a.csv"
    file.write_text("x\n")
    one.drop(file)
    one.occur("disk-low")
    assert one.returned("read") == [["file//", "a.csv", 2, "x\n"]]
    assert one.returned("noted") == ["system/disk-low"]
    with pytest.raises(AssertionError, match=r"no handler watches for a file of the name b.txt"):
        one.drop(tmp_path / "b.txt")
    with pytest.raises(AssertionError, match="no handler waits for stop"):
        one.occur("stop")


def test_retained_messages_start_those_that_ask_for_them(tmp_path: Path):
    one = bench(
        tmp_path,
        "\n@on('a')\ndef no(event):\n    return 1\n"
        "\n@on('a', retained=True)\ndef yes(event):\n    return event.retained\n",
    )
    one.publish("a", 1, retained=True)
    assert (one.returned("no"), one.returned("yes")) == ([], [True])


def test_secrets_and_the_gateway_s_name(tmp_path: Path):
    source = "\n@on('a')\ndef f(event, ctx):\n    return [ctx.secret('token'), ctx.gateway, ctx.remaining]\n"
    one = bench(tmp_path, source, secrets={"token": "s3cret"}, gateway="attic")
    one.publish("a")
    assert one.returned("f") == [["s3cret", "attic", 10]]
    without = bench(tmp_path, source)
    with pytest.raises(EdgefnError, match="secret\\('token'\\)"):
        without.publish("a")


def test_what_a_handler_raises_comes_out_and_has_no_effect(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@on("a")
def f(event, ctx):
    ctx.state["n"] = 1
    ctx.forward({"n": 1})
    return 1 / event["x"]
""",
    )
    with pytest.raises(KeyError, match="'x' is not in the event on a, which has y"):
        one.publish("a", {"y": 1})
    with pytest.raises(ZeroDivisionError):
        one.publish("a", {"x": 0})
    assert (one.state("f"), one.forwarded, one.returned("f")) == ({}, [], [])
    one.publish("a", {"x": 2})
    assert one.returned("f") == [0.5]


def test_a_value_that_is_no_json_and_handlers_that_feed_themselves(tmp_path: Path):
    one = bench(
        tmp_path,
        """
@on("a")
def f(event):
    return object()

@on("b")
def g(event, ctx):
    ctx.publish("b", 1)
""",
    )
    with pytest.raises(EdgefnError, match="what f returned cannot be written as JSON"):
        one.publish("a")
    with pytest.raises(CircleError, match="does g feed itself"):
        one.publish("b")


def test_a_handler_that_is_switched_off_does_not_run(tmp_path: Path):
    one = bench(tmp_path, "\n@on('a', enabled=False)\ndef f(event):\n    return 1\n")
    one.publish("a")
    assert one.returned("f") == []


def test_several_files_and_what_is_wrong_between_them(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("from edgefn import on\n@on('a')\ndef f(event):\n    return 1\n")
    with pytest.raises(HandlerError, match="already defined in"):
        Bench(tmp_path)
    with pytest.raises(HandlerError, match="there is no such file"):
        Bench(tmp_path / "none.py")


async def test_an_async_handler_runs_in_an_async_test(tmp_path: Path):
    one = bench(tmp_path, "\nimport asyncio\n@on('a')\nasync def f():\n    await asyncio.sleep(0)\n    return 1\n")
    one.publish("a")
    assert one.returned("f") == [1]


def test_rows_are_json_all_the_way(tmp_path: Path):
    one = bench(tmp_path, "\n@on('a')\ndef f(event):\n    return (1, {'x': None})\n")
    one.publish("a")
    assert json.dumps(one.returned("f")) == '[[1, {"x": null}]]'
