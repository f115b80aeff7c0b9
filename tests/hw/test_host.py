from pathlib import Path

import pytest

from edgefn.drivers import load_driver


@pytest.fixture
def sys_folder(tmp_path: Path) -> Path:
    """The files of a Raspberry Pi that was short of power."""
    files = {
        "class/thermal/thermal_zone0/type": "gpu-thermal",
        "class/thermal/thermal_zone0/temp": "70000",
        "class/thermal/thermal_zone1/type": "cpu-thermal",
        "class/thermal/thermal_zone1/temp": "48312",
        "devices/platform/soc/soc:firmware/get_throttled": "50001",
        "class/hwmon/hwmon0/name": "cpu_thermal",
        "class/hwmon/hwmon1/name": "rpi_volt",
        "class/hwmon/hwmon1/in0_lcrit_alarm": "0",
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return tmp_path


DRIVER = load_driver("host")
MODULE = DRIVER.function.__globals__
Board, NetworkRates = MODULE["Board"], MODULE["NetworkRates"]


async def readings(n: int, **options: object) -> list[dict[str, float]]:
    generator = DRIVER.function(**{"interval": 0.001, **options})
    try:
        return [await anext(generator) for _ in range(n)]
    finally:
        await generator.aclose()


async def test_this_machine_gives_real_readings():
    first, second = await readings(2)
    assert 0 <= second["memory"] <= 100
    assert 0 <= second["disk"] <= 100
    assert second["uptime"] > 0
    assert "received" not in first, "a rate needs two readings"
    assert second["received"] >= 0
    assert set(second) <= set(DRIVER.fields)


async def test_what_the_machine_does_not_have_is_left_out(tmp_path: Path):
    (reading,) = await readings(1, sys=str(tmp_path))
    assert {"temperature", "under_voltage", "throttled"}.isdisjoint(reading)


def test_the_processors_own_temperature_is_taken(sys_folder: Path):
    assert Board(sys_folder).read()["temperature"] == 48.312


@pytest.mark.parametrize(
    ("text", "under_voltage", "throttled"),
    [("0", False, False), ("1", True, False), ("50000", False, False), ("50005", True, True), ("e0008", False, True)],
)
def test_the_firmwares_bits(sys_folder: Path, text: str, under_voltage: bool, throttled: bool):
    (sys_folder / "devices/platform/soc/soc:firmware/get_throttled").write_text(text)
    board = Board(sys_folder).read()
    assert (board["under_voltage"], board["throttled"]) == (under_voltage, throttled)


@pytest.mark.parametrize(("text", "under_voltage"), [("0", False), ("1", True)])
def test_the_kernels_alarm_where_the_firmware_says_nothing(sys_folder: Path, text: str, under_voltage: bool):
    (sys_folder / "devices/platform/soc/soc:firmware/get_throttled").unlink()
    (sys_folder / "class/hwmon/hwmon1/in0_lcrit_alarm").write_text(text)
    board = Board(sys_folder).read()
    assert board["under_voltage"] is under_voltage
    assert "throttled" not in board


def test_a_file_that_goes_away_is_left_out(sys_folder: Path):
    board = Board(sys_folder)
    (sys_folder / "class/thermal/thermal_zone1/temp").unlink()
    assert "temperature" not in board.read()


def test_an_interface_that_goes_away_is_no_negative_rate(monkeypatch: pytest.MonkeyPatch):
    class Counter:
        def __init__(self, n: int) -> None:
            self.bytes_recv = self.bytes_sent = n

    times = iter([10.0, 12.0, 14.0])
    counters = iter([{"eth0": Counter(1000)}, {"eth0": Counter(3000), "lo": Counter(10**9)}, {}])
    monkeypatch.setattr(MODULE["psutil"], "net_io_counters", lambda pernic: next(counters))
    monkeypatch.setattr(MODULE["time"], "monotonic", lambda: next(times))
    rates = NetworkRates()
    assert [rates.read() for _ in range(3)] == [
        {},
        {"received": 1000, "sent": 1000},
        {"received": 0, "sent": 0},
    ]
