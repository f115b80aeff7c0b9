"""Whatever a device or a broker sends is counted as docs/mqtt.md says, shown where it says so, and stops nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgefn.address import BrokerAddress
from edgefn.engine import session as sessions
from edgefn.engine.session import MAX_DELIVERIES, MAX_FRAME, SECOND, Session
from edgefn.manifest import Manifest
from edgefn.topics import shown
from tests.engine.harness import compiled
from tests.engine.hostile import FRAMES, PAYLOADS, TOPICS
from tests.engine.test_frames import publish
from tests.engine.test_ingest import SOURCE, Rig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "mqtt.md").read_text()
TABLE = PAGE.split("## What happens with …")[1].split("\n## ")[0]
# By what comes: the counters it is counted under, and whether an example is shown.
DOCUMENTED = {
    what.strip(): (set(re.findall(r"`([a-z_.0-9]+)`", counter)), example.strip())
    for what, _, counter, example in (
        line.strip("|").split("|")
        for line in TABLE.splitlines()
        if line.startswith("| ") and "| what becomes" not in line
    )
}
WELCOME = b"\x20\x03\x00\x00\x00"
ORDINARY = {"events.in", "events.samples", "events.unrouted"}
PLAIN = publish(b"m/a/x", b'{"a": 1}', 0, 0, b"")


class Wire:
    """A socket whose other end is the test."""

    def __init__(self) -> None:
        self.coming = bytearray()
        self.sent = bytearray()

    def setblocking(self, flag: bool) -> None:
        pass

    def recv_into(self, room: memoryview) -> int:
        if not self.coming:
            raise BlockingIOError
        got = min(len(room), len(self.coming))
        room[:got] = self.coming[:got]
        del self.coming[:got]
        return got

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def close(self) -> None:
        pass


class Way:
    """From the socket to the tables of the handlers, as in the engine."""

    def __init__(self, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wire = Wire()
        monkeypatch.setattr(sessions, "dial", lambda address: self.wire)
        self.rig = Rig(manifest)
        self.told: list[tuple[str, str]] = []
        self.session = Session(
            BrokerAddress("broker"), "me", self.rig.metrics, on_change=lambda *what: self.told.append(what),
            sample=lambda topic, error, sample: self.rig.failed.append((topic, error.reason, sample)),
        )  # fmt: skip
        self.session.subscribe(frozenset({"m/#"}))
        self.now = 0

    def connect(self) -> None:
        self.now = self.session.due()
        self.session.keep(self.now)

    def let_in(self) -> None:
        """A connection whose subscription has not been answered yet."""
        self.connect()
        self.feed(WELCOME)
        assert self.session.connected

    def feed(self, data: bytes) -> None:
        self.wire.coming += data
        while self.wire.coming and self.session.sock is not None:
            for arrived in self.session.read(self.now):
                self.rig.ingest.take(arrived, self.session.deliveries, 1, self.now)
        self.wire.coming.clear()

    def counted(self) -> set[str]:
        return {name for name, n in self.rig.metrics.counters.items() if n} - ORDINARY

    def rows(self) -> int:
        return len(self.rig.rows("m/{room}/x"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return compiled(tmp_path_factory.mktemp("handlers"), "hostile", SOURCE)


@pytest.fixture
def way(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Way:
    made = Way(manifest, monkeypatch)
    made.let_in()
    return made


@pytest.mark.parametrize("around", [0, 20])
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload(way: Way, name: str, around: int) -> None:
    """Alone, and among others which go through the kernels in runs."""
    payload, rows = PAYLOADS[name]
    counters, example = DOCUMENTED[name]
    way.feed(PLAIN * around + publish(b"m/a/x", payload, 0, 0, b"") + PLAIN * around)
    assert way.counted() == counters
    assert bool(way.rig.failed) == (example == "yes")
    assert all(topic == b"m/a/x" and payload.startswith(sample) for topic, _, sample in way.rig.failed)
    assert way.rows() == 2 * around + rows
    assert way.session.connected


@pytest.mark.parametrize("around", [0, 20])
@pytest.mark.parametrize("name", TOPICS)
def test_a_topic(way: Way, name: str, around: int) -> None:
    """Each message is counted, not each topic; and what is no topic is not remembered."""
    counters, example = DOCUMENTED[name]
    bad = publish(TOPICS[name], b'{"a": 1}', 2, 7, b"")
    way.feed(PLAIN * around + bad + bad + PLAIN * around)
    assert way.counted() == counters
    assert way.rig.metrics.counters["events.failed.bad_topic"] == 2
    assert len(way.rig.failed) == 2
    assert example == "yes"
    assert way.rows() == 2 * around
    assert len(way.rig.ingest._topics) == 1 + bool(around)
    way.session.acknowledge(1)
    assert way.wire.sent.count(b"\x40\x02\x00\x07") == 2  # else it would come again for ever


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame(way: Way, name: str) -> None:
    """What came before it counts, what comes behind it does not, and the next connection goes on."""
    frame = FRAMES[name]
    counters, example = DOCUMENTED[name]
    way.feed(PLAIN + frame + PLAIN)
    assert way.counted() == counters
    assert way.session.sock is None
    assert way.told[-1][0] == "offline"
    assert example == "yes"
    assert f"it begins with {bytes(frame + PLAIN)[:10]!r}"[:-1] in way.told[-1][1]
    way.connect()
    way.feed(WELCOME + PLAIN)
    assert way.rows() == 2


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_comes_again_and_again_does_not_make_us_hurry(
    way: Way, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions.random, "uniform", lambda low, high: high)
    waits = []
    for _ in range(9):
        way.feed(FRAMES[name])
        waits.append((way.session.due() - way.now) / SECOND)
        way.let_in()
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    way.now += 10 * 60 * SECOND  # a connection that holds makes up for it
    way.feed(FRAMES[name])
    way.let_in()
    way.feed(FRAMES[name])
    assert (way.session.due() - way.now) / SECOND <= 0.5


def test_a_message_larger_than_a_frame_may_be(way: Way) -> None:
    counters, example = DOCUMENTED["a message larger than 1 MB and 64 kB"]
    way.feed(publish(b"m/a/x", bytes(MAX_FRAME), 2, 5, b"") + PLAIN)
    assert way.counted() == counters
    assert way.rig.failed == [(b"m/a/x", "too_large", b"")]
    assert example == "yes"
    assert way.rows() == 1


def test_a_set_point_that_is_no_number(way: Way) -> None:
    counters, example = DOCUMENTED["a set-point for `latest` that is no number"]
    way.feed(publish(b"set/point", b'{"value": "high"}', 0, 0, b""))
    assert way.counted() == counters
    assert (example, way.rig.failed) == ("no", [])


@pytest.mark.parametrize(
    ("name", "data"), [("a CONNACK of one byte", b"\x20\x01\x00"), ("a message before the CONNACK", PLAIN)]
)
def test_what_is_no_welcome(manifest: Manifest, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes) -> None:
    way = Way(manifest, monkeypatch)
    way.connect()
    way.feed(data)
    assert way.counted() == DOCUMENTED[name][0]
    assert not way.session.connected
    assert way.rows() == 0


def test_messages_without_end_and_no_sign_that_our_acknowledgements_arrive(way: Way) -> None:
    burst = b"".join(publish(b"m/a/x", b"1", 2, n, b"") for n in range(1, 8192))
    sent = 0
    while way.session.sock is not None:
        way.feed(burst)
        way.session.acknowledge(1)
        way.rig.plan.sources["m/#"].table.take(), way.rig.plan.sources["m/{room}/x"].table.take()
        sent += 8191
    assert MAX_DELIVERIES < sent < MAX_DELIVERIES + 3 * 8191
    assert way.counted() == DOCUMENTED["messages without end, and no PINGRESP"][0]


def test_a_disconnect_is_counted_by_its_code_and_named(way: Way) -> None:
    way.feed(b"\xe0\x01\x8e")
    assert way.counted() == DOCUMENTED["DISCONNECT"][0] == {"session.disconnected.0x8e"}
    assert "taken over by a client of the same id" in way.told[-1][1]


def test_every_row_of_the_table_has_been_tried() -> None:
    others = {
        "a message larger than 1 MB and 64 kB", "a set-point for `latest` that is no number", "a CONNACK of one byte",
        "a message before the CONNACK", "messages without end, and no PINGRESP", "DISCONNECT",
    }  # fmt: skip
    assert set(DOCUMENTED) == {*PAYLOADS, *TOPICS, *FRAMES, *others}


def test_frames_cut_at_every_byte_are_the_same_frames(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = (
        publish(b"m/a/x", b'{"a": 1}', 2, 1, b"\x01\x01") + b"\xd0\x00" + publish(b"m/b/x", b"\x81\xa1a\x02", 0, 0, b"")
        + b"\x90\x04\x00\x01\x00\x01" + publish(b"m/a/x", b'{"a": [3, 4]}', 2, 2, b"") + b"\xe0\x02\x8b\x00"
    )  # fmt: skip
    for cut in range(1, len(stream)):
        way = Way(manifest, monkeypatch)
        way.let_in()
        way.feed(stream[:cut])
        way.feed(stream[cut:])
        assert [row["a"] for _, row in way.rig.rows("m/{room}/x")] == [1, 2, 3, 4], cut
        assert way.session.subscriptions.confirmed == {"m/#"}
        assert len(way.session.deliveries) == 2
        assert "server shutting down" in way.told[-1][1]


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        (b"a/b", "a/b"),
        (b"a\nERROR b", "a\ufffdERROR b"),
        (b"\x1b[2J", "\ufffd[2J"),
        (b"", "(no topic)"),
        (b"\xff", "\ufffd"),
    ],
)
def test_a_topic_in_a_log_cannot_look_like_more_than_one(topic: bytes, text: str) -> None:
    assert shown(topic) == text


def test_a_topic_in_a_log_is_short() -> None:
    assert len(shown(b"x" * 65535)) == 200
