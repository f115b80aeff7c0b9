"""The public names of edgefn: what handler files and driver files import, nothing else."""

from edgefn.api import aggregate, anomaly, filter, summarize, transform
from edgefn.fields import field, latest
from edgefn.triggers import cron, every, on, system, watch
from edgefn.windows import count, hopping, session, sliding, tumbling

__version__ = "0.1.0"

__all__ = [
    "aggregate",
    "anomaly",
    "count",
    "cron",
    "every",
    "field",
    "filter",
    "hopping",
    "latest",
    "on",
    "session",
    "sliding",
    "summarize",
    "system",
    "transform",
    "tumbling",
    "watch",
]
