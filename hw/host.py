"""The machine itself as a sensor: load, memory, disk, network, and what the board says of its heat and supply."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
from msgspec import Meta

from edgefn.drivers import Duration, Field, Readings, driver, ticks

# The bits of the firmware's get_throttled: what is the case now. The same 16 bits higher: what was since boot.
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 4, 8

FIELDS = {
    "cpu": Field("%"),
    "load": Field(),
    "memory": Field("%"),
    "disk": Field("%"),
    "disk_free": Field("B", "data_size"),
    "received": Field("B/s", "data_rate"),
    "sent": Field("B/s", "data_rate"),
    "temperature": Field("°C", "temperature"),
    "uptime": Field("s", "duration"),
    "under_voltage": Field("", "problem"),
    "throttled": Field("", "problem"),
}


@driver(fields=FIELDS)
async def host(*, interval: Annotated[Duration, Meta(gt=0)] = 10.0, disk: str = "/", sys: str = "/sys") -> Readings:
    """CPU, memory, disk, network, temperature and supply voltage of this machine; what it does not have is left out."""
    psutil.cpu_percent()  # the first call only starts the measurement
    network = NetworkRates()
    board = Board(Path(sys))
    async for _ in ticks(interval):
        yield {**machine(disk), **network.read(), **board.read()}


def machine(disk: str) -> dict[str, float]:
    usage = psutil.disk_usage(disk)
    return {
        "cpu": psutil.cpu_percent(),
        "load": round(os.getloadavg()[0], 2),
        "memory": psutil.virtual_memory().percent,
        "disk": usage.percent,
        "disk_free": usage.free,
        "uptime": round(time.time() - psutil.boot_time()),
    }


class NetworkRates:
    """Bytes per second over all interfaces but loopback, since the reading before: none at the first."""

    def __init__(self) -> None:
        self._before: tuple[float, int, int] | None = None

    def read(self) -> dict[str, float]:
        counters = psutil.net_io_counters(pernic=True)
        used = [counter for name, counter in counters.items() if name != "lo"]
        now = time.monotonic(), sum(c.bytes_recv for c in used), sum(c.bytes_sent for c in used)
        before, self._before = self._before, now
        if before is None or now[0] <= before[0]:
            return {}
        seconds = now[0] - before[0]
        # An interface that went away takes its count along.
        received, sent = max(0, now[1] - before[1]), max(0, now[2] - before[2])
        return {"received": round(received / seconds), "sent": round(sent / seconds)}


class Board:
    """What /sys tells of temperature and power supply. The files are looked for once."""

    def __init__(self, sys: Path) -> None:
        self._temperature = next(_thermal_zones(sys), None)
        self._throttled = next(sys.glob("devices/platform/soc/*/get_throttled"), None)
        self._alarm = next(_supply_alarms(sys), None)

    def read(self) -> dict[str, float | bool]:
        found: dict[str, float | bool] = {}
        if self._temperature and (text := _text(self._temperature)):
            found["temperature"] = int(text) / 1000
        if self._throttled and (text := _text(self._throttled)):
            bits = int(text, 16)
            found["under_voltage"] = bool(bits & UNDER_VOLTAGE)
            found["throttled"] = bool(bits & (CAPPED | THROTTLED | SOFT_LIMIT))
        elif self._alarm and (text := _text(self._alarm)):
            found["under_voltage"] = text != "0"
        return found


def _thermal_zones(sys: Path) -> Iterator[Path]:
    """The zone of the processor first: cpu-thermal on a Raspberry Pi, x86_pkg_temp on a PC."""
    zones = sorted(sys.glob("class/thermal/thermal_zone*"))
    zones.sort(key=lambda zone: not _text(zone / "type").startswith(("cpu", "soc", "x86_pkg")))
    return (zone / "temp" for zone in zones if _text(zone / "temp"))


def _supply_alarms(sys: Path) -> Iterator[Path]:
    return (
        alarm
        for monitor in sorted(sys.glob("class/hwmon/hwmon*"))
        if _text(monitor / "name") == "rpi_volt" and (alarm := monitor / "in0_lcrit_alarm").exists()
    )


def _text(file: Path) -> str:
    """What the file says, "" where it cannot be read: a thermal zone that is switched off answers with an error."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
