"""What each answer of a web service means."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.errors import AccessError, NotConnectedError
from edgefn.sinks.http_answer import LONGEST_WAIT, Answer, BatchRefusedError, Refused, read_answer, retry_after

URL = "https://cloud.example/ingest"
NOW = 1_750_000_000
JSON = {"Content-Type": "application/json; charset=utf-8"}


def read(status: int, body: bytes = b"", headers: dict[str, str] = JSON, **options: bool) -> dict[str, Refused]:
    return read_answer(URL, Answer(status, headers, body, **options), 2, NOW * NS)


def meaning(status: int) -> str:
    try:
        read(status)
    except BatchRefusedError:
        return "smaller"
    except AccessError:
        return "mend"
    except NotConnectedError:
        return "later"
    return "delivered"


def test_every_status_means_one_thing() -> None:
    means = {status: meaning(status) for status in range(100, 600)}
    assert {status for status, what in means.items() if what == "delivered"} == set(range(200, 300))
    assert {status for status, what in means.items() if what == "smaller"} == {400, 413, 422}
    assert {status for status, what in means.items() if what == "later"} == {
        *range(100, 200), 408, 409, 423, 425, 429, *range(500, 600)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"", {}),
        (b'"OK"', {}),
        (b"[1]", {}),
        (b'{"accepted":2}', {}),
        (b'{"results":[]}', {}),
        (b'{"results":[{"id":"a","status":200},{"id":"b"}]}', {}),
        (b'{"results":[{"id":"a","status":204,"error":"none"}]}', {}),
        (b'{"results":[{"id":"a","status":404}]}', {"a": Refused("http_404", "")}),
        (b'{"results":[{"id":"a","error":"too old"}]}', {"a": Refused("rejected", "too old")}),
        (b'{"results":[{"id":"a","error":null}]}', {}),
    ],
)
def test_a_json_answer_may_refuse_single_items(body: bytes, refused: dict[str, Refused]) -> None:
    assert read(200, body) == refused


@pytest.mark.parametrize("body", [b'{"results":[{"id"', b"{oops", b'{"results":7}', b'{"results":[{"status":1}]}'])
def test_json_that_cannot_be_used_leaves_the_outcome_unknown(body: bytes) -> None:
    with pytest.raises(NotConnectedError, match="nobody knows what it took"):
        read(200, body)


def test_what_is_no_json_is_for_people() -> None:
    assert read(200, b"<html>Thank you</html>", {"Content-Type": "text/html"}) == {}


def test_a_long_answer_is_asked_for_in_pieces_and_ignored_for_one_item() -> None:
    long = Answer(200, JSON, b"{" * 10, whole=False)
    with pytest.raises(BatchRefusedError):
        read_answer(URL, long, 2, NOW * NS)
    assert read_answer(URL, long, 1, NOW * NS) == {}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "9" * 400}, LONGEST_WAIT),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"Retry-After": formatdate(60, usegmt=True), "Date": formatdate(0, usegmt=True)}, 60),
    ],
)
def test_retry_after_is_read_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW * NS) == seconds


@given(st.text())
def test_no_retry_after_is_a_surprise(value: str) -> None:
    found = retry_after({"Retry-After": value}, NOW * NS)
    assert found is None or 0 <= found <= LONGEST_WAIT
