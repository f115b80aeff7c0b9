"""What a driver has sent, until the gateway has it; over a bus that can lose it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.drivers import tail as tail_module
from edgefn.drivers.host import DriverHost, HostConfig
from edgefn.drivers.tail import Tail
from edgefn.drivers.unconfirmed import LONGEST_PAUSE, Outgoing, Unconfirmed
from edgefn.engine.sequences import Sequences
from edgefn.errors import EdgefnError
from edgefn.metrics import Metrics
from tests.drivers.fakes import FakeBus, HandClock

PATIENCE = 30 * NS


def event(seq: int, src: str = "a", qos: int = 1) -> Outgoing:
    return Outgoing(f"event/{src}", json.dumps({"src": src, "seq": seq}).encode(), qos, src, seq)


def kept(*numbers: int) -> Unconfirmed:
    source = Unconfirmed(PATIENCE)
    for seq in numbers:
        assert source.keep(event(seq), 0)
    return source


def numbers(events: Iterable[Outgoing]) -> list[int]:
    return [one.seq for one in events]


class TestOneSource:
    def test_what_is_confirmed_is_forgotten(self):
        source = kept(0, 1, 2, 3)
        assert numbers(source.confirm(1, 0)) == [0, 1]
        assert not source.wants
        assert numbers(source.take()) == [2, 3]

    def test_a_confirmation_may_come_before_the_acknowledgement_of_the_broker(self):
        source = kept(0)
        source.confirm(5, 0)
        assert not source.keep(event(5), 0)
        assert len(source) == 0

    def test_it_is_given_in_order_however_it_came(self):
        assert numbers(kept(0, 3, 4, 1, 2).take()) == [0, 1, 2, 3, 4]

    def test_the_same_confirmation_twice_asks_for_the_rest_and_is_answered_once(self):
        source = kept(0, 1, 2)
        asked = []
        for seq in (0, 0, 0, 1, 1):
            source.confirm(seq, 0)
            asked.append(source.wants)
        assert asked == [False, True, False, False, True]

    def test_a_new_connection_gives_all_again_and_asking_begins_anew(self):
        source = kept(0, 1, 2)
        source.confirm(0, 0)
        source.confirm(0, 0)
        assert numbers(source.reconnected()) == [1, 2]
        source.confirm(0, 0)
        assert source.wants

    def test_silence_brings_the_oldest_alone_and_an_answer_the_others(self):
        source = kept(0, 1, 2, 3)
        source.confirm(0, 0)
        assert source.probe(PATIENCE - 1) == ([], [])
        again, forgotten = source.probe(PATIENCE)
        assert (numbers(again), forgotten) == ([1], [])
        source.confirm(1, PATIENCE)
        assert source.wants
        assert numbers(source.take()) == [2, 3]

    def test_pauses_double_and_end_with_nobody_listening(self):
        source = kept(*range(100))
        source.confirm(0, 0)
        times = []
        while (due := source.due()) is not None:
            again, forgotten = source.probe(due)
            for one in again:
                source.keep(one, due)
            times.append(due // PATIENCE)
        assert times[:4] == [1, 3, 7, 15]
        assert (times[-1] - times[-2]) * PATIENCE > LONGEST_PAUSE
        assert len(forgotten) == 99

    def test_one_that_nobody_ever_confirmed_is_not_kept_for_long_and_never_sent_again(self):
        source = kept(0, 1)
        again, forgotten = source.probe(PATIENCE)
        assert (again, numbers(forgotten)) == ([], [0, 1])
        assert not source.keep(event(2), PATIENCE)
        assert source.due() is None
        source.confirm(2, PATIENCE)  # a handler was dropped
        assert source.keep(event(3), PATIENCE)

    def test_without_events_there_is_no_timer(self):
        source = kept(0)
        source.confirm(0, 0)
        assert source.due() is None

    def test_the_floor_is_told_while_the_gateway_may_wait_for_what_is_below(self):
        source = kept(0, 1, 2)
        assert source.floor == 0
        source.give_up()
        assert source.floor == 1
        source.confirm(0, 0)
        assert source.floor == 0


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@contextlib.asynccontextmanager
async def running(bus: FakeBus, clock: HandClock) -> AsyncIterator[Tail]:
    tail = Tail(bus, Metrics(), clock)
    task = asyncio.create_task(tail.run())
    yield tail
    task.cancel()


async def sent(tail: Tail, bus: FakeBus) -> list[tuple[str, int]]:
    """What has left since the last time, once the tail is idle."""
    async with asyncio.timeout(5):
        await tail.drained()
    published = [(one["src"], one["seq"]) for one in bus.events()]
    bus.published.clear()
    return published


class TestTail:
    async def test_what_is_not_confirmed_is_sent_again_after_a_reconnect(self, bus: FakeBus, clock: HandClock):
        async with running(bus, clock) as tail:
            for seq in range(5):
                tail.put(event(seq))
            assert await sent(tail, bus) == [("a", seq) for seq in range(5)]
            tail.confirm({"a": 2, "of another driver": 7})
            assert len(tail) == 2
            tail.reconnected()
            assert await sent(tail, bus) == [("a", 3), ("a", 4)]
            tail.confirm({"a": 4})
            tail.reconnected()
            assert await sent(tail, bus) == []
            assert (len(tail), tail._bytes) == (0, 0)

    async def test_it_goes_in_front_of_what_is_new(self, bus: FakeBus, clock: HandClock):
        async with running(bus, clock) as tail:
            tail.put(event(0))
            await sent(tail, bus)
            bus.connected.clear()
            tail.put(event(1))
            tail.reconnected()
            bus.connected.set()
            assert await sent(tail, bus) == [("a", 0), ("a", 1)]

    async def test_what_is_confirmed_meanwhile_is_not_sent_again(self, bus: FakeBus, clock: HandClock):
        async with running(bus, clock) as tail:
            tail.put(event(0))
            await sent(tail, bus)
            tail.reconnected()
            tail.put(event(1))
            tail.confirm({"a": 0})
            assert await sent(tail, bus) == [("a", 1)]

    async def test_the_safety_net(self, bus: FakeBus, clock: HandClock):
        async with running(bus, clock) as tail:
            for seq in range(3):
                tail.put(event(seq))
            await sent(tail, bus)
            tail.confirm({"a": 0})
            clock.advance(31)
            tail.probe()
            assert await sent(tail, bus) == [("a", 1)]
            tail.confirm({"a": 1})
            assert await sent(tail, bus) == [("a", 2)]

    async def test_qos_0_leaves_nothing_behind(self, bus: FakeBus, clock: HandClock):
        async with running(bus, clock) as tail:
            tail.put(event(0, qos=0))
            assert await sent(tail, bus) == [("a", 0)]
            assert len(tail) == 0

    async def test_a_fast_channel_does_not_push_out_a_slow_one(
        self, bus: FakeBus, clock: HandClock, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(tail_module, "MAX_EVENTS", 10)
        async with running(bus, clock) as tail:
            tail.put(event(0, "slow"))
            for seq in range(30):
                tail.put(event(seq, "fast"))
                await sent(tail, bus)
            assert (len(tail), tail.dropped) == (10, 0)
            assert tail._metrics.counters == {"drivers.unconfirmed.tail_full": 21}
            assert (tail.floor("slow"), tail.floor("fast")) == (0, 21)
            tail.reconnected()
            again = await sent(tail, bus)
            assert sorted(again) == [("fast", seq) for seq in range(21, 30)] + [("slow", 0)]

    async def test_what_the_broker_refuses_will_not_come(self, bus: FakeBus, clock: HandClock):
        async def refuse(*_: Any) -> None:
            raise EdgefnError("no")

        bus.publish = refuse  # type: ignore[method-assign]
        async with running(bus, clock) as tail:
            tail.put(event(0))
            await sent(tail, bus)
            assert (tail.dropped, tail.floor("a"), len(tail)) == (1, 1, 0)

    @given(st.data())
    def test_with_the_engine_every_event_is_taken_once_whatever_the_broker_loses(self, data: st.DataObject):
        """A broker that loses any of what it has acknowledged, and any confirmation; in the end it is well behaved."""

        async def run() -> None:
            bus, clock = FakeBus(), HandClock()
            sequences, taken = Sequences(Metrics()), []
            async with running(bus, clock) as tail:

                async def exchange(chance: st.SearchStrategy[bool]) -> None:
                    for _, seq in await sent(tail, bus):
                        if data.draw(chance) and sequences.take("a", seq):
                            taken.append(seq)
                    sequences.checkpoint()
                    if (confirmed := sequences.confirmed()) and data.draw(chance):
                        tail.confirm(confirmed)

                tail.put(event(0))
                await exchange(st.just(True))
                for seq in range(1, data.draw(st.integers(2, 13))):
                    tail.put(event(seq))
                    await exchange(st.booleans())
                    if data.draw(st.integers(0, 4)) == 0:
                        tail.reconnected()
                for _ in range(4):
                    clock.advance(3600)
                    tail.probe()
                    await exchange(st.just(True))
                assert sorted(taken) == list(range(seq + 1))
                assert len(tail) == 0

        asyncio.run(run())


async def test_the_host_listens_for_confirmations_and_to_reconnects(bus: FakeBus, caplog: pytest.LogCaptureFixture):
    config = HostConfig.from_json(b'{"gateway": "gw", "drivers": [{"name": "boiler", "options": {"interval": 1000}}]}')
    async with DriverHost(config, bus) as host:
        await bus.until(lambda: bool(bus.events("boiler")))
        src = bus.events("boiler")[0]["src"]
        tail = host.drivers[0].tail
        await sent(tail, bus)
        await bus.reconnect()
        assert await sent(tail, bus) == [(src, 0)]
        bus.deliver("edgefn/gw/confirmed", b"nonsense")
        bus.deliver("edgefn/gw/confirmed", json.dumps({src: 0}).encode())
        async with asyncio.timeout(5):
            while len(tail):
                await asyncio.sleep(0)
    assert "edgefn/gw/confirmed: not written by the gateway" in caplog.text
    assert bus.on_connect == []
