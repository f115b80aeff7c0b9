import asyncio
import math
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import Clock, SystemClock
from edgefn.drivers import Driver, Duration, Field, Readings, driver, ticks
from edgefn.drivers.contract import MARK
from edgefn.errors import DriverError


@driver(fields={"level": Field("m", "distance")})
async def tank(
    *,
    port: int,
    interval: Annotated[Duration, msgspec.Meta(gt=0)] = 10.0,
    mode: Literal["fast", "exact"] = "fast",
    clock: Clock | None = None,
) -> Readings:
    """How full the tank is.

    More of it.
    """
    yield {"level": float(port)}


TANK: Driver = getattr(tank, MARK)


def test_the_function_stays_what_it_was():
    assert TANK.function is tank
    assert (TANK.name, TANK.summary) == ("tank", "How full the tank is.")
    assert TANK.fields["level"] == Field("m", "distance")


def test_options_become_arguments():
    assert TANK.check({"port": 3, "interval": "1m30s", "mode": "exact"}) == {
        "port": 3,
        "interval": 90.0,
        "mode": "exact",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": "three"}, r"driver 'tank': parameter 'port' cannot be 'three': Expected `int`"),
        ({"port": 1, "interval": "soon"}, r"'interval' cannot be 'soon'.*500ms"),
        ({"port": 1, "interval": 0}, r"'interval' cannot be 0.*> 0"),
        ({"port": 1, "interval": [1]}, r"'interval' cannot be \[1\]"),
        ({"port": 1, "mode": "slow"}, r"'mode' cannot be 'slow'.*'fast', 'exact'"),
        ({"port": 1, "intervall": 3}, r"no parameter 'intervall'; did you mean 'interval'"),
        ({"port": 1, "zzz": 3}, r"no parameter 'zzz'; it has 'port', 'interval', 'mode'"),
        ({"port": 1, "clock": 3}, r"no parameter 'clock'"),
        ({}, r"driver 'tank' needs a value for 'port'"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(options: dict[str, object], message: str):
    with pytest.raises(DriverError, match=message):
        TANK.check(options)


def test_a_parameter_without_a_type_is_refused():
    @driver
    def bad(*, pin=3):
        yield {}

    with pytest.raises(DriverError, match=r"'pin' must be by keyword and have a type"):
        getattr(bad, MARK).check({})


def test_a_function_that_yields_nothing_is_refused():
    @driver
    async def bad() -> None: ...

    with pytest.raises(DriverError, match="returned a coroutine; yield the readings"):
        getattr(bad, MARK).open({}, SystemClock())


class Late:
    """An event loop whose time stands still but for sleeping, and for what the reading takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


def times_of(interval: float, works: list[float]) -> list[float]:
    async def collect() -> None:
        beats = ticks(interval)
        for work in works:
            await anext(beats)
            times.append(late.now - 100)
            late.now += work

    times: list[float] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        late = Late(monkeypatch)
        coroutine = collect()
        with pytest.raises(StopIteration):
            coroutine.send(None)
    return times


def test_ticks_do_not_drift_and_leave_out_what_was_slept_through():
    assert times_of(1.0, [0.3, 0.3, 2.5, 0.1, 0.0]) == pytest.approx([0, 1, 2, 5, 6])


@given(st.floats(0.01, 10), st.lists(st.floats(0, 30), min_size=2, max_size=20))
def test_ticks_stay_on_the_beat(interval: float, works: list[float]):
    times = times_of(interval, works)
    assert times == sorted(times)
    for time in times:
        assert math.isclose(time / interval, round(time / interval), abs_tol=1e-6 * max(1, time / interval) + 1e-6)
