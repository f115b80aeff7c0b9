"""Machines that are not there: plausible readings, with the faults that detectors are made for, for demos and tests.

Each is a small model that is moved on by a step of time, and a driver that reads it on a beat. The same `seed` gives
the same readings; the numbers of a fault are in its model's docstring, so that an example can say what to find.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgefn.clock import NS, Clock, SystemClock
from edgefn.drivers import Duration, Field, Reading, Readings, driver, ticks

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Positive = Meta(gt=0)
Share = Meta(ge=0, le=1)


@driver(
    fields={
        "flow": Field("°C", "temperature"),
        "return_": Field("°C", "temperature"),
        "pressure": Field("bar", "pressure"),
        "burner": Field("", "running"),
    }
)
async def boiler(
    *,
    interval: Annotated[Duration, Positive] = 0.5,
    seed: int = 1,
    fault_every: Duration = 60.0,
    clock: Clock | None = None,
) -> Readings:
    """A heating boiler: flow and return temperature, pressure, and whether the burner runs."""
    clock = clock or SystemClock()
    model = Boiler(random.Random(seed), fault_every)
    before = clock.monotonic()
    async for _ in ticks(interval):
        now = clock.monotonic()
        yield Reading(model.step((now - before) / NS), ts=clock.now())
        before = now


class Boiler:
    """A burner that a thermostat switches at 60 and 70 °C, and the water that it heats.

    About every `fault_every` seconds (never, where it is 0) one of two faults: for 8 s the burner is stuck on and the
    flow rises past 80 °C, or one reading of the flow sensor is 25 °C too high.
    """

    def __init__(self, rng: random.Random, fault_every: float) -> None:
        self._rng = rng
        self._fault_every = fault_every
        self._until_fault = self._next_fault()
        self._stuck = 0.0  # seconds that the burner still is
        self.flow, self.return_, self.burner = 62.0, 50.0, True

    def _next_fault(self) -> float:
        return self._fault_every * self._rng.uniform(0.5, 1.5) if self._fault_every else math.inf

    def step(self, seconds: float) -> dict[str, float | bool]:
        spike = 0.0
        self._until_fault -= seconds
        if self._until_fault <= 0:
            self._until_fault = self._next_fault()
            if self._rng.random() < 0.5:
                self._stuck = 8.0
            else:
                spike = 25.0
        self._stuck = max(0.0, self._stuck - seconds)
        if self._stuck or self.flow < 60:
            self.burner = True
        elif self.flow > 70:
            self.burner = False
        heat = (3.0 if self._stuck else 1.2) if self.burner else 0.0  # K/s
        self.flow += (heat - 0.06 * (self.flow - self.return_)) * seconds
        self.flow = min(self.flow, 95.0)  # the safety valve
        self.return_ += 0.05 * (self.flow - 12 - self.return_) * seconds
        noise = self._rng.gauss
        return {
            "flow": round(self.flow + spike + noise(0, 0.1), 2),
            "return_": round(self.return_ + noise(0, 0.1), 2),
            "pressure": round(1.5 + 0.008 * (self.flow - 60) + noise(0, 0.005), 3),
            "burner": self.burner,
        }


@driver(fields={"vibration": Field("g"), "dt": Field("ns")})
async def motor(
    *,
    rate: Annotated[int, Meta(ge=100, le=10_000)] = 1000,
    batch: Annotated[int, Meta(ge=250, le=1000)] = 250,
    seed: int = 2,
    fault_every: Duration = 30.0,
    clock: Clock | None = None,
) -> Readings:
    """An electric motor's vibration: `rate` samples a second, as batch events of `batch` float32 samples."""
    clock = clock or SystemClock()
    model = Motor(random.Random(seed), rate, fault_every)
    start, dt = clock.now(), NS // rate
    async for n in ticks(batch / rate):
        yield Reading({"dt": dt, "vibration": model.samples(batch)}, ts=start + (n - 1) * batch * dt)


class Motor:
    """A shaft at 25 Hz with its harmonics, and noise.

    About every `fault_every` seconds (never, where it is 0) a bearing fault for 3 s: 89 impacts a second, each of 1.5 g
    and ringing at 310 Hz.
    """

    SHAFT, IMPACTS, RINGING = 25.0, 89.0, 310.0  # Hz

    def __init__(self, rng: random.Random, rate: int, fault_every: float) -> None:
        import numpy as np  # here, since the other machines do without it and it costs 15 MB

        self._rng = rng
        self._rate = rate
        self._fault_every = fault_every
        self._until_fault = self._next_fault()
        self._at = 0
        # numpy.random costs another 5 MB; of this noise each batch takes a piece from somewhere.
        self._noise = np.array([rng.gauss(0, 0.02) for _ in range(8192)], np.float32)

    def _next_fault(self) -> float:
        return self._fault_every * self._rng.uniform(0.5, 1.5) if self._fault_every else math.inf

    def samples(self, n: int) -> npt.NDArray[np.float32]:
        """The next n samples, in g."""
        import numpy as np

        t = (self._at + np.arange(n)) / self._rate
        self._at += n
        turn = 2 * np.pi * self.SHAFT * t
        wave = 0.10 * np.sin(turn) + 0.04 * np.sin(2 * turn) + 0.02 * np.sin(3 * turn + 1)
        start = self._rng.randrange(self._noise.size - n)
        wave += self._noise[start : start + n]
        self._until_fault -= n / self._rate
        if self._until_fault <= 0:
            since = np.mod(t, 1 / self.IMPACTS)
            wave += 1.5 * np.exp(-since * 400) * np.sin(2 * np.pi * self.RINGING * since)
            if self._until_fault <= -3:
                self._until_fault = self._next_fault()
        samples: npt.NDArray[np.float32] = wave.astype(np.float32)
        return samples


@driver(fields={"open": Field("", "door")})
async def door(*, mean: Annotated[Duration, Positive] = 8.0, seed: int = 3, clock: Clock | None = None) -> Readings:
    """A door that people go through: an event when it opens and one when it closes."""
    clock = clock or SystemClock()
    yield Reading({"open": False}, ts=clock.now())
    for is_open, seconds in door_times(random.Random(seed), mean):
        await asyncio.sleep(seconds)
        yield Reading({"open": is_open}, ts=clock.now())


def door_times(rng: random.Random, mean: float) -> Iterator[tuple[bool, float]]:
    """Whether it opens or closes, and the seconds before; one in twenty times it is left open ten times as long."""
    while True:
        yield True, min(rng.expovariate(1 / mean), 5 * mean)
        yield False, mean * rng.uniform(0.2, 0.5) * (10 if rng.random() < 0.05 else 1)


@driver(
    fields={
        "temperature": Field("°C", "temperature"),
        "humidity": Field("%", "humidity"),
        "co2": Field("ppm", "carbon_dioxide"),
    }
)
async def climate(
    *,
    rooms: tuple[str, ...] = ("kitchen", "office", "attic"),
    interval: Annotated[Duration, Positive] = 2.0,
    seed: int = 4,
    glitch: Annotated[float, Share] = 0.005,
    clock: Clock | None = None,
) -> Readings:
    """Temperature, humidity and CO₂ of several rooms, each a channel; now and then a sensor reports nonsense."""
    clock = clock or SystemClock()
    models = {room: Room(random.Random(f"{seed} {room}"), glitch) for room in rooms}
    before = clock.monotonic()
    async for _ in ticks(interval):
        now = clock.monotonic()
        for room, model in models.items():
            yield Reading(model.step((now - before) / NS), room, clock.now())
        before = now


class Room:
    """Air that drifts towards its set point while people come and go.

    With probability `glitch` a reading is what a loose wire gives: -127 °C (a DS18B20 without contact) or 0 % humidity.
    """

    def __init__(self, rng: random.Random, glitch: float) -> None:
        self._rng = rng
        self._glitch = glitch
        self._goal = rng.uniform(19, 23)
        self._people = 0
        self.temperature, self.humidity, self.co2 = self._goal, rng.uniform(35, 55), rng.uniform(450, 700)

    def step(self, seconds: float) -> dict[str, float]:
        rng = self._rng
        if rng.random() < seconds / 120:
            self._people = rng.randrange(4)
        drift = math.sqrt(seconds)
        self.temperature += 0.002 * (self._goal - self.temperature) * seconds + rng.gauss(0, 0.02) * drift
        self.humidity += 0.002 * (45 - self.humidity) * seconds + rng.gauss(0, 0.1) * drift
        self.humidity = min(max(self.humidity, 5), 95)
        self.co2 += (0.4 * self._people - 0.001 * (self.co2 - 430)) * seconds + rng.gauss(0, 1) * drift
        reading = {
            "temperature": round(self.temperature, 2),
            "humidity": round(self.humidity, 1),
            "co2": float(round(max(self.co2, 400))),
        }
        if rng.random() < self._glitch:
            reading.update(rng.choice(({"temperature": -127.0}, {"humidity": 0.0})))
        return reading
