"""Real processes and real brokers, killed or stopped at any moment under a load whose outcome is known to the event.

`make test` runs each of these for some seconds: six kills, three outages. `make faults` (EDGEFN_FAULTS=long) runs 200
kills and a million events for the memory, which takes half an hour. EDGEFN_FAULTS_SEED chooses other moments.
"""

from __future__ import annotations

import os

LONG = os.environ.get("EDGEFN_FAULTS") == "long"
SEED = int(os.environ.get("EDGEFN_FAULTS_SEED", "1"))
