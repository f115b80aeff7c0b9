"""Occasions: what the gateway tells, and what files under /sys and a file system say."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgefn.clock import NS
from edgefn.functions.sources.conditions import MEGABYTE, Disk, Network, Supply
from edgefn.functions.sources.occasions import Occasions
from edgefn.metrics import Metrics
from edgefn.testing import ManualClock
from edgefn.triggers import OnOccasion
from tests.functions.sources.helpers import Fired, function


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        self.sys = tmp_path / "sys"
        self.fired, self.clock = Fired(), ManualClock()
        self.occasions = self.made(tmp_path)

    def made(self, state: Path) -> Occasions:
        conditions = (Network(self.sys), Disk(state), Supply(self.sys))
        return Occasions(self.fired, self.clock, Metrics(), b"life", conditions)

    def write(self, name: str, text: str) -> None:
        file = self.sys / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def after(self, duration: str) -> list[tuple[str, str]]:
        self.clock.advance(duration)
        self.occasions.step()
        return self.fired.take()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_the_gateway_tells_comes_to_who_wants_it_with_its_data(bench: Bench):
    bench.occasions.plan([function("f", OnOccasion("stop")), function("g", OnOccasion("start"))])
    bench.occasions.occasion("stop", {"reason": "restart"})
    assert bench.fired.data() == {"reason": "restart"}
    assert bench.fired.take() == [("f", "system/stop")]  # at once: the loop ends now
    bench.occasions.occasion("stop", {})
    assert len(bench.fired.take()) == 1


def test_a_handler_that_becomes_active_later_is_told_of_the_start_once(bench: Bench):
    bench.occasions.occasion("start", {})
    bench.occasions.occasion("clock-synced", {})
    both = OnOccasion("start"), OnOccasion("clock-synced")
    bench.occasions.plan([function("f", *both)])
    assert bench.after("1s") == [("f", "system/start"), ("f", "system/clock-synced")]
    bench.occasions.plan([])
    bench.occasions.plan([function("f", *both), function("g", *both)])
    assert bench.after("1s") == [("g", "system/start"), ("g", "system/clock-synced")]
    bench.occasions.occasion("clock-synced", {})  # once more, after a step
    assert bench.after("1s") == [("f", "system/clock-synced"), ("g", "system/clock-synced")]


def test_no_two_are_the_same(bench: Bench):
    bench.occasions.plan([function("f", OnOccasion("stop"))])
    for _ in range(3):
        bench.occasions.occasion("stop", {})
    assert len({one.identity for _, one in bench.fired.all}) == 3


NETWORK = function("f", OnOccasion("network-up"), OnOccasion("network-down"))


def test_the_network_is_up_while_one_interface_is(bench: Bench):
    for name in ("lo", "docker0", "veth12", "br-1f"):
        bench.write(f"class/net/{name}/operstate", "up")
    bench.write("class/net/eth0/operstate", "down")
    bench.occasions.plan([NETWORK])
    assert bench.after("1s") == []  # nothing has happened yet
    bench.write("class/net/eth0/operstate", "up")
    assert bench.after("4s") == []
    assert bench.after("1s") == [("f", "system/network-up")]
    bench.write("class/net/ppp0/operstate", "unknown")
    bench.write("class/net/ppp0/carrier", "1")
    bench.write("class/net/eth0/operstate", "down")
    assert bench.after("5s") == []
    bench.write("class/net/ppp0/carrier", "0")
    assert bench.after("5s") == [("f", "system/network-down")]


def test_a_radio_whose_name_begins_like_that_of_loopback_is_a_network(bench: Bench):
    bench.write("class/net/lowpan0/operstate", "up")
    assert Network(bench.sys).read() == (True, {"interfaces": ["lowpan0"]})


def test_nothing_is_looked_at_that_nobody_wants(bench: Bench):
    bench.occasions.plan([function("f", OnOccasion("start"))])
    assert bench.occasions.step() is None
    bench.occasions.plan([NETWORK])
    assert bench.occasions.step() == 5 * NS
    bench.occasions.plan([])
    assert bench.occasions.step() is None


DISK = function("f", OnOccasion("disk-low"), OnOccasion("disk-ok"))


class Room:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
        self.total, self.free = total, total
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_frsize=1, f_blocks=total, f_bavail=self.free))


def test_a_disk_is_low_and_ok_again_with_something_in_between(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    room = Room(monkeypatch, 16_000 * MEGABYTE)
    bench.occasions.plan([DISK])
    assert bench.after("1s") == []
    came = []
    for share in (0.12, 0.099, 0.12, 0.149, 0.15, 0.12):
        room.free = int(share * room.total)
        came.append([topic for _, topic in bench.after("60s")])
    assert came == [[], ["system/disk-low"], [], [], ["system/disk-ok"], []]


def test_a_small_disk_is_low_by_its_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    room = Room(monkeypatch, 1000 * MEGABYTE)
    bench.occasions.plan([DISK])
    bench.after("1s")
    room.free = 255 * MEGABYTE
    bench.clock.advance("60s")
    bench.occasions.step()
    assert bench.fired.data() == {"free": 255 * MEGABYTE, "total": room.total}
    room.free = 383 * MEGABYTE
    assert len(bench.after("60s")) == 1
    room.free = 384 * MEGABYTE
    assert bench.after("60s") == [("f", "system/disk-ok")]


def test_what_is_bad_at_the_first_look_is_told_to_each_handler_once(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    room = Room(monkeypatch, 16_000 * MEGABYTE)
    room.free = 0
    bench.occasions.plan([DISK])
    assert bench.after("1s") == [("f", "system/disk-low")]
    bench.occasions.plan([DISK, function("g", OnOccasion("disk-low")), function("h", OnOccasion("disk-ok"))])
    assert bench.after("1s") == [("g", "system/disk-low")]
    room.free = room.total
    assert sorted(bench.after("60s")) == [("f", "system/disk-ok"), ("h", "system/disk-ok")]


VOLTAGE = function("f", OnOccasion("under-voltage"), OnOccasion("voltage-ok"))


def test_under_voltage_as_the_firmware_says_it(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.write("devices/platform/soc/soc:firmware/get_throttled", "0")
    bench.occasions = bench.made(tmp_path)
    bench.occasions.plan([VOLTAGE])
    assert bench.after("1s") == []
    bench.write("devices/platform/soc/soc:firmware/get_throttled", "50005")
    assert bench.after("10s") == [("f", "system/under-voltage")]
    bench.write("devices/platform/soc/soc:firmware/get_throttled", "50000")  # it was so since boot, and is not now
    assert bench.after("10s") == [("f", "system/voltage-ok")]


def test_under_voltage_as_newer_kernels_say_it(tmp_path: Path):
    bench = Bench(tmp_path)
    bench.write("class/hwmon/hwmon1/name", "rpi_volt")
    bench.write("class/hwmon/hwmon1/in0_lcrit_alarm", "1")
    bench.occasions = bench.made(tmp_path)
    bench.occasions.plan([VOLTAGE])
    assert bench.after("1s") == [("f", "system/under-voltage")]


def test_a_machine_that_does_not_tell_is_quiet(bench: Bench):
    bench.occasions.plan([VOLTAGE, NETWORK])
    assert bench.after("1h") == []
