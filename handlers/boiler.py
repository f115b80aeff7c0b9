"""A boiler: its temperatures every five seconds, and an alert when the flow is out of its usual range."""

from typing import NamedTuple

from edgefn import aggregate, anomaly, transform, tumbling


class Heat(NamedTuple):
    flow: float
    spread: float  # what the radiators take, in K
    burner: bool


@transform("edgefn/+/event/boiler")
def heat(flow, return_, burner: bool) -> Heat:
    return Heat(flow, flow - return_, burner)


class Cycle(NamedTuple):
    flow: float
    peak: float
    spread: float
    duty: float  # share of the time in which the burner ran


@aggregate(heat, tumbling("5s"))
def cycle(flow, spread, burner) -> Cycle:
    return Cycle(flow.mean(), flow.max(), spread.mean(), burner.mean())


@anomaly(heat, threshold=78.0, clear=72.0)
def overheating(flow) -> float:
    return flow
