"""The public names of edgefn: what handler files and driver files import, nothing else."""

from edgefn.api import aggregate, anomaly, filter, latest, summarize, transform
from edgefn.windows import count, hopping, session, sliding, tumbling

__version__ = "0.1.0"

__all__ = [
    "aggregate",
    "anomaly",
    "count",
    "filter",
    "hopping",
    "latest",
    "session",
    "sliding",
    "summarize",
    "transform",
    "tumbling",
]
