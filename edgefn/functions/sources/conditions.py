"""What is looked at to know of an occasion: the network, the disk, the supply voltage. Each says whether all is well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgefn.clock import NS
from edgefn.triggers import Occasion

# Interfaces that are there without any network: bridges and ends of containers and virtual machines.
VIRTUAL = ("docker", "veth", "br-", "virbr", "vnet", "lxc", "cni", "flannel", "podman", "dummy", "ifb", "sit", "tunl")
LOOPBACK = "lo"
MEGABYTE = 1 << 20
LOW_SHARE, OK_SHARE = 0.10, 0.15  # of the file system that is free
LOW_BYTES, OK_BYTES = 256 * MEGABYTE, 384 * MEGABYTE
UNDER_VOLTAGE = 1  # the bit of the firmware's get_throttled for what is the case now

Reading = tuple[bool, Mapping[str, Any]]


class Condition(Protocol):
    """Looked at each `interval` ns, and only while some function wants one of its two occasions."""

    good: Occasion
    bad: Occasion
    interval: int
    is_told_at_once: bool  # a bad one at the first look starts handlers too; else only a change does

    def read(self) -> Reading | None:
        """Whether all is well, and what the handler sees as event.data; None: this machine does not tell."""


class Network:
    """Up while an interface that leads somewhere has a carrier."""

    good: Occasion = "network-up"
    bad: Occasion = "network-down"
    interval = 5 * NS
    is_told_at_once = False  # most machines start before their network does

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._folder = sys / "class" / "net"

    def read(self) -> Reading | None:
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return None
        up = [name for name in names if name != LOOPBACK and not name.startswith(VIRTUAL) and self._is_up(name)]
        return bool(up), {"interfaces": up}

    def _is_up(self, name: str) -> bool:
        state = _text(self._folder / name / "operstate")
        # Modems and tunnels have no state of their own (RFC 2863's "unknown"), but a carrier.
        return state == "up" or (state == "unknown" and _text(self._folder / name / "carrier") == "1")


class Disk:
    """The file system of the store. Between low and ok it stays what it was."""

    good: Occasion = "disk-ok"
    bad: Occasion = "disk-low"
    interval = 60 * NS
    is_told_at_once = True

    def __init__(self, state: Path) -> None:
        self._state = state
        self._is_low = False

    def read(self) -> Reading | None:
        try:
            told = os.statvfs(self._state)
        except OSError:
            return None
        free, total = told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize
        if free < LOW_SHARE * total or free < LOW_BYTES:
            self._is_low = True
        elif free >= OK_SHARE * total and free >= OK_BYTES:
            self._is_low = False
        return not self._is_low, {"free": free, "total": total}


class Supply:
    """What a Raspberry Pi says of its supply voltage: its firmware, or the hwmon driver of newer kernels."""

    good: Occasion = "voltage-ok"
    bad: Occasion = "under-voltage"
    interval = 10 * NS
    is_told_at_once = True

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._throttled = next(sys.glob("devices/platform/soc/*/get_throttled"), None)
        alarms = (
            monitor / "in0_lcrit_alarm"
            for monitor in sorted(sys.glob("class/hwmon/hwmon*"))
            if _text(monitor / "name") == "rpi_volt"
        )
        self._alarm = next((alarm for alarm in alarms if alarm.exists()), None)

    def read(self) -> Reading | None:
        try:
            if self._throttled is not None and (text := _text(self._throttled)):
                return not int(text, 16) & UNDER_VOLTAGE, {}
            if self._alarm is not None and (text := _text(self._alarm)):
                return text == "0", {}
        except ValueError:
            return None
        return None


def _text(file: Path) -> str:
    """What the file says, "" where it cannot be read: the carrier of an interface that is down is an error."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
