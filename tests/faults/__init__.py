"""Real processes and real brokers, killed or stopped at any moment under a load whose outcome is known to the event.

`make test` runs most of these for some seconds: six kills, two dozen power cuts. `make faults` (EDGEFN_FAULTS=long) runs all
of them: 200 kills, 1,000 power cuts, a million events for the memory, which takes an hour. EDGEFN_FAULTS_SEED
chooses other moments.
"""

from __future__ import annotations

import os

LONG = os.environ.get("EDGEFN_FAULTS") == "long"
SEED = int(os.environ.get("EDGEFN_FAULTS_SEED", "1"))
