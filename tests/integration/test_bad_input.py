"""Whatever is wrong ends in a message that says what and where; the rest keeps running, and the cloud sees no gap."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from tests.broker import make_broker, write_passwords
from tests.integration.device import GATEWAY, Device, device

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

GOOD = """
from edgefn import aggregate, count

@aggregate("good/#", count(1))
def echo(x) -> float:
    return x[0]
"""

RAISES = """
from edgefn import transform

@transform("bad/raises", to="made/raises")
def raises(x):
    if x == 13:
        raise ValueError("thirteen")
    return x
"""

ALLOCATES = """
import numpy as np
from edgefn import transform

@transform("bad/allocates", to="made/allocates")
def allocates(n: int):
    return np.ones(n).sum()
"""

OUT_OF_BOUNDS = """
import numpy as np
from edgefn import transform

@transform("bad/bounds", to="made/bounds")
def bounds(i: int):
    a = np.zeros(4)
    a[i] = 1.0
    return a.sum()
"""

HANGS = """
from edgefn import filter

@filter("bad/hangs")
def hangs(x):
    while x > 0:
        x += 1.0
    return True
"""


async def still_works(gateway: Device, x: float) -> None:
    """An event of another handler goes the whole way."""
    await gateway.publish("good/thing", {"x": x})
    await gateway.local.until(f"edgefn/{GATEWAY}/summary/echo/good/thing", lambda row: row["values"]["value"] == x)


async def no_gap(gateway: Device) -> None:
    """Every summary is in the cloud, each stream dense from 1."""
    made = len(gateway.local.all(f"edgefn/{GATEWAY}/summary/echo/"))
    await gateway.far.until(f"edgefn/{GATEWAY}/summary/echo", lambda row: row["seq"] == made)
    numbers = [row["seq"] for row in gateway.far.all(f"edgefn/{GATEWAY}/summary/echo")]
    assert sorted(set(numbers)) == list(range(1, made + 1))


async def test_handlers_that_raise_allocate_or_write_out_of_bounds_cost_their_event_only(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        for name, source in (("good", GOOD), ("raises", RAISES), ("allocates", ALLOCATES), ("bounds", OUT_OF_BOUNDS)):
            gateway.handler(f"{name}.py", source)
        await gateway.start()
        for name in ("echo", "raises", "allocates", "bounds"):
            await gateway.active(name)
        await gateway.connected()
        for x in (1, 13, 2):
            await gateway.publish("bad/raises", {"x": x})
        for n in (10, 10**10, 20):
            await gateway.publish("bad/allocates", {"n": n})
        for i in (1, 10**9, -5, 2):
            await gateway.publish("bad/bounds", {"i": i})
        for name, good in (("raises", [1.0, 2.0]), ("allocates", [10.0, 20.0]), ("bounds", [1.0, 1.0])):
            await gateway.local.until(f"made/{name}", lambda row, last=good[-1]: row["values"]["value"] == last)
            state = await gateway.local.until(
                f"edgefn/{GATEWAY}/handler/{name}", lambda one: one.get("meter", {}).get("raised", 0) >= 1
            )
            assert state["state"] == "active"
            await gateway.local.until(f"edgefn/{GATEWAY}/handler/{name}", lambda one: "last_failure" in one)
        await still_works(gateway, 4.0)
        metrics = gateway.local.all(f"edgefn/{GATEWAY}/metrics")[-1]
        assert metrics["counters"].get("engine.restarts", 0) == 0
        await no_gap(gateway)


async def test_a_handler_that_loops_for_ever_is_named_and_after_three_times_set_aside(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        gateway.handler("good.py", GOOD)
        gateway.handler("hangs.py", HANGS)
        await gateway.start()
        await gateway.active("hangs")
        await gateway.connected()
        await still_works(gateway, 1.0)
        await gateway.publish("bad/hangs", {"x": 1})  # QoS 1: it comes again to each new engine
        state = await gateway.local.until(f"edgefn/{GATEWAY}/handler/hangs", lambda one: one["state"] == "quarantined")
        assert state["strikes"] == 3
        await still_works(gateway, 2.0)
        log = gateway.local.all(f"edgefn/{GATEWAY}/log")
        assert any("hangs" in record["message"] and "quarantine" in record["message"] for record in log)
        # A changed file is given a new chance.
        seen = len(gateway.local.messages)
        gateway.handler("hangs.py", HANGS.replace("while x > 0", "while x > 10"))
        await gateway.active("hangs", after=seen)
        await still_works(gateway, 3.0)
        await no_gap(gateway)


PAYLOADS = {
    "empty": b"",
    "not_utf8": b'{"x": "\xff\xfe"}',
    "bad_json": b'{"x": NaN}',
    "too_deep": b"[" * 10_000 + b"]" * 10_000,
    "not_an_object": b'"a text"',
    "bad_msgpack": b"\x81\xa1x",
    "bad_array": b"\x81\xa1x\xc7\x02\x01?1",
}


async def test_payloads_that_cannot_be_used_are_counted_by_reason(
    tmp_path: Path, local: PrivateBroker, cloud: PrivateBroker
) -> None:
    async with device(tmp_path, local.port, cloud.port) as gateway:
        gateway.handler("good.py", GOOD)
        await gateway.start()
        await gateway.active("echo")
        await gateway.connected()
        await still_works(gateway, 1.0)
        for payload in PAYLOADS.values():
            await gateway.publish("good/thing", payload)
        await gateway.publish("good/thing", b"1" * (10 << 20))
        await gateway.publish("good/thing", b"5" * (1 << 20) + b"0" * 1000)
        await gateway.publish("good/thing", {"x": "a text"})
        await gateway.publish("good/thing", {"y": 1})
        # mosquitto itself refuses more than 200 levels; the gateway takes 64.
        await gateway.local.bus._connection.publish("good" + "/" * 150, b'{"x": 1}', 1, False, None)  # type: ignore[union-attr]
        await still_works(gateway, 2.0)
        reasons = {*PAYLOADS, "too_large", "bad_topic"}
        metrics = await gateway.local.until(
            f"edgefn/{GATEWAY}/metrics",
            lambda one: {f"events.failed.{reason}" for reason in reasons} <= one["counters"].keys(),
        )
        assert metrics["counters"]["events.failed.too_large"] == 2
        assert metrics["counters"]["fields.unusable.not_a_number"] == 1
        records = gateway.local.all(f"edgefn/{GATEWAY}/log")
        assert any("good/thing" in record["message"] for record in records)
        await no_gap(gateway)


async def test_a_broker_that_wants_a_password_is_named_and_joined_when_it_gets_one(tmp_path: Path) -> None:
    passwords = write_passwords(tmp_path / "passwords", {"edgefn": "secret"})
    with make_broker(passwords=passwords) as broker:
        address = BrokerAddress("127.0.0.1", broker.port, "edgefn", "secret")
        async with device(tmp_path, broker.port, address=address) as gateway:
            gateway.handler("good.py", GOOD)
            await gateway.start()
            await waits_for(lambda: "refuses us" in gateway.log, gateway)
            assert f"127.0.0.1:{broker.port}" in gateway.log
            assert "not authorized; see [broker] in edgefn.toml" in gateway.log
            await gateway.stop()
            settings = (tmp_path / "edgefn.toml").read_text()
            (tmp_path / "secret.txt").write_text("secret\n")
            settings = settings.replace("[broker]\n", '[broker]\nusername = "edgefn"\npassword_file = "secret.txt"\n')
            (tmp_path / "edgefn.toml").write_text(settings)
            await gateway.start()
            await gateway.connected()
            await still_works(gateway, 1.0)


async def test_without_a_broker_it_waits_and_joins_when_there_is_one(tmp_path: Path, local: PrivateBroker) -> None:
    async with device(tmp_path, local.port) as gateway:
        gateway.handler("good.py", GOOD)
        local.stop()
        await gateway.start()
        await waits_for(lambda: "cannot be reached" in gateway.log, gateway)
        local.start()
        await gateway.connected()
        await still_works(gateway, 1.0)


async def waits_for(condition: object, gateway: Device) -> None:
    assert callable(condition)
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(gateway.log[-2000:])


# What is wrong before anything runs: a message, and an exit status that is not 0.


def run(folder: Path, settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "edgefn.toml").write_text(settings)
    return subprocess.run(
        [sys.executable, "-m", "edgefn", "run", str(folder)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_settings_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    result = run(tmp_path, "version = 99\n")
    assert result.returncode == 2
    assert "edgefn.toml: version = 99 is newer" in result.stderr


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, local: PrivateBroker) -> None:
    result = run(tmp_path, f'[gateway]\nstate = "/proc/edgefn"\n[broker]\nport = {local.port}\n')
    assert result.returncode == 2
    assert "/proc/edgefn" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_gateways_on_one_state_folder_are_refused(tmp_path: Path, local: PrivateBroker) -> None:
    settings = f'driver = []\n[gateway]\nstate = "state"\n[broker]\nport = {local.port}\n'
    (tmp_path / "edgefn.toml").write_text(settings)
    first = subprocess.Popen([sys.executable, "-m", "edgefn", "run", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    try:
        for line in first.stderr:
            if "connected" in line:
                break
        result = run(tmp_path, settings)
        assert result.returncode == 2
        assert "has this store open" in result.stderr
        assert "Traceback" not in result.stderr
    finally:
        first.kill()
        first.wait()


def test_a_port_that_something_else_uses_is_named(tmp_path: Path, local: PrivateBroker) -> None:
    settings = f'[gateway]\nstate = "state"\n[broker]\nprivate = "always"\nport = {local.port}\n'
    result = run(tmp_path, settings)
    assert result.returncode == 2
    assert str(local.port) in result.stderr
    assert "Traceback" not in result.stderr


def test_every_finding_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "typo.py").write_text("from edgefn import filter\n@filter('a')\ndef f(x):\n    return z\n")
    (tmp_path / "edgefn.toml").write_text(
        '[engine]\ndeadlin = "1s"\n[[uplink]]\nname = "cloud"\ntype = "carrier-pigeon"\n'
    )
    result = subprocess.run(
        [sys.executable, "-m", "edgefn", "check", str(tmp_path), "--json"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    findings = "\n".join(json.loads(result.stdout)["findings"])
    assert "carrier-pigeon" in findings
    assert "typo.py:4" in findings
    assert "did you mean engine.deadline" in result.stderr
