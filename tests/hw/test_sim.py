import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.drivers import Reading, load_driver
from tests.drivers.fakes import HandClock

MODULE = load_driver("boiler").function.__globals__
Boiler, Motor, Room, door_times = (MODULE[name] for name in ("Boiler", "Motor", "Room", "door_times"))


async def take(name: str, n: int, clock: HandClock, step: float, **options: Any) -> list[Reading]:
    driver = load_driver(name)
    generator = driver.function(clock=clock, **driver.check(options))
    taken = []
    try:
        for _ in range(n):
            taken.append(await anext(generator))
            clock.advance(step)
    finally:
        await generator.aclose()
    return taken


class TestBoiler:
    def test_without_faults_it_keeps_to_its_thermostat(self):
        boiler = Boiler(random.Random(1), 0)
        readings = [boiler.step(0.5) for _ in range(7200)]
        assert all(58 < reading["flow"] < 73 for reading in readings)
        assert all(1.4 < reading["pressure"] < 1.7 for reading in readings)
        switched = sum(a["burner"] != b["burner"] for a, b in itertools.pairwise(readings))
        assert 10 < switched < 1000

    def test_faults_are_a_stuck_burner_or_a_spike(self):
        boiler = Boiler(random.Random(1), 60)
        flow = [boiler.step(0.5)["flow"] for _ in range(7200)]
        spikes = sum(b - a > 20 and b - c > 20 for a, b, c in zip(flow, flow[1:], flow[2:], strict=False))
        assert 10 <= spikes <= 60
        assert any(all(x > 78 for x in flow[i : i + 4]) for i in range(len(flow))), "a stuck burner"

    @given(st.integers(0, 100), st.lists(st.floats(0, 5), max_size=200))
    def test_no_step_of_time_makes_nonsense(self, seed: int, steps: list[float]):
        boiler = Boiler(random.Random(seed), 10)
        for step in steps:
            assert 0 < boiler.step(step)["flow"] < 125

    async def test_the_same_seed_gives_the_same_readings(self):
        first, again, other = [
            [reading.fields for reading in await take("boiler", 20, HandClock(), 0.5, interval=0.001, seed=seed)]
            for seed in (7, 7, 8)
        ]
        assert first == again != other

    async def test_readings_carry_the_clocks_time(self):
        clock = HandClock()
        start = clock.ns
        readings = await take("boiler", 3, clock, 0.5, interval=0.001)
        assert [reading.ts for reading in readings] == [start, start + NS // 2, start + NS]


class TestMotor:
    def rms(self, samples: Any) -> float:
        return float(np.sqrt(np.mean(np.square(samples))))

    def test_the_shaft_turns_at_25_hz(self):
        samples = Motor(random.Random(1), 1000, 0).samples(1000)
        assert samples.dtype == np.float32
        assert np.argmax(np.abs(np.fft.rfft(samples))) == 25

    def test_a_bearing_fault_is_a_burst_of_three_seconds(self):
        motor = Motor(random.Random(1), 1000, 30)
        loud = [self.rms(motor.samples(250)) > 0.15 for _ in range(4 * 600)]
        starts = sum(b and not a for a, b in itertools.pairwise(loud))
        assert 10 <= starts <= 30
        assert 11 <= sum(loud) / starts <= 14, "in quarters of a second"

    async def test_batches_follow_each_other_without_a_gap(self):
        readings = await take("motor", 3, HandClock(), 0.0, rate=10_000, batch=250)
        stamps = [reading.ts or 0 for reading in readings]
        assert [b - a for a, b in itertools.pairwise(stamps)] == [25_000_000, 25_000_000]
        assert {reading.fields["dt"] for reading in readings} == {100_000}
        assert all(reading.fields["vibration"].size == 250 for reading in readings)


class TestDoor:
    def test_it_opens_and_closes_in_turn_with_plausible_times(self):
        times = door_times(random.Random(1), 8.0)
        moves = [next(times) for _ in range(1000)]
        assert [is_open for is_open, _ in moves] == [True, False] * 500
        assert all(0 <= seconds <= 40 for _, seconds in moves)
        assert sum(seconds > 16 for is_open, seconds in moves if not is_open) > 5, "left open now and then"

    async def test_it_is_closed_at_first(self):
        first, second = await take("door", 2, HandClock(), 0.0, mean=0.001)
        assert (first.fields, second.fields) == ({"open": False}, {"open": True})


class TestClimate:
    async def test_each_room_is_a_channel(self):
        readings = await take("climate", 4, HandClock(), 1.0, interval=0.001, rooms=["cellar", "hall"])
        assert [reading.channel for reading in readings] == ["cellar", "hall", "cellar", "hall"]
        assert readings[0].fields != readings[1].fields

    def test_readings_are_plausible_but_for_the_glitches(self):
        room = Room(random.Random(1), 0.01)
        readings = [room.step(2.0) for _ in range(5000)]
        wrong = [r for r in readings if r["temperature"] == -127 or r["humidity"] == 0]
        assert 20 < len(wrong) < 100
        for reading in readings:
            if reading not in wrong:
                assert 10 < reading["temperature"] < 35
                assert 5 <= reading["humidity"] <= 95
                assert 400 <= reading["co2"] < 5000


@pytest.mark.parametrize(
    ("name", "options"),
    [("boiler", {"interval": 0}), ("motor", {"batch": 10}), ("climate", {"glitch": 2}), ("door", {"mean": "no"})],
)
def test_senseless_options_are_refused(name: str, options: dict[str, Any]):
    from edgefn.errors import DriverError

    with pytest.raises(DriverError, match=next(iter(options))):
        load_driver(name).check(options)
