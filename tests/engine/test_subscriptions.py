"""No topic is asked for twice, and none that a handler wants is left out."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.engine.subscriptions import disjoint, join, overlap
from edgefn.topics import Pattern

levels = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3)
filters = st.builds(lambda parts, rest: "/".join([*parts, *rest]), levels, st.sampled_from([[], [], ["#"]]))
TOPICS = ["/".join(parts) for n in range(1, 6) for parts in product("abc", repeat=n)]


@settings(max_examples=150, deadline=None)
@given(st.lists(filters, max_size=4))
def test_each_topic_that_is_wanted_is_matched_once(wanted: list[str]) -> None:
    asked = [Pattern(one) for one in disjoint(wanted)]
    patterns = [Pattern(one) for one in wanted]
    for topic in TOPICS:
        matches = sum(pattern.match(topic) is not None for pattern in asked)
        assert matches <= 1
        if any(pattern.match(topic) is not None for pattern in patterns):
            assert matches == 1


@settings(max_examples=150, deadline=None)
@given(filters, filters)
def test_filters_overlap_where_a_topic_matches_both(one: str, other: str) -> None:
    both = [topic for topic in TOPICS if None not in (Pattern(one).match(topic), Pattern(other).match(topic))]
    assert overlap(one, other) == overlap(other, one) == bool(both)


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (["a/b", "a/+"], ["a/+"]),
        (["a/b", "a/c"], ["a/b", "a/c"]),
        (["sensors/+/climate", "sensors/attic/+"], ["sensors/+/+"]),
        (["a", "a/#"], ["a/#"]),
        (["#", "a", "$SYS/#"], ["#", "$SYS/#"]),
        (["$SYS/a", "+/a"], ["$SYS/a", "+/a"]),
        ([], []),
    ],
)
def test_what_is_asked_for(wanted: list[str], asked: list[str]) -> None:
    assert disjoint(wanted) == set(asked)


def test_a_join_covers_both() -> None:
    assert join("a/b/c", "a/+/#") == "a/+/#"
    assert join("a/#", "a") == "a/#"


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (["$share/g/a/+", "$share/g/b/+"], ["$share/g/a/+", "$share/g/b/+"]),
        (["$share/g/a/+", "$share/g/+/b"], ["$share/g/+/+"]),
        (["$share/g/a/+", "c/+"], ["$share/g/a/+", "c/+"]),
        (["$share/g/a/+", "a/b"], ["a/+"]),
        (["$share/g/a/+", "$share/h/a/b"], ["a/+"]),
    ],
)
def test_shared_filters_are_shared_where_nothing_else_wants_their_topics(wanted: list[str], asked: list[str]) -> None:
    assert sorted(disjoint(wanted)) == asked
