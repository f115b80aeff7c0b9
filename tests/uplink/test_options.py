"""What a [[uplink]] table may say about the uplink itself."""

from __future__ import annotations

import pytest

from edgefn.errors import ConfigError
from edgefn.uplink.options import idle_patterns, split_options, wants


def test_sizes_are_written_as_everywhere() -> None:
    options, rest = split_options("cloud", {"max_rate": "20kB", "daily_bytes": "50MB", "host": "example.com"})
    assert (options.max_rate, options.daily_bytes) == (20 << 10, 50 << 20)
    assert rest == {"host": "example.com"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rate": "fast"}, "max_rate = 'fast': a size is expected"),
        ({"daily_bytes": 0}, "daily_bytes = 0: .*>= 4096"),
        ({"live_share": 0.95}, "live_share = 0.95: .*<= 0.9"),
        ({"streams": "alert/*"}, "streams = 'alert/\\*'"),
        ({"streams": [""]}, "streams"),
    ],
)
def test_wrong_values_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_options("cloud", options)


def test_a_stream_goes_where_a_pattern_matches_it() -> None:
    assert wants(["*"], "summary/minute")
    assert wants(["alert/*", "summary/minute*"], "summary/minute2")
    assert not wants(["alert/*", "summary/minute"], "summary/minute2")
    assert not wants([], "summary/minute")


def test_patterns_that_match_nothing_are_found() -> None:
    assert idle_patterns(["alert/*", "summary/minit"], ["alert/spike", "summary/minute"]) == ["summary/minit"]
