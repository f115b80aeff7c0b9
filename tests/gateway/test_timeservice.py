"""What this machine says of its clock, by the kernel's word and the files of the usual services."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.gateway.timeservice import TimeService


class Kernel:
    def __init__(self, state: int) -> None:
        self.state = state

    def adjtimex(self, _: object) -> int:
        return self.state


@pytest.mark.parametrize(("state", "synchronised"), [(0, True), (2, True), (5, False), (-1, False)])
def test_the_kernel_says_whether_the_clock_is_synchronised(tmp_path: Path, state: int, synchronised: bool) -> None:
    service = TimeService(tmp_path)
    service._libc = Kernel(state)  # type: ignore[assignment]
    assert service.is_synchronised() is synchronised


def test_timesyncd_leaves_a_file_when_it_has(tmp_path: Path) -> None:
    service = TimeService(tmp_path)
    service._libc = Kernel(5)  # type: ignore[assignment]
    (tmp_path / "systemd/timesync").mkdir(parents=True)
    assert not service.is_synchronised()
    (tmp_path / "systemd/timesync/synchronized").touch()
    assert service.is_synchronised()


@pytest.mark.parametrize("name", ["systemd/timesync/x", "chrony/chronyd.pid", "ntpd.pid", "ntpd.sock"])
def test_a_service_that_runs_is_seen(tmp_path: Path, name: str) -> None:
    service = TimeService(tmp_path)
    assert not service.is_running()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert service.is_running()


def test_this_kernel_answers() -> None:
    assert isinstance(TimeService().is_synchronised(), bool)
