"""Messages for Python handlers: all of QoS 1 in their places, of QoS 0 no more than the gateway takes."""

from __future__ import annotations

from edgefn.engine.forwarding import MAX_UNDER_WAY, Forwarding
from edgefn.metrics import Metrics


def forwarding(*patterns: str) -> tuple[Forwarding, Metrics]:
    metrics = Metrics()
    one = Forwarding(metrics)
    one.change(patterns)
    return one, metrics


def test_it_wants_what_a_pattern_matches() -> None:
    one, _ = forwarding("doors/{room}", "a/#")
    assert one.filters == {"doors/+", "a/#"}
    assert one.wants(b"doors/hall")
    assert one.wants(b"a/b/c")
    assert not one.wants(b"doors/hall/x")
    assert not one.wants(b"\xff")


def test_what_was_added_is_told_once_and_in_order() -> None:
    one, _ = forwarding("#")
    one.add(b"a", b"1", retained=False, place="e/1", digest=7)
    one.add(b"b", b"2", retained=True, place="", digest=8)
    message = one.message(5)
    assert message == {"type": "events", "ts": 5, "events": [("a", b"1", False, "e/1", 7), ("b", b"2", True, "", 8)]}
    assert one.message(6) is None


def test_of_qos_0_no_more_are_under_way_than_the_gateway_takes_and_of_qos_1_all() -> None:
    one, metrics = forwarding("#")
    for n in range(MAX_UNDER_WAY + 3):
        one.add(b"a", b"", retained=False, place="", digest=n)
        one.add(b"a", b"", retained=False, place=f"e/{n}", digest=n)
    message = one.message(0)
    assert message is not None
    assert len(message["events"]) == 2 * MAX_UNDER_WAY + 3
    assert metrics.total("functions.dropped.too_many") == 3
    one.taken(2)
    for n in range(3):
        one.add(b"a", b"", retained=False, place="", digest=n)
    assert metrics.total("functions.dropped.too_many") == 4
