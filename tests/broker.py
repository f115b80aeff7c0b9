"""Real mosquitto brokers for tests, and the reason for skipping where there is none."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edgefn.broker import PrivateBroker, find_mosquitto


def make_broker(
    *,
    port: int | None = None,
    config: Sequence[str] = (),
    persistence: Path | None = None,
    passwords: Path | None = None,
) -> PrivateBroker:
    """A broker that is not started yet: use it in a `with` block. Skips the test where mosquitto is missing."""
    if find_mosquitto() is None:
        pytest.skip("needs mosquitto: sudo apt install mosquitto")
    return PrivateBroker(port, config=config, persistence=persistence, passwords=passwords)


def write_passwords(path: Path, users: Mapping[str, str]) -> Path:
    """A password file that mosquitto reads: write_passwords(tmp_path / "passwords", {"pump": "secret"})."""
    tool = find_mosquitto()
    assert tool is not None
    path.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    path.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)
    return path
