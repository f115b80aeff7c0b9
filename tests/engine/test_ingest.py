"""Messages become rows in the order in which they came, whichever way each of them goes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn import events
from edgefn.engine import frames, ingest
from edgefn.engine.deliveries import Deliveries
from edgefn.engine.forwarding import OF_DRIVER, Forwarding
from edgefn.engine.ingest import Ingest
from edgefn.engine.plan import Plan
from edgefn.engine.sequences import Sequences
from edgefn.engine.session import Arrived
from edgefn.engine.sources import Source
from edgefn.engine.timeline import Timeline
from edgefn.manifest import Manifest
from edgefn.metrics import Metrics
from tests.engine.harness import compiled

NOW = 1_800_000_000 * 10**9

SOURCE = """
from edgefn import field, filter, latest

@filter("m/{room}/x")
def one(a, b=0.0):
    return True

@filter("m/#")
def two(
    a, wanted=latest("set/point", default=1.0), deep=field("n.o.a", default=0.0), b=field("n.b", default=0.0),
    flat=field("other:0", default=0.0), gain=latest("set/point", "n.b", default=1.0),
):
    return True
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return compiled(tmp_path_factory.mktemp("handlers"), "both", SOURCE)


class Clock:
    offset = NOW


class Standing(Timeline):
    """Time stands still, so that each of two ways takes the same."""

    def arrival(self) -> int:
        return NOW


class Rig:
    """A plan with the ingest under test."""

    def __init__(self, manifest: Manifest, keys: int | None = None) -> None:
        self.metrics = Metrics()
        self.ran: list[int] = []
        self.sequences = Sequences(self.metrics)
        self.plan = Plan([manifest], self.metrics)
        if keys is not None:
            for source in self.plan.sources.values():
                source.keys._limit = keys
        self.deliveries = Deliveries()
        self.failed: list[tuple[bytes, str, bytes]] = []
        self.ingest = Ingest(
            self.plan,
            self.metrics,
            self.sequences,
            Standing(Clock()),
            b"m/driver/",
            lambda topic, error, sample: self.failed.append((topic, error.reason, sample)),
            self._run,
        )

    def _run(self) -> None:
        self.ran.append(sum(source.table.take().n for source in self.plan.sources.values()))

    def take(self, *messages: tuple[bytes, bytes, int]) -> bool:
        return self.ingest.take(arrived(messages), self.deliveries, 1, 0)

    def rows(self, name: str) -> list[tuple[str, dict[str, float]]]:
        """What waits in the table of a source: label, and the values that are there."""
        source: Source = self.plan.sources[name]
        table = source.table
        return [
            (
                source.keys.labels[table.key[i]],
                {
                    field: float(table.columns[c, i])
                    for c, field in enumerate(table.fields)
                    if table.present[i] >> c & 1
                },
            )
            for i in range(table.n)
        ]


def arrived(messages: tuple[tuple[bytes, bytes, int], ...]) -> Arrived:
    """(topic, payload, flags) as the scanner describes them; packet ids are 1, 2, 3 …"""
    data, rows = b"", []
    for number, (topic, payload, flags) in enumerate(messages, start=1):
        at = len(data)
        data += topic + payload
        rows.append([at, len(topic), at + len(topic), len(payload), flags, number if flags & 6 else 0, hash(payload)])
    return Arrived(
        np.frombuffer(data or b"\0", np.uint8).copy(), np.array(rows, np.int64).reshape(len(rows), frames.WORDS)
    )


TOPICS = [b"m/a/x", b"m/b/x", b"m/c", b"other", b"set/point", b"m/\xff", b"m/driver/x", b""]
PAYLOADS = [
    b'{"a":1}', b'{"a":2.5,"b":3}', b'{"b":4}', b'{"a":"text"}', b'{"a":[1,2,3]}', b"7", b"{", b"", b'{"value":3}',
    b'{"a":1,"ts":1799999999}', b'{"a":1,"src":"d","seq":1}', b'{"a":1,"src":"d","seq":1}', b'{"a":1e400}', b"\x81\xa1a\x05",
    b"\x82\xa1a\xc7\x09\x01f" + bytes(8) + b"\xa1b\x07", b"\x81\xa1a\xa1x", b'{"a":[1,2],"b":[1]}',
    b'{"a":1,"n":{"o":{"a":2},"b":3}}', b'{"a":1,"n":{"o":5,"b":"x"}}', b'{"a":1,"n":{"b":2},"n":{}}',
    b'{"a":[1,2],"n":{"b":[3,4]}}',
    b"\x82\xa1a\x05\xa1n\x81\xa1b\x07", b'{"a":1,"n.b":2,"n":{}}', b"true",
]  # fmt: skip
FLAGS = [0, 0, 0, 1, 2, 2, 10]
MARKS = [
    b'{"a":1,"src":"d","seq":%d}', b'{"src":"e","seq":%d,"seq_floor":2,"a":2}', b'{"a":3,"seq":%d,"src":"d"}',
    b'{"a":4,"seq":%d}',
    b'{"seq":%d.5,"src":"d","a":5}', b'{"src":"d","seq":-%d}', b'{"src":"d\xc3\xbc","seq":%d,"a":7}',
    b'{"src":"d","seq":%d,"seq":2}',
    b'{"src":"\\n","seq":%d}', b'{"src":"d","seq":%d} x', b'{"src":7,"seq":%d}', b'{"src":"","seq":%d}',
    b'{"a":[1],"b":[],"src":"d","seq":%d}',
    b'{"src":"' + b"d" * 65 + b'","seq":%d}', b'{"src":"d","seq":%d00000000000000}',
]  # fmt: skip
OF_DRIVERS = st.tuples(
    st.sampled_from([b"m/driver/x", b"m/driver/y"]),
    st.builds(lambda form, seq: form % seq, st.sampled_from(MARKS[:3] * 5 + MARKS), st.integers(0, 12)),
    st.sampled_from([2, 2, 2, 2, 0]),
)
ANY = st.tuples(st.sampled_from(TOPICS), st.sampled_from(PAYLOADS), st.sampled_from(FLAGS))
PLAIN = st.tuples(st.sampled_from(TOPICS[:4]), st.sampled_from(PAYLOADS[:6] + PAYLOADS[13:15]), st.sampled_from([0, 2]))
MESSAGES = st.lists(st.one_of(PLAIN, PLAIN, PLAIN, PLAIN, PLAIN, ANY), max_size=60)


@given(
    batches=st.lists(st.one_of(MESSAGES, st.lists(st.one_of(OF_DRIVERS, OF_DRIVERS, PLAIN), max_size=60)), max_size=3),
    keys=st.sampled_from([1, 2, 100]),
)
@settings(max_examples=250, deadline=None)
def test_runs_and_single_messages_come_to_the_same(
    manifest: Manifest, batches: list[list[tuple[bytes, bytes, int]]], keys: int
) -> None:
    whole, single = Rig(manifest, keys), Rig(manifest, keys)
    for batch in batches:
        got = whole.take(*batch)
        # One at a time is below FEW: every message goes the general way.
        one_by_one = [
            single.ingest.take(_only(arrived(tuple(batch)), i), single.deliveries, 1, 0) for i in range(len(batch))
        ]
        assert got == any(one_by_one)
    assert {name: whole.rows(name) for name in whole.plan.sources} == {
        name: single.rows(name) for name in single.plan.sources
    }
    assert whole.metrics.counters == single.metrics.counters
    assert sorted(whole.failed) == sorted(single.failed)  # a run goes through one source after the other
    assert whole.plan.urgent == single.plan.urgent
    assert whole.sequences.checkpoint() == single.sequences.checkpoint()
    for name, source in whole.plan.sources.items():
        assert source.keys.by_gateway == single.plan.sources[name].keys.by_gateway
    assert [list(one) for one in whole.deliveries._entries()] == [list(one) for one in single.deliveries._entries()]


def _only(all_: Arrived, i: int) -> Arrived:
    return Arrived(all_.bytes, all_.rows[i : i + 1])


def test_runs_are_really_taken(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(manifest)
    rig.take(*[(b"m/a/x", b'{"a":1}', 0)] * 20)
    singles: list[int] = []
    take_one = rig.ingest._take_one
    monkeypatch.setattr(rig.ingest, "_take_one", lambda *args: (singles.append(args[1]), take_one(*args)))
    rig.take(*[(b"m/a/x", b'{"a":%d}' % i, 0) for i in range(20)])
    assert singles == []
    assert [values["a"] for _, values in rig.rows("m/{room}/x")[-20:]] == list(map(float, range(20)))


def test_runs_of_drivers_events_are_really_taken(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(manifest)
    rig.take(*[(b"m/driver/x", b'{"a":1,"src":"d","seq":%d}' % i, 2) for i in range(20)])
    singles: list[int] = []
    take_one = rig.ingest._take_one
    monkeypatch.setattr(rig.ingest, "_take_one", lambda *args: (singles.append(args[1]), take_one(*args)))
    rig.take(*[(b"m/driver/x", b'{"a":1,"src":"d","seq":%d}' % (i % 25 + 10), 2) for i in range(40)])
    assert singles == []
    assert rig.metrics.counters["events.duplicate"] == 10 + 15
    assert len(rig.rows("m/{room}/x")) == 35
    assert list(rig.plan.sources["m/{room}/x"].keys.by_gateway) == [1]


def test_drivers_events_go_one_by_one_after_a_step_of_the_clock(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times may be of before the step, and are put right singly."""
    rig = Rig(manifest)
    event = (b"m/driver/x", b'{"a":1}', 0)
    rig.take(*[event] * 20)
    singles: list[int] = []
    take_one = rig.ingest._take_one
    monkeypatch.setattr(rig.ingest, "_take_one", lambda *args: (singles.append(args[1]), take_one(*args)))
    rig.ingest._timeline._settled_at = 100
    rig.take(*[event] * 20)
    assert len(singles) == 20
    rig.ingest.take(arrived((event,) * 20), rig.deliveries, 1, 100)
    assert len(singles) == 20


def test_a_latest_value_holds_for_the_events_after_it(manifest: Manifest) -> None:
    rig = Rig(manifest)
    event = (b"m/c", b'{"a":1}', 0)
    rig.take(event, *[event] * 10, (b"set/point", b'{"value":5}', 0), *[event] * 10)
    wanted = [values[".latest set/point value"] for _, values in rig.rows("m/#")[1:] if len(values) == 2]
    assert wanted == [5.0] * 10


def test_more_topics_than_are_remembered_begin_anew(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_TOPICS", 30)
    rig = Rig(manifest)
    for turn in range(5):
        rig.take(*[(b"m/%d" % (i + 20 * turn), json.dumps({"a": i}).encode(), 0) for i in range(20)])
    assert [values["a"] for _, values in rig.rows("m/#")] == [float(i) for _ in range(5) for i in range(20)]
    assert len(rig.ingest._topics) <= 50


def test_long_topics_begin_anew_sooner(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_TOPIC_BYTES", 20_000)
    rig = Rig(manifest)
    for turn in range(10):
        rig.take(*[(b"m/%d/" % (i + 20 * turn) + b"a" * 900, b'{"a":%d}' % i, 0) for i in range(20)])
    assert [values["a"] for _, values in rig.rows("m/#")] == [float(i) for _ in range(10) for i in range(20)]
    assert rig.ingest._topics.size < 60_000


def test_topics_that_share_a_slot_are_told_apart(manifest: Manifest) -> None:
    rig = Rig(manifest)
    names = [b"m/%d" % i for i in range(3000)]
    for _ in range(2):
        rig.take(*[(name, b'{"a":%s}' % name[2:], 0) for name in names])
    assert all(label.encode()[2:] == b"%d" % values["a"] for label, values in rig.rows("m/#"))


def test_a_run_of_durable_events_makes_its_source_urgent(manifest: Manifest) -> None:
    rig = Rig(manifest)
    rig.take((b"m/a/x", b'{"a":1}', 0))
    assert not rig.take(*[(b"m/a/x", b'{"a":1}', 0)] * 20)
    assert rig.plan.urgent == set()
    assert rig.take(*[(b"m/a/x", b'{"a":1}', 2)] * 20)
    assert rig.plan.urgent == {"m/{room}/x", "m/#"}
    assert rig.deliveries.unacknowledged == 20


def test_much_is_run_before_more_is_decoded(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "ENOUGH", 1000)
    rig = Rig(manifest)
    batch = events.pack({"a": np.arange(300.0)})
    rig.take((b"m/c", b'{"a":1}', 0))
    rig.take(*[(b"m/c", batch, 0)] * 20)
    assert max(rig.ran) <= 1300
    assert sum(rig.ran) + sum(source.table.n for source in rig.plan.sources.values()) == 1 + 20 * 300


def forwarding(manifest: Manifest, *patterns: str) -> tuple[Rig, Forwarding]:
    rig = Rig(manifest)
    one = Forwarding(rig.metrics)
    one.change(patterns)
    rig.ingest = Ingest(
        rig.plan, rig.metrics, rig.sequences, Standing(Clock()), b"m/driver/", lambda *_: None, forwarding=one
    )
    return rig, one


def told(one: Forwarding) -> list[tuple[str, bytes, str]]:
    message = one.message(0)
    return [(event.topic, event.payload, event.place) for event in message["events"]] if message else []


def test_messages_for_python_handlers_are_forwarded_beside_the_compiled_ones_that_want_them(manifest: Manifest) -> None:
    rig, one = forwarding(manifest, "m/attic/x", "text/#")
    plain = b'{"a": 1}'
    rig.take(
        (b"m/attic/x", plain, 0), (b"m/cellar/x", plain, 2), (b"text/a", b"\xff no JSON", 2), (b"nobody", plain, 0)
    )
    epoch = rig.deliveries.epoch
    assert told(one) == [("m/attic/x", plain, ""), ("text/a", b"\xff no JSON", f"{epoch}/2")]
    assert [label for label, _ in rig.rows("m/{room}/x")] == ["attic", "cellar"]
    assert rig.metrics.total("events.failed") == 0
    assert rig.metrics.total("events.unrouted") == 1


def test_what_was_processed_before_is_not_forwarded_again(manifest: Manifest) -> None:
    rig, one = forwarding(manifest, "text/#")
    rig.take((b"text/a", b"1", 2), (b"text/b", b"2", 2))
    assert len(told(one)) == 2
    rig.deliveries.connected(session_present=True)
    rig.take((b"text/a", b"1", 2 | 8), (b"text/b", b"2", 2 | 8), (b"text/c", b"3", 2))
    assert [topic for topic, _, _ in told(one)] == ["text/c"]


def test_a_driver_s_event_that_comes_again_under_another_packet_id_is_in_the_same_place(manifest: Manifest) -> None:
    first, forwarded = forwarding(manifest, "m/driver/x")
    event = b'{"a": 1, "src": "s", "seq": 1}'
    first.take((b"m/driver/x", event, 2), (b"m/driver/x", event, 2))
    assert told(forwarded) == [("m/driver/x", event, OF_DRIVER)]
    # After a crash before the commit: the sequence is not known, and the broker is another one.
    second, again = forwarding(manifest, "m/driver/x")
    second.take((b"other", b"", 2), (b"m/driver/x", event, 2))
    assert told(again) == [("m/driver/x", event, OF_DRIVER)]
