import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.errors import TopicError
from edgefn.topics import MAX_LEVELS, MAX_TOPIC_BYTES, Pattern, check_topic, covers, level

LEVEL = st.sampled_from(["a", "b", "$SYS", ""])
TOPICS = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.one_of(LEVEL, st.just("+")), min_size=0, max_size=4),
    st.sampled_from([["#"], ["+"], ["a"]]),
)


@pytest.mark.parametrize(
    ("pattern", "topic", "captured"),
    [
        ("sensors/{room}/climate", "sensors/attic/climate", ("attic",)),
        ("sensors/{room}/climate", "sensors/attic/motion", None),
        ("sensors/{room}/climate", "sensors/attic/climate/raw", None),
        ("{site}/+/{device}", "north/x/pump", ("north", "pump")),
        ("sensors/#", "sensors/attic/climate", ()),
        ("sensors/#", "sensors", ()),  # MQTT 4.7.1.2
        ("sensors/{room}/#", "sensors", None),
        ("#", "any/thing", ()),
        ("#", "$SYS/broker/load", None),  # MQTT 4.7.2
        ("+/broker/load", "$SYS/broker/load", None),
        ("{a}/broker/load", "$SYS/broker/load", None),
        ("$SYS/#", "$SYS/broker/load", ()),
        ("a//b", "a//b", ()),
        ("a/+/b", "a//b", ()),
        ("a/b", "a/B", None),
    ],
)
def test_what_a_pattern_matches_and_captures(pattern: str, topic: str, captured: tuple[str, ...] | None):
    assert Pattern(pattern).match(topic) == captured


def test_a_pattern_knows_what_to_subscribe_to():
    pattern = Pattern("sensors/{room}/+/#")
    assert pattern.filter == "sensors/+/+/#"
    assert pattern.captures == ("room",)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "an empty pattern"),
        ("sensors/room{n}/climate", "a capture is a whole level, such as sensors/{room}/climate"),
        ("sensors/{}/climate", "a capture is a whole level"),
        ("sensors/{2nd}/climate", "a capture is a whole level"),
        ("sensors/room+", "a wildcard is a whole level, not a part of 'room+'"),
        ("a/#/b", "# can only be the last level"),
        ("{room}/{room}", "each capture needs a name of its own"),
        ("a\0b", "contains a NUL"),
        ("a" * (MAX_TOPIC_BYTES + 1), "is longer than 1024 bytes"),
        ("/" * MAX_LEVELS, "has more than 64 levels"),
    ],
)
def test_what_is_no_pattern_says_why(pattern: str, said: str):
    with pytest.raises(TopicError, match=re.escape(said)):
        Pattern(pattern)


def test_a_message_goes_to_one_topic():
    assert check_topic("lights/kitchen/set") == "lights/kitchen/set"
    for wrong in ("", "lights/+/set", "lights/#", "a\0"):
        with pytest.raises(TopicError):
            check_topic(wrong)


def test_any_text_can_be_made_one_level():
    assert level("a/b+c#d\0e") == "a_b_c_d_e"
    assert level("") == "_"
    assert level("größe 1") == "größe 1"


@given(st.text())
def test_a_level_is_always_a_valid_one(text: str):
    made = level(text)
    assert made
    assert not set(made) & set("/+#\0")


@pytest.mark.parametrize(
    ("wide", "narrow", "whether"),
    [
        ("a/#", "a/+/b", True),
        ("a/#", "a", True),
        ("a/+", "a/b", True),
        ("a/+", "a/#", False),
        ("a/b", "a/+", False),
        ("#", "+/a", True),
        ("#", "$SYS/broker/load", False),
        ("+/broker", "$SYS/broker", False),
    ],
)
def test_one_subscription_may_cover_another(wide: str, narrow: str, whether: bool):
    assert covers(wide, narrow) is whether


@given(FILTERS, FILTERS, TOPICS)
def test_what_covers_matches_all_that_the_other_matches(wide: str, narrow: str, topic: str):
    if covers(wide, narrow) and Pattern(narrow).match(topic) is not None:
        assert Pattern(wide).match(topic) is not None


def test_a_shared_pattern_matches_the_topics_of_what_it_shares() -> None:
    pattern = Pattern("$share/gateways/sensors/{room}/climate")
    assert pattern.filter == "$share/gateways/sensors/+/climate"
    assert pattern.match("sensors/attic/climate") == ("attic",)
    assert pattern.match("$share/gateways/sensors/attic/climate") is None
    assert Pattern("$share/g/#").match("$SYS/uptime") is None


@pytest.mark.parametrize(
    "text", ["$share/g", "$share/", "$share/g/", "$share//a", "$share/+/a", "$share/{g}/a", "$share/#/a"]
)
def test_a_shared_pattern_needs_a_group_and_something_to_share(text: str) -> None:
    with pytest.raises(TopicError, match="GROUP/PATTERN"):
        Pattern(text)
