import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefn import events
from edgefn.clock import NS
from edgefn.drivers import tail as tail_module
from edgefn.drivers.supervisor import DriverConfig, Supervisor
from edgefn.metrics import Metrics
from tests.drivers.fakes import FakeBus, HandClock

HEAD = """
import asyncio, threading, time
import numpy as np
from edgefn.drivers import *
calls = []
"""

Start = Callable[..., contextlib.AbstractAsyncContextManager[Supervisor]]


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def start(bus: FakeBus, clock: HandClock, tmp_path: Path) -> Start:
    """Runs a driver file's text; the pauses between its starts take no time and are kept in `pauses`."""

    @contextlib.asynccontextmanager
    async def run(text: str, *, runs_for: float = 0.0, pauses: list[float] | None = None, **config: Any):
        async def sleep(seconds: float) -> None:
            if pauses is not None:
                pauses.append(seconds)
            clock.advance(seconds)
            await asyncio.sleep(0)

        (tmp_path / "probe.py").write_text(HEAD + text)
        config = {"name": "probe", "use": "probe.py"} | config
        supervisor = Supervisor(
            DriverConfig(**config), "gw", bus, clock, Metrics(), [str(tmp_path)], sleep, run_id="run"
        )
        await supervisor.start()
        try:
            yield supervisor
        finally:
            await supervisor.stop()
            await supervisor.stop()

    return run


ASYNC = """
@driver(fields={"x": Field("m", "distance")})
async def probe():
    try:
        for x in range(3):
            yield {"x": x}
        await asyncio.sleep(1000)
    finally:
        calls.append(threading.current_thread().name)
"""

PLAIN = ASYNC.replace("async def", "def").replace("await asyncio.sleep(1000)", "yield {'x': 3}; time.sleep(0.01)")


@pytest.mark.parametrize("text", [ASYNC, PLAIN], ids=["async", "plain"])
class TestBothKindsOfGenerator:
    async def test_readings_become_events(self, start: Start, bus: FakeBus, clock: HandClock, text: str):
        async with start(text):
            await bus.until(lambda: len(bus.events()) >= 3)
        topic, _, qos, retain = next(message for message in bus.published if not message[3])
        assert (topic, qos, retain) == ("edgefn/gw/event/probe", 1, False)
        assert bus.events()[:3] == [{"ts": clock.ns, "x": n, "seq": n, "src": "run.0"} for n in range(3)]

    async def test_states_are_told_with_the_fields(self, start: Start, bus: FakeBus, text: str):
        async with start(text):
            await bus.until(lambda: len(bus.events()) >= 3)
        statuses = bus.statuses("probe")
        assert [status["state"] for status in statuses] == ["starting", "online", "offline"]
        assert statuses[-1]["fields"] == {"x": {"unit": "m", "device_class": "distance"}}
        assert statuses[-1]["readings"] >= 3
        assert statuses[-1]["error"] is None

    async def test_finally_runs_when_it_is_stopped(self, start: Start, bus: FakeBus, text: str):
        async with start(text) as supervisor:
            await bus.until(lambda: len(bus.events()) >= 3)
            calls = supervisor._driver.function.__globals__["calls"]  # type: ignore[union-attr]
        assert calls == [threading.current_thread().name if text == ASYNC else "driver probe"]

    async def test_one_that_raises_is_started_again_and_the_sequence_goes_on(
        self, start: Start, bus: FakeBus, text: str
    ):
        failing = text.replace("await asyncio.sleep(1000)", "raise OSError(121, 'no answer')")
        failing = failing.replace("yield {'x': 3}", "raise OSError(121, 'no answer')")
        pauses: list[float] = []
        async with start(failing, pauses=pauses):
            await bus.until(lambda: len(bus.events()) >= 9)
        assert [event["seq"] for event in bus.events()][:9] == list(range(9))
        backoff = next(status for status in bus.statuses("probe") if status["state"] == "backoff")
        assert backoff["error"].startswith("OSError: [Errno 121] no answer (probe.py:")


class TestFailures:
    async def test_pauses_double_up_to_a_minute_with_jitter(self, start: Start, bus: FakeBus):
        pauses: list[float] = []
        async with start("@driver\nasync def probe():\n    raise ValueError\n    yield", pauses=pauses):
            await bus.until(lambda: len(pauses) >= 10)
        for pause, most in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60], strict=False):
            assert 0.75 * most <= pause <= most

    async def test_a_minute_of_health_starts_the_pauses_again(self, start: Start, bus: FakeBus, clock: HandClock):
        text = """
@driver
async def probe(*, clock):
    clock.advance(61 if len(calls) == 4 else 1)
    calls.append(1)
    raise ValueError
    yield
"""
        pauses: list[float] = []
        async with start(text, pauses=pauses):
            await bus.until(lambda: len(pauses) >= 5)
        assert pauses[3] > 5
        assert pauses[4] <= 1

    async def test_one_that_ends_is_offline_and_stays_so(self, start: Start, bus: FakeBus):
        async with start("@driver\nasync def probe():\n    yield {'x': 1}") as supervisor:
            await supervisor.join()
            assert supervisor.state == "offline"

    @pytest.mark.parametrize(
        ("yielded", "message"),
        [
            ("[1, 2]", "yielded a list; yield a mapping"),
            ("{'x': {1, 2}.__iter__()}", "cannot be published"),
            ("{'seq': 1}", "the host itself sets seq"),
            ("{'x': np.array([['a']])}", "not_encodable"),
        ],
    )
    async def test_what_cannot_be_published_says_so(self, start: Start, bus: FakeBus, yielded: str, message: str):
        async with start(f"@driver\nasync def probe():\n    yield {yielded}"):
            await bus.until(lambda: any(status["state"] == "backoff" for status in bus.statuses("probe")))
        assert message in next(s["error"] for s in bus.statuses("probe") if s["state"] == "backoff")

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"use": "nothing_like_it"}, "no driver is called"),
            ({"options": {"y": 1}}, "has no parameter 'y'"),
            ({"name": "a/b"}, "no topic level"),
        ],
    )
    async def test_one_that_cannot_start_is_failed(
        self, start: Start, bus: FakeBus, config: dict[str, Any], message: str
    ):
        async with start(ASYNC, **config) as supervisor:
            await supervisor.join()
        assert supervisor.state == "failed"
        name = config.get("name", "probe").replace("/", "_")
        assert message in bus.statuses(name)[-1]["error"]

    async def test_system_exit_in_a_driver_is_its_own_affair(self, start: Start, bus: FakeBus):
        async with start("@driver\nasync def probe():\n    raise SystemExit(1)\n    yield"):
            await bus.until(lambda: any(status["state"] == "backoff" for status in bus.statuses("probe")))

    async def test_a_read_that_hangs_is_left_behind(self, start: Start, bus: FakeBus, caplog: pytest.LogCaptureFixture):
        text = "@driver\ndef probe():\n    yield {'x': 1}\n    time.sleep(3)\n    yield {}"
        async with start(text):
            await bus.until(lambda: bool(bus.events()))
        assert "still in a read" in caplog.text


class TestEvents:
    async def test_channels_are_topics_with_sequences_of_their_own(self, start: Start, bus: FakeBus):
        text = """
@driver
async def probe():
    for n in range(4):
        yield Reading({"x": n}, "ab"[n % 2], ts=n)
    await asyncio.sleep(1000)
"""
        async with start(text):
            await bus.until(lambda: len(bus.events()) == 4)
        assert bus.events("probe/b") == [
            {"ts": 1, "x": 1, "seq": 0, "src": "run.1"},
            {"ts": 3, "x": 3, "seq": 1, "src": "run.1"},
        ]
        assert bus.statuses("probe")[-1]["channels"] == ["a", "b"]

    async def test_arrays_become_batch_events_stamped_with_their_first_sample(
        self, start: Start, bus: FakeBus, clock: HandClock
    ):
        text = """
@driver
async def probe():
    yield {"dt": 1_000_000, "x": np.arange(501, dtype=np.float32)}
    await asyncio.sleep(1000)
"""
        async with start(text):
            await bus.until(lambda: any(not message[3] for message in bus.published))
        ((_, payload, qos, _),) = [message for message in bus.published if not message[3]]
        event = events.unpack(payload)
        assert qos == 0
        assert (event["ts"], event["seq"], event["dt"]) == (clock.ns - NS // 2, 0, 1_000_000)
        np.testing.assert_array_equal(event["x"], np.arange(501, dtype=np.float32))

    async def test_numpy_scalars_and_nan_are_fine(self, start: Start, bus: FakeBus):
        text = """
@driver
async def probe():
    yield {"a": np.float32(0.5), "b": float("nan"), "c": np.bool_(True), "d": None}
    await asyncio.sleep(1000)
"""
        async with start(text, qos=0):
            await bus.until(lambda: bool(bus.events()))
        assert bus.events()[0].items() >= {"a": 0.5, "b": None, "c": True, "d": None}.items()


class TestWhileTheBrokerIsAway:
    MANY = """
@driver
async def probe():
    for x in range(30):
        yield {"x": x}
    await asyncio.sleep(1000)
"""

    async def all_read(self, supervisor: Supervisor) -> None:
        while supervisor.readings < 30:
            await asyncio.sleep(0)

    async def test_the_newest_are_kept_and_the_others_counted(
        self, start: Start, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(tail_module, "MAX_EVENTS", 10)
        bus.connected.clear()
        async with start(self.MANY) as supervisor:
            await self.all_read(supervisor)
            bus.connected.set()
            await bus.until(lambda: len(bus.events()) == 10)
            assert [event["seq"] for event in bus.events()] == list(range(20, 30))
            assert supervisor.metrics.counters["drivers.dropped.tail_full"] == 20
            await supervisor.tell()
            assert bus.statuses("probe")[-1]["dropped"] == 20

    async def test_bytes_are_bounded_as_well(self, start: Start, bus: FakeBus, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tail_module, "MAX_BYTES", 500)
        bus.connected.clear()
        async with start(self.MANY) as supervisor:
            await self.all_read(supervisor)
            assert 0 < supervisor.tail._bytes <= 500

    async def test_what_was_lost_on_the_way_is_sent_again_in_order(self, start: Start, bus: FakeBus):
        bus.lossy = True
        async with start(self.MANY):
            await bus.until(lambda: len(bus.lost) > 100)
            bus.lossy = False
            await bus.until(lambda: len(bus.events()) == 30)
        assert [event["seq"] for event in bus.events()] == list(range(30))
        attempts = [json.loads(payload)["seq"] for payload in bus.lost]
        assert all(b in (a + 1, 0) for a, b in itertools.pairwise(attempts))

    async def test_what_was_not_acknowledged_is_sent_again_as_the_same(self, start: Start, bus: FakeBus):
        bus.lose_acknowledgement = 5
        async with start(self.MANY):
            await bus.until(lambda: len(bus.events()) == 35)
        sent = [(event["src"], event["seq"]) for event in bus.events()]
        assert set(sent) == {("run.0", n) for n in range(30)}


class TestStatus:
    async def test_the_rate_is_readings_a_second(self, start: Start, bus: FakeBus, clock: HandClock):
        async with start(TestWhileTheBrokerIsAway.MANY) as supervisor:
            await bus.until(lambda: len(bus.events()) == 30)
            clock.advance(10)
            await supervisor.tell()
            assert bus.statuses("probe")[-1]["rate"] == 3.0
            told = len(bus.published)
            await supervisor.tell()
            assert len(bus.published) == told, "nothing new, nothing told"
