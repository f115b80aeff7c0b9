"""Labels get numbers, numbers are used again when there are too many, and topics find their sources."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.engine import sources
from edgefn.engine.columns import MAX_COLUMNS, Table
from edgefn.engine.sources import Keys, Router, Source
from edgefn.metrics import Metrics
from edgefn.topics import Pattern
from tests.engine.harness import Bench


def test_a_label_keeps_its_number() -> None:
    keys = Keys()
    assert [keys.number(label) for label in ("a", "b", "a")] == [0, 1, 0]
    assert [keys.number(str(i)) for i in range(1000)] == list(range(2, 1002))


def test_the_least_recently_used_label_gives_way() -> None:
    keys, gone = Keys(limit=3), []
    keys.on_evict.append(gone.append)
    for label in "abc":
        keys.touch(np.array([keys.number(label)], np.int32))
    keys.touch(np.array([keys.number("a")], np.int32))
    assert keys.number("d") == 1
    assert (keys.labels, gone, keys.evicted) == (["a", "d", "c"], [1], 1)


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from("abcdefgh"), st.sampled_from(["save", "save all", "restart"])), max_size=80),
    st.integers(1, 5),
)
def test_a_restart_gives_each_label_its_number_again(actions: list[str], limit: int) -> None:
    keys, parts, saved = Keys(limit), [], {}
    for action in actions:
        if action == "restart":
            keys = Keys(limit)
            assert keys.restore(parts)
            assert {label: keys._numbers[label] for label in saved} == saved
            assert set(keys._numbers) == set(saved)
        elif action.startswith("save"):
            everything = action == "save all"
            part = keys.checkpoint(everything)
            if part is not None:
                parts = [part] if everything else [*parts, part]
            saved = dict(keys._numbers)
        else:
            number = keys.number(action)
            keys.touch(np.array([number], np.int32))
            assert keys.labels[number] == action
            assert len(keys) <= limit
            assert {label: keys.labels[number] for label, number in keys._numbers.items()} == {
                label: label for label in keys._numbers
            }


def test_a_key_with_rows_that_wait_to_run_does_not_give_way(zoo: object) -> None:
    bench = Bench(zoo, keys=2)  # type: ignore[arg-type]
    bench.feed("t/a/ring", {"x": 1.0})
    bench.feed("t/b/ring", {"x": 2.0})
    bench.collect("t/a/ring", {"x": 3.0})  # the one that was not used for longest
    bench.collect("t/c/ring", {"x": 4.0})
    bench.run()
    assert [(row.key, row.values) for row in bench.take("ring")][2:] == [("a", (4.0,)), ("c", (4.0,))]


def test_topics_find_every_source_that_wants_them() -> None:
    one, two = Source(Pattern("t/{room}/x"), ["v"]), Source(Pattern("t/#"), ["v"])
    router = Router([one, two], Metrics())
    assert router.route(b"t/a/x") == [(one, "a"), (two, "t/a/x")]
    assert router.route(b"u") == []


@pytest.mark.parametrize("topic", [b"", b"a/+", b"\xff", b"a\x00b", b"a" * 2000, b"/" * 100])
def test_what_is_no_topic_goes_nowhere_and_is_counted(topic: bytes) -> None:
    metrics = Metrics()
    router = Router([Source(Pattern("#"), [])], metrics)
    assert router.route(topic) == []
    assert metrics.counters["events.failed.bad_topic"] == 1


def test_the_table_of_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_TOPICS", 10)
    metrics = Metrics()
    router = Router([Source(Pattern("#"), [])], metrics)
    for i in range(25):
        assert len(router.route(f"t/{i}".encode())) == 1
    assert len(router._routes) <= 10
    assert metrics.counters["topics.forgotten"] == 20


def test_the_table_of_topics_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_TOPIC_BYTES", 5000)
    router = Router([Source(Pattern("#"), [])], metrics := Metrics())
    for i in range(100):
        assert len(router.route(b"%d" % i * 500)) == 1
    assert sum(map(len, router._routes)) < 7000
    assert metrics.counters["topics.forgotten"] > 80


def test_a_table_grows_and_begins_again() -> None:
    table = Table(["a", "b"], 2)
    for i in range(100):
        table.reserve(1)
        table.ts[i], table.columns[1, i] = i, -i
        table.n += 1
    frame = table.take()
    assert (frame.n, table.n) == (100, 0)
    assert frame.ts[frame.sel].tolist() == list(range(100))
    assert frame.columns[1, frame.sel].tolist() == [-i for i in range(100)]


def test_a_table_has_a_bit_for_each_field() -> None:
    Table([f"f{i}" for i in range(MAX_COLUMNS)])
    with pytest.raises(ValueError, match="63 fields; 62 are possible"):
        Table([f"f{i}" for i in range(MAX_COLUMNS + 1)])
