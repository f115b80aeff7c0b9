"""Events pass these gates or are held back: deadband by value, throttle by time, debounce by steadiness."""

from __future__ import annotations

from dataclasses import dataclass

from edgefn.kernels.sample import is_sample

NS = 1e9  # nanoseconds per second


@dataclass
class Deadband:
    """Memory of `deadband`: the last value that passed, and how many have."""

    passed: float = 0.0
    n: int = 0


@dataclass
class Throttle:
    """Memory of `throttle`: the time of the last event that passed, in ns, and how many have."""

    passed: int = 0
    n: int = 0


@dataclass
class Debounce:
    """Memory of `debounce`: the level believed in, the level that asks to be, and since when, in ns."""

    steady: bool = False
    candidate: bool = False
    since: int = 0
    n: int = 0


def deadband(state: Deadband, x: float, band: float) -> bool:
    """Whether |x - last x that passed| > band: a send-on-delta filter (OPC UA part 4, absolute deadband).

    band: in the unit of x; 0 passes every change. The first sample passes; a constant series never again.
    Drift adds up against the last value that passed, so a slow one is not missed. NaN or inf: does not pass,
    remembers nothing.
    """
    if not is_sample(x):
        return False
    if state.n > 0 and abs(x - state.passed) <= band:
        return False
    state.passed = float(x)
    state.n += 1
    return True


def throttle(state: Throttle, ts: int, interval: float) -> bool:
    """Whether at least `interval` seconds lie between this event and the last one that passed.

    ts: ns since the epoch. The first event passes. A clock that went back by less than the interval (a late
    event) holds the event back; by more (it was set right), the event passes, so a device that booted in 2099
    does not fall silent.
    """
    if state.n > 0 and abs(ts - state.passed) < interval * NS:
        return False
    state.passed = ts
    state.n += 1
    return True


def debounce(state: Debounce, x: float, ts: int, hold: float) -> bool:
    """The level of a contact once it has been steady for `hold` seconds; until then the level before (Ganssle 2004).

    x: off where it is 0, on otherwise. ts: ns since the epoch. The first sample is believed at once. The
    answer changes only when an event arrives: publish contacts at intervals, not only at changes. Time that
    goes back begins the hold anew. NaN or inf: the level before, remembers nothing.
    """
    if not is_sample(x):
        return state.steady
    on = x != 0
    if state.n == 0:
        state.steady = on
    if state.n == 0 or on != state.candidate or ts < state.since:
        state.candidate = on
        state.since = ts
    state.n += 1
    if ts - state.since >= hold * NS:
        state.steady = state.candidate
    return state.steady
