"""The engine over a clock that is set: whose windows are cut, what its rows say, and that nothing is lost or counted twice."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgefn.address import BrokerAddress
from edgefn.engine import engine as engine_module
from edgefn.engine.engine import Engine
from edgefn.engine.plan import Part
from edgefn.engine.session import Arrived, Session
from edgefn.events import encode
from edgefn.manifest import Manifest
from edgefn.running import Watch
from tests.engine.harness import Kept, compiled

S = 10**9
HOUR = 3600 * S
START = 497_222 * HOUR  # in 2026; a window begins here

FILE = '''"""Windows over events of edgefn's own drivers, of devices with a clock, and of devices without."""

from edgefn import aggregate, hopping, session, summarize, tumbling

SUM = ("sum",)


@aggregate("edgefn/+/event/own/{k}", tumbling("1h"))
def own(x) -> float:
    return x.sum()


runs = summarize("edgefn/+/event/own/{k}", session("10m"), SUM, fields=("x",))
rolling = summarize("edgefn/+/event/own/{k}", hopping("2h", "1h"), SUM, fields=("x",))
day = summarize(own, tumbling("1d"), SUM, fields=("value",))
device = summarize("device/{k}", tumbling("1h"), SUM, fields=("x",))
plain = summarize("plain/{k}", tumbling("1h"), SUM, fields=("x",))
'''


@dataclass
class Offset:
    """Gateway time that is ten minutes after START now, and can be set."""

    offset: int = field(default_factory=lambda: START + 600 * S - time.monotonic_ns())


@dataclass(frozen=True)
class Row:
    key: str
    ts: int
    value: float
    own: bool
    offset: int


class Fed(Session):
    """A session that brings what a test gives it."""

    def keep(self, now: int) -> None:
        pass

    def read(self, now: int) -> Iterator[Arrived]:
        for topic, payload, packet_id, dup in self.__dict__.pop("fed", []):
            row = [0, len(topic), len(topic), len(payload), 2 | dup << 3, packet_id, hash((topic, payload)) >> 1]
            yield Arrived(np.frombuffer(bytearray(topic + payload), np.uint8), np.array([row], np.int64))


class Running:
    """One engine, driven by hand, and the store of its commits."""

    def __init__(self, manifest: Manifest, clock: Offset, kept: Kept, *, boot: str = "b1", right: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.kept = kept
        self.sock, self._other = socket.socketpair()
        self._watch = Watch.create()
        self.engine = Engine(self, self._watch, clock)  # type: ignore[arg-type]
        self.engine._told(
            {
                "type": "start", "interval": S, "checkpoint": dict(kept.parts), "gateway": "gw", "boot": boot, "right": right,
                "broker": BrokerAddress().to_dict(), "client_id": "engine",
            }
        )  # fmt: skip
        self.engine._told({"type": "plan", "manifests": [msgspec.to_builtins(manifest)], "forward": []})
        self.packet_id = 0

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self.sock.close()
        self._other.close()
        self._watch.close()

    def events(self, *events: tuple[str, dict[str, Any]], dup: bool = False) -> None:
        fed = []
        for topic, fields in events:
            self.packet_id += 1
            fed.append((topic.encode(), encode(fields), self.packet_id, dup))
        self.engine._session.__dict__["fed"] = fed
        self.engine._work()

    def commit(self) -> dict[str, list[Row]]:
        """Commits what there is, as the store would; returns the rows of the commit by handler."""
        self.engine._work()
        self.engine._commit(time.monotonic_ns())
        message = self.sent[-1]
        self.kept.add([Part(*part) for part in message["parts"]])
        self.engine._told({"type": "committed", "number": message["number"]})
        rows: dict[str, list[Row]] = {}
        for one in message["outputs"]:
            columns = one["labels"], one["ts"].tolist(), one["values"][0].tolist(), one["own"].tolist()
            rows.setdefault(one["handler"], []).extend(
                Row(key, ts - START, value, bool(own), one["offset"])
                for key, ts, value, own in zip(*columns, strict=True)
            )
        return rows

    @property
    def late(self) -> int:
        return sum(group.panes.late for group in self.engine.plan.groups.values())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return compiled(tmp_path_factory.mktemp("steps"), "steps", FILE)


@pytest.fixture
def clock() -> Offset:
    return Offset()


@pytest.fixture(autouse=True)
def fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "Session", Fed)


@pytest.fixture
def start(manifest: Manifest, clock: Offset) -> Iterator[Any]:
    running: list[Running] = []

    def start(kept: Kept | None = None, **how: Any) -> Running:
        running.append(Running(manifest, clock, kept or Kept(), **how))
        return running[-1]

    yield start
    for one in running:
        one.close()


def at(clock: Offset, after: float = 0.0) -> int:
    """Gateway time, that many seconds from now."""
    return time.monotonic_ns() + clock.offset + int(after * S)


def own(clock: Offset, x: float, after: float = 0.0, key: str = "a") -> tuple[str, dict[str, Any]]:
    return f"edgefn/gw/event/own/{key}", {"ts": at(clock, after), "x": x}


@pytest.mark.parametrize("step", [HOUR, -HOUR, 2 * S, -2 * S, -56 * 365 * 24 * HOUR, 79 * 365 * 24 * HOUR], ids=str)
def test_windows_by_the_gateways_clock_are_cut_and_those_of_devices_are_not(
    start: Any, clock: Offset, step: int
) -> None:
    engine, before = start(), clock.offset
    engine.events(own(clock, 1), own(clock, 2), ("device/d", {"ts": START + 1, "x": 10}), ("plain/p", {"x": 100}))
    assert engine.commit() == {}
    clock.offset += step
    engine.events(own(clock, 4), ("device/d", {"ts": START + 2, "x": 20}), ("plain/p", {"x": 200}))
    rows = engine.commit()
    assert rows["own"] == [Row("a", HOUR, 3, True, before)]
    assert rows["plain"] == [Row("p", HOUR, 100, True, before)]
    assert [(row.value, row.offset) for row in rows["runs"]] == [(3, before)]
    assert [row.value for row in rows["rolling"]] == [3, 3]  # it stood in two windows
    assert [(row.value, row.offset) for row in rows["day"]] == [(3, before)]
    assert engine.late == 0
    # A device goes on, unless it seems to be far ahead: then it goes by the gateway's clock, too.
    is_believed = step > -HOUR
    assert rows.get("device", []) == ([] if is_believed else [Row("d", HOUR, 10, False, before)])
    # And what came since is whole, in windows of its own.
    after = clock.offset
    clock.offset += 5 * HOUR
    rows = engine.commit()
    assert [(row.value, row.own, row.offset) for row in rows["own"] + rows["plain"]] == [
        (4, True, after),
        (200, True, after),
    ]
    assert [(row.value, row.own) for row in rows.get("device", [])] == ([] if is_believed else [(20, True)])
    engine.events(("device/d", {"ts": START + 2 * HOUR, "x": 40}))
    assert [row.value for row in engine.commit().get("device", [])] == ([30] if is_believed else [])
    assert engine.late == 0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_an_event_on_its_way_while_the_clock_is_set_comes_to_the_new_time(start: Any, clock: Offset, step: int) -> None:
    engine = start()
    engine.events(own(clock, 1))
    on_its_way = own(clock, 2, after=-0.2)
    clock.offset += step
    engine.events(own(clock, 4))
    engine.commit()
    engine.events(on_its_way)
    clock.offset += 5 * HOUR
    assert [row.value for row in engine.commit()["own"]] == [6]
    assert engine.late == 0


def test_a_device_that_is_not_believed_goes_by_the_gateways_clock(start: Any, clock: Offset) -> None:
    """The gateway has started late: devices that know the time seem to be hours ahead."""
    engine, before = start(right=False), clock.offset
    right = {"ts": at(clock, 8 * 3600), "x": 1}
    engine.events(("device/d", right))
    clock.offset += 8 * HOUR
    engine.events(("device/d", {"ts": right["ts"] + S, "x": 2}))
    assert engine.commit()["device"] == [Row("d", HOUR, 1, True, before)]
    engine.events(("device/d", {"ts": right["ts"] + 2 * S, "x": 4}))
    clock.offset += 5 * HOUR
    engine.events(("device/d", {"ts": at(clock), "x": 8}))
    assert [(row.value, row.own) for row in engine.commit()["device"]] == [(6, False)]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@pytest.mark.parametrize("when", ["before it looked", "before the commit", "after the commit"])
def test_killed_around_the_step_it_loses_nothing_and_counts_nothing_twice(
    start: Any, clock: Offset, step: int, when: str
) -> None:
    kept, out = Kept(), Counter[str]()

    def commit(engine: Running) -> None:
        out.update({name: int(sum(row.value for row in rows)) for name, rows in engine.commit().items()})

    engine = start(kept)
    engine.events(own(clock, 1), ("plain/p", {"x": 1}))
    commit(engine)
    unsaved = [own(clock, 2), ("plain/p", {"x": 2})]
    engine.events(*unsaved)
    clock.offset += step
    if when != "before it looked":
        engine.events()
    if when == "after the commit":
        commit(engine)
        unsaved = []
    engine = start(kept)
    engine.events(*unsaved)  # the broker sends again what was not acknowledged
    engine.events(own(clock, 4), ("plain/p", {"x": 4}))
    commit(engine)
    assert out["own"] == out["plain"] == (3 if when == "after the commit" else 1)
    clock.offset += 5 * HOUR
    commit(engine)
    assert out["own"] == out["plain"] == out["runs"] == out["day"] == 7
    assert out["rolling"] == 14
    assert engine.late == 0


def test_a_boot_with_a_clock_that_is_behind_does_not_wait_for_the_old_time(start: Any, clock: Offset) -> None:
    kept, before = Kept(), clock.offset
    engine = start(kept)
    engine.events(own(clock, 1))
    engine.commit()
    clock.offset -= HOUR // 2
    engine = start(kept, boot="b2")
    engine.events(own(clock, 2))
    rows = engine.commit()
    assert rows["own"] == [Row("a", HOUR, 1, True, before)]
    assert engine.late == 0


def test_a_boot_with_a_doubtful_clock_keeps_its_samples_apart_and_a_right_one_goes_on(
    start: Any, clock: Offset
) -> None:
    before = clock.offset
    for right in (True, False):
        kept = Kept()
        clock.offset = before
        engine = start(kept)
        engine.events(own(clock, 1))
        engine.commit()
        clock.offset += HOUR // 2
        engine = start(kept, boot="b2", right=right)
        engine.events(own(clock, 2))
        rows = engine.commit()
        assert rows.get("own", []) == ([] if right else [Row("a", HOUR, 1, True, before)])
        clock.offset += 5 * HOUR
        assert [row.value for row in engine.commit()["own"]] == [3 if right else 2]


def test_a_handler_that_comes_back_after_the_clock_was_set_back_does_not_wait_either(
    start: Any, clock: Offset, tmp_path: Path, manifest: Manifest
) -> None:
    engine = start()
    engine.events(own(clock, 1))
    engine.engine._told({"type": "plan", "manifests": [], "forward": []})
    engine.commit()
    clock.offset -= HOUR
    engine.commit()
    engine.engine._told({"type": "plan", "manifests": [msgspec.to_builtins(manifest)], "forward": []})
    engine.events(own(clock, 2))
    assert engine.late == 0
    assert [row.value for row in engine.commit()["own"]] == [1]
