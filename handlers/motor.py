"""A motor's vibration, 1,000 samples a second in batches: one row a second, and an alert when a bearing begins to knock."""

from typing import NamedTuple

from edgefn import aggregate, anomaly, count
from edgefn.kernels import band_energy, crest_factor, rms


class Vibration(NamedTuple):
    rms: float  # g
    crest: float  # peak ÷ rms; knocking raises it long before it raises the rms
    ringing: float  # energy between 250 and 400 Hz, where a bearing's parts ring


@aggregate("edgefn/+/event/motor", count(1000))
def vibration(vibration) -> Vibration:
    return Vibration(rms(vibration), crest_factor(vibration), band_energy(vibration, 1000.0, 250.0, 400.0))


@anomaly(vibration, threshold=4.0, clear=3.0)
def knocking(crest) -> float:
    return crest
