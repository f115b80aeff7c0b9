"""The files that put edgefn on a device: the broker's drop-in and access list with a real broker, and the unit."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Iterator

import pytest

from edgefn.broker import PrivateBroker
from edgefn.resources import bundled
from tests.broker import make_broker, write_passwords

FOLDER = bundled("systemd")
USERS = ("edgefn", "operator", "monitor", "pump", "valve")
GATEWAY = "edgefn/gw-1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A broker with the drop-in and the access list as they are, at another address."""
    folder = tmp_path_factory.mktemp("mosquitto")
    passwords = write_passwords(folder / "edgefn.passwd", {user: f"{user}'s" for user in USERS})
    (folder / "edgefn.acl").write_text((FOLDER / "mosquitto/edgefn.acl").read_text())
    (folder / "edgefn.acl").chmod(0o600)
    dropin = (FOLDER / "mosquitto/edgefn.conf").read_text()
    dropin = re.sub(
        r"^(listener 1883|allow_anonymous false|password_file .*)$", "", dropin, flags=re.M
    )  # of the helper
    dropin = dropin.replace("/etc/mosquitto/edgefn.acl", str(folder / "edgefn.acl"))
    lines = [line for line in dropin.splitlines() if line and not line.startswith("#")]
    with make_broker(config=lines, passwords=passwords, persistence=folder / "state") as running:
        for user in USERS:
            publish(running, user, f"devices/{user}/end", "end")
        yield running


def client(tool: str, broker: PrivateBroker, user: str, *arguments: str) -> list[str]:
    return [tool, "-h", broker.host, "-p", str(broker.port), "-u", user, "-P", f"{user}'s", *arguments]


def publish(broker: PrivateBroker, user: str, topic: str, text: str) -> None:
    """Retained, so that the reader may come later. The broker acknowledges what it refuses as well (MQTT 3.1.1)."""
    command = client("mosquitto_pub", broker, user, "-q", "1", "-r", "-t", topic, "-m", text)
    subprocess.run(command, check=True, timeout=10)


def arrives(broker: PrivateBroker, topic: str, *, writer: str, reader: str = "edgefn") -> bool:
    """Whether what `writer` publishes reaches `reader`, who then hears of a topic of its own that it has come to the end."""
    publish(broker, writer, topic, f"from {writer}")
    command = client("mosquitto_sub", broker, reader, "-q", "1", "-t", topic, "-t", f"devices/{reader}/end", "-W", "5")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        heard = [next(listening.stdout, "nothing").strip()]
        if heard != ["end"]:
            heard.append(next(listening.stdout, "nothing").strip())
        listening.kill()
    assert heard[-1] == "end", heard
    return f"from {writer}" in heard


@pytest.mark.integration
@pytest.mark.parametrize(
    ("writer", "topic", "allowed"),
    [
        ("pump", "devices/pump/flow", True),
        ("pump", "devices/valve/flow", False),
        ("pump", f"{GATEWAY}/event/pump", False),
        ("pump", f"{GATEWAY}/cmd/pause", False),
        ("pump", "lights/kitchen/set", False),
        ("edgefn", f"{GATEWAY}/status", True),
        ("edgefn", f"{GATEWAY}/summary/comfort/attic", True),
        ("operator", f"{GATEWAY}/cmd/reload", True),
        ("operator", f"{GATEWAY}/status", False),
        ("monitor", f"{GATEWAY}/cmd/reload", False),
    ],
)
def test_who_may_write_where(broker: PrivateBroker, writer: str, topic: str, allowed: bool):
    assert arrives(broker, topic, writer=writer) is allowed


@pytest.mark.integration
@pytest.mark.parametrize(
    ("reader", "topic", "writer", "allowed"),
    [
        ("monitor", f"{GATEWAY}/info", "edgefn", True),
        ("monitor", "devices/pump/level", "pump", False),
        ("operator", "devices/pump/level", "pump", True),
        ("valve", "devices/pump/level", "pump", False),
        ("pump", f"{GATEWAY}/info", "edgefn", False),
    ],
)
def test_who_may_read_what(broker: PrivateBroker, reader: str, topic: str, writer: str, allowed: bool):
    assert arrives(broker, topic, writer=writer, reader=reader) is allowed


@pytest.mark.integration
def test_nobody_gets_in_without_a_password(broker: PrivateBroker):
    tried = subprocess.run(
        ["mosquitto_pub", "-h", broker.host, "-p", str(broker.port), "-t", "devices/pump/x", "-m", "1"],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert tried.returncode != 0
    assert "not authorised" in (tried.stdout + tried.stderr).lower()


def test_the_drop_in_stands_beside_what_debian_sets():
    """mosquitto refuses a second persistence_location, pid_file or log_dest that differs."""
    lines = (FOLDER / "mosquitto/edgefn.conf").read_text().splitlines()
    used = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert not used & {"persistence_location", "pid_file", "log_dest", "include_dir"}


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / "edgefn.service")
    return parser["Service"]


def test_the_unit_restarts_what_dies_and_what_hangs():
    service = unit()
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert 0 < int(service["WatchdogSec"]) <= 60
    assert service["StateDirectory"] == service["CacheDirectory"] == service["User"] == "edgefn"
    assert service["CacheDirectoryMode"] == "0700"


def test_the_unit_lets_numba_work_and_drivers_reach_pins():
    service = unit()
    assert "MemoryDenyWriteExecute" not in service
    assert "PrivateDevices" not in service


def test_the_user_of_the_unit_is_made():
    users = (FOLDER / "sysusers.d/edgefn.conf").read_text()
    assert re.search(rf"^u {unit()['User']} ", users, re.M)
    assert "root edgefn" in (FOLDER / "tmpfiles.d/edgefn.conf").read_text()
