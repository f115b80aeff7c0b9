"""What this machine knows of its own clock: whether it is synchronised, and whether anything tries to."""

from __future__ import annotations

import ctypes
from pathlib import Path

# adjtimex(2): what it returns while the clock is not synchronised. timesyncd, chronyd and ntpd all clear that; the kernel
# says it again after about nine hours without them, since it counts its own error up by 500 ppm until that is 16 s.
_TIME_ERROR = 5
_TIMEX = 208  # bytes of struct timex on 64-bit Linux

# What each service has while it runs: timesyncd, chronyd, ntpd and ntpsec, openntpd.
_RUNNING = ("systemd/timesync", "chrony/chronyd.pid", "ntpd.pid", "ntpd.sock")


class TimeService:
    """The kernel's word, and the traces of the usual services below /run."""

    def __init__(self, run: Path = Path("/run")) -> None:
        self._run = run
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timex = ctypes.create_string_buffer(_TIMEX + 48)  # modes = 0: asks, and sets nothing

    def is_synchronised(self) -> bool:
        """timesyncd also keeps a file for as long as the machine runs; chronyd and ntpd have nothing like it."""
        state = self._libc.adjtimex(self._timex)
        return 0 <= state < _TIME_ERROR or (self._run / "systemd/timesync/synchronized").exists()

    def is_running(self) -> bool:
        return any((self._run / name).exists() for name in _RUNNING)
