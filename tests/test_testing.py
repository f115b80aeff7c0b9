"""The fakes do what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.errors import HandlerError, TopicError
from edgefn.testing import Bench, ManualClock, MemoryBus


def test_time_passes_only_when_told() -> None:
    clock = ManualClock(now=1000)
    clock.advance("1s")
    clock.jump("-2s")
    assert (clock.now(), clock.monotonic()) == (1000 - 1_000_000_000, 1_000_000_000)


async def test_the_memory_bus_keeps_what_is_published_and_retained() -> None:
    bus = MemoryBus()
    await bus.publish("a/1", "x", retain=True)
    await bus.publish("a/2", b"y")
    await bus.publish("a/1", b"", retain=True)
    assert [message.payload for message in bus.on("a/+")] == [b"x", b"y", b""]
    assert bus.retained == {}
    with pytest.raises(TopicError):
        await bus.publish("a/#", b"")


async def test_the_memory_bus_hands_messages_to_who_has_subscribed() -> None:
    bus = MemoryBus()
    await bus.publish("a/1", b"before")
    async with bus.subscribe("a/+") as messages:
        await bus.publish("b/1", b"other")
        await bus.publish("a/2", b"this")
        async for message in messages:
            assert (message.topic, message.payload) == ("a/2", b"this")
            break


def test_a_bench_counts_what_it_cannot_decode_and_refuses_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "double.py"
    file.write_text("from edgefn import transform\n@transform('a', to='b')\ndef double(value):\n    return 2 * value\n")
    bench = Bench(file)
    bench.publish("a", b"{")
    bench.publish("a", 21)
    assert [row.values for row in bench.rows("double")] == [{"value": 42}]
    assert bench.metrics.counters["events.failed.bad_json"] == 1
    file.write_text("nonsense(")
    with pytest.raises(HandlerError, match=r"double.py:1: not valid Python"):
        Bench(file)


def test_a_bench_whose_clock_is_set_back_begins_its_windows_anew(tmp_path: Path) -> None:
    file = tmp_path / "total.py"
    file.write_text("from edgefn import summarize\ntotal = summarize('a', '1h', ('sum',), fields='value')\n")
    bench = Bench(file)
    bench.publish("a", 1)
    bench.clock.jump("-30m")
    bench.publish("a", 2)
    bench.advance("2h")
    assert [row.values for row in bench.rows("total")] == [{"sum": 1}, {"sum": 2}]
