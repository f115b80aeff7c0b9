"""The outbox empties into a sink: in order, deleted only after acknowledgement, whatever the sink does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.bus import BrokerAddress, Bus
from edgefn.errors import AccessError, NotConnectedError, StoreError
from edgefn.metrics import Metrics
from edgefn.sinks import Refusal, load_sink
from edgefn.store import Commit, Item
from edgefn.uplink import Uplink, UplinkOptions
from tests.broker import make_broker
from tests.store.helpers import TurnedClock, a_store, item
from tests.uplink.helpers import Consumer, bench, running, settled


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_what_is_committed_arrives_and_leaves_the_store(path: Path) -> None:
    async with running(path) as one:
        await one.commit("a", "b", "a")
        await one.empty()
        assert [(message["stream"], message["seq"]) for message in one.sink.received] == [("a", 1), ("b", 1), ("a", 2)]
        state = await one.uplink.state()
        assert (state["state"], state["sent"], state["rows"], state["last_error"]) == ("connected", 3, 0, "")
        assert one.metrics.counters["uplink.cloud.sent"] == 3
    assert one.sink.closed


async def test_while_idle_it_does_nothing_at_all(path: Path) -> None:
    async with running(path) as one:
        await one.commit("a")
        await one.empty()
        reads = 0
        read = one.store.read

        async def counting(*args: Any, **options: Any) -> list[Item]:
            nonlocal reads
            reads += 1
            return await read(*args, **options)

        one.store.read = counting  # type: ignore[method-assign]
        for _ in range(100):
            await asyncio.sleep(0)
        assert reads <= 1  # the one that found nothing
        assert one.sleeps.none


async def test_a_few_items_wait_a_little_for_others(path: Path) -> None:
    async with running(path, batch_age_ms=200) as one:
        await one.commit("a")
        assert one.sink.received == []
        await one.commit("a")
        assert await one.sleeps.next() == 0.2
        await one.empty()
        assert len(one.sink.received) == 2


async def test_back_off_doubles_up_to_the_cap_and_starts_again_after_success(path: Path) -> None:
    async with running(path) as one:
        one.sink.lose_connection()
        await one.commit("a")
        assert [await one.sleeps.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
        state = await one.uplink.state()
        assert (state["state"], state["rows"]) == ("backoff", 1)
        assert state["last_error"] == "the fake cloud is unreachable"
        one.sink.restore_connection()
        await one.sleeps.next()
        await one.empty()
        assert (await one.uplink.state())["last_error"] == ""
        one.sink.lose_connection()
        await one.commit("a")
        assert await one.sleeps.next() == 0.5


async def test_the_jitter_is_full(path: Path) -> None:
    async with bench(path) as one:
        uplink = Uplink("cloud", one.store, one.sink, clock=one.clock, metrics=one.metrics, sleep=one.sleeps)
        one.sink.lose_connection()
        task = asyncio.create_task(uplink.run())
        waits = [await one.sleeps.next() for _ in range(5)]
        assert all(0 <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
        task.cancel()
        await asyncio.wait({task})


async def test_a_broker_that_connects_and_then_fails_is_not_hurried(path: Path) -> None:
    async with running(path) as one:
        for _ in range(3):
            one.sink.lose_acknowledgement(after=0)
        await one.commit("a")
        assert [await one.sleeps.next() for _ in range(3)] == [0.5, 1, 2]
        await one.empty()
        assert len(one.sink.received) == 1


async def test_a_line_that_never_holds_for_a_whole_batch_is_given_smaller_ones(path: Path) -> None:
    async with running(path) as one:
        for _ in range(100):
            one.sink.lose_acknowledgement(after=5)
        await one.commit(*["a"] * 100)
        while (await one.store.stats("cloud")).rows:
            if not one.sleeps.none:
                await one.sleeps.next()
            await asyncio.sleep(0.001)
        consumer = Consumer()
        for message in one.sink.received:
            consumer.take(message)
        assert consumer.counted == 100


async def test_who_is_not_let_in_waits_long_at_once_and_says_why(path: Path) -> None:
    async with bench(path) as one:

        async def refused() -> None:
            raise AccessError("cloud: bad user name or password")

        one.sink.connect = refused  # type: ignore[method-assign]
        task = asyncio.create_task(one.uplink.run())
        assert await one.sleeps.ask() == 60
        state = await one.uplink.state()
        assert (state["state"], state["last_error"]) == ("refused", "cloud: bad user name or password")
        assert state["next_try_s"] == 60
        one.clock.turn(45)
        assert (await one.uplink.state())["next_try_s"] == 15
        task.cancel()
        await asyncio.wait({task})


async def test_who_is_asked_to_come_later_does_and_not_all_at_once(path: Path) -> None:
    async with bench(path) as one:
        asked = [20.0, 1e9]

        async def busy() -> None:
            raise NotConnectedError("cloud: busy", retry_after=asked.pop(0))

        one.sink.connect = busy  # type: ignore[method-assign]
        task = asyncio.create_task(one.uplink.run())
        assert await one.sleeps.next() == 20 + 0.5
        assert await one.sleeps.ask() == 3600 + 1
        task.cancel()
        await asyncio.wait({task})


async def test_minutes_without_running_bring_one_try_and_no_burst(path: Path) -> None:
    async with running(path) as one:
        one.sink.lose_connection()
        await one.commit("a")
        assert await one.sleeps.ask() == 0.5
        one.clock.turn(600)
        one.sleeps.go()
        assert await one.sleeps.ask() == 1
        await settled()
        assert one.sink.connects == 2
        assert one.sleeps.none


async def test_a_bug_in_a_sink_is_logged_and_ends_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(path) as one:
        send = one.sink.send

        async def broken(items: object) -> None:
            one.sink.send = send  # type: ignore[method-assign]
            raise ZeroDivisionError("a bug")

        one.sink.send = broken  # type: ignore[assignment,method-assign]
        await one.commit("a")
        await one.sleeps.next()
        await one.empty()
        assert one.metrics.counters["uplink.cloud.failed.ZeroDivisionError"] == 1
        assert "ZeroDivisionError" in caplog.text


async def test_an_item_that_the_sink_cannot_digest_is_found_and_the_others_arrive(path: Path) -> None:
    async with running(path, batch_size=16) as one:
        send = one.sink.send
        stored = await one.store.commit(Commit([item("a", n) for n in range(40)]))
        culprit = stored[21]

        async def choking(items: Sequence[Item]) -> Sequence[Refusal]:
            if culprit in items:
                raise ValueError("cannot digest this")
            return await send(items)

        one.sink.send = choking  # type: ignore[method-assign]
        one.uplink.kick()
        while (await one.store.stats("cloud")).rows:
            if not one.sleeps.none:
                await one.sleeps.next()
        assert [message["seq"] for message in one.sink.received] == [n for n in range(1, 41) if n != culprit.seq]
        (letter,) = await one.store.dead(10)
        assert (letter.key, letter.reason, letter.detail) == (
            culprit.key,
            "sink_error",
            "ValueError('cannot digest this')",
        )
        assert one.metrics.counters["uplink.cloud.failed.ValueError"] < 10


async def test_refused_items_are_counted_and_hold_nothing_up(path: Path) -> None:
    async with bench(path) as one:
        stored = await one.commit("a", "a", "a")
        one.sink.refuse[stored[1].key] = "too_large"
        task = asyncio.create_task(one.uplink.run())
        await one.empty()
        assert [message["seq"] for message in one.sink.received] == [1, 3]
        assert [(letter.key, letter.reason) for letter in await one.store.dead(9)] == [(stored[1].key, "too_large")]
        state = await one.uplink.state()
        assert (state["sent"], state["refused"]) == (2, 1)
        assert one.metrics.counters["uplink.cloud.refused.too_large"] == 1
        task.cancel()
        await asyncio.wait({task})


async def test_cut_it_sends_nothing_and_restored_everything(path: Path) -> None:
    async with running(path) as one:
        await one.commit("a")
        await one.empty()
        await one.uplink.cut()
        await one.uplink.cut()
        assert one.sink.closed
        await one.commit("a", "a")
        await settled()
        state = await one.uplink.state()
        assert (state["state"], state["rows"]) == ("cut", 2)
        assert (len(one.sink.received), one.sink.connects) == (1, 1)
        one.uplink.restore()
        await one.empty()
        assert (await one.uplink.state())["state"] == "connected"
        assert [message["seq"] for message in one.sink.received] == [1, 2, 3]


async def test_a_cut_does_not_wait_for_what_is_under_way_nor_for_the_next_try(path: Path) -> None:
    async with running(path) as one:
        send, under_way = one.sink.send, asyncio.Event()

        async def endless(items: object) -> None:
            under_way.set()
            await asyncio.Event().wait()

        one.sink.send = endless  # type: ignore[assignment,method-assign]
        await one.commit("a")
        await under_way.wait()
        await one.uplink.cut()
        one.sink.send = send  # type: ignore[method-assign]
        one.sink.lose_connection()
        one.uplink.restore()
        assert await one.sleeps.ask() == 0.5
        assert (await one.uplink.state())["state"] == "backoff"
        one.sink.restore_connection()
        await one.uplink.cut()
        one.uplink.restore()
        await one.empty()
        assert len(one.sink.received) == 1


async def test_what_arrived_before_a_cut_is_not_sent_again(path: Path) -> None:
    async with running(path, patience_s=1000) as one:
        await one.commit("a")
        while not one.sink.received:
            await asyncio.sleep(0)
        await one.uplink.cut()
        assert (await one.store.stats("cloud")).rows == 0


async def test_a_sink_that_does_not_close_harms_nobody(path: Path) -> None:
    async with running(path) as one:
        close = one.sink.close

        async def broken() -> None:
            one.sink.close = close  # type: ignore[method-assign]
            raise OSError("the disk is gone")

        one.sink.close = broken  # type: ignore[method-assign]
        await one.commit("a")
        await one.empty()
        await one.uplink.cut()
        one.uplink.restore()
        await one.commit("a")
        await one.empty()
        assert len(one.sink.received) == 2


async def test_low_priority_is_not_starved_by_a_steady_load_of_high(path: Path) -> None:
    async with bench(path, batch_size=5) as one:
        await one.commit(*["low"] * 5, priority=0)
        await one.commit(*["high"] * 50, priority=2)
        task = asyncio.create_task(one.uplink.run())
        await one.empty()
        order = [message["stream"] for message in one.sink.received]
        assert order[:15] == ["high"] * 15
        assert order[15:20] == ["low"] * 5
        task.cancel()
        await asyncio.wait({task})


async def test_where_the_disk_fails_after_sending_it_is_acknowledged_later_and_not_sent_again(path: Path) -> None:
    async with running(path) as one:
        acknowledge = one.store.acknowledge

        async def failing(*args: Any, **options: Any) -> None:
            one.store.acknowledge = acknowledge  # type: ignore[method-assign]
            raise StoreError("store.db: the disk is full")

        one.store.acknowledge = failing  # type: ignore[method-assign]
        await one.commit("a", "a")
        assert await one.sleeps.next() == 0.5
        await one.empty()
        assert [message["seq"] for message in one.sink.received] == [1, 2]


async def test_an_acknowledgement_goes_along_with_the_next_commit(path: Path) -> None:
    async with running(path, patience_s=1000) as one:
        await one.commit("a")
        while not one.uplink._owed:
            await asyncio.sleep(0)
        assert (await one.store.stats("cloud")).rows == 1
        await one.commit("a")
        assert (await one.store.stats("cloud")).rows == 1
        while len(one.sink.received) < 2:
            await asyncio.sleep(0)
    # Stopping does not wait for it, and does not forget it either.
    async with a_store(path) as store:
        assert (await store.stats("cloud")).rows == 0


async def test_a_damaged_row_does_not_stop_the_uplink(path: Path) -> None:
    async with bench(path) as one:
        await one.commit("a", "a", "a")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE item_1 SET crc = 0 WHERE seq = 1")
    db.close()
    async with running(path) as one:
        one.uplink.kick()
        await one.empty()
        assert [message["seq"] for message in one.sink.received] == [2, 3]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_a_consumer_counts_exactly_over_lost_acknowledgements_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Parts of batches arrive without being acknowledged, and the gateway restarts in between."""
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("outbox") / "store.db"
    consumer = Consumer()
    committed = 0
    for _ in range(3):
        async with bench(path, batch_size=7) as one:
            for _ in range(rng.randrange(4)):
                one.sink.lose_acknowledgement(after=rng.randrange(8))
            for _ in range(rng.randrange(1, 6)):
                streams = rng.choices("abc", k=rng.randrange(1, 12))
                for stream in streams:
                    await one.commit(stream, priority="abc".index(stream))
                committed += len(streams)
            task = asyncio.create_task(one.uplink.run())
            stop = rng.random() < 0.5
            while (await one.store.stats("cloud")).rows and not (stop and rng.random() < 0.2):
                if not one.sleeps.none:
                    await one.sleeps.next()
            task.cancel()
            await asyncio.wait({task})
        for message in one.sink.received:
            consumer.take(message)
    async with running(path) as one:
        one.uplink.kick()
        await one.empty()
    for message in one.sink.received:
        consumer.take(message)
    assert consumer.counted == committed


class Wire:
    """A TCP relay in front of a broker, to cut while messages and acknowledgements are under way."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.mark.integration
async def test_over_mqtt_with_the_wire_cut_again_and_again_nothing_is_lost_and_nothing_skips(path: Path) -> None:
    consumer = Consumer()
    with make_broker() as broker:
        async with (
            a_store(path) as store,
            Wire(broker.port) as wire,
            Bus(BrokerAddress(broker.host, broker.port), client_id="cloud-side") as far,
            far.subscribe("edgefn/gw-1/#", qos=1, max_queue=100_000) as messages,
        ):
            await far.wait_connected(10)
            await store.commit(Commit([item("ab"[n % 2], n) for n in range(3000)]))
            sink = load_sink("mqtt", {"host": "127.0.0.1", "port": wire.port, "timeout_s": 5.0}, gateway="gw-1")
            options = UplinkOptions(batch_size=100, backoff_s=0.01)
            uplink = Uplink("cloud", store, sink, clock=TurnedClock(), metrics=Metrics(), options=options)
            sending = asyncio.create_task(uplink.run())
            cuts = [350, 1730]
            async with asyncio.timeout(30):
                async for message in messages:
                    consumer.take(json.loads(message.payload))
                    if cuts and consumer.counted >= cuts[0]:
                        cuts.pop(0)
                        wire.cut()
                    if consumer.counted == 3000:
                        break
                while (await store.stats("cloud")).rows:
                    await asyncio.sleep(0.01)
            sending.cancel()
            await asyncio.wait({sending})
    assert consumer.repeated > 0


async def test_acknowledgements_wait_for_commits_that_are_far_apart(path: Path) -> None:
    async with running(path, patience_s=2) as one:
        patience = []
        acknowledge = one.store.acknowledge

        async def acknowledged(*arguments: Any, **options: Any) -> None:
            patience.append(options["patience"])
            await acknowledge(*arguments, **{**options, "patience": 0.0})

        one.store.acknowledge = acknowledged  # type: ignore[method-assign]
        one.uplink.commit_interval = 10.0
        await one.commit("a")
        await one.empty()
        assert patience == [20.0]
