"""What a web service answered to a batch, and what follows: delivered, refused by item, smaller pieces, or later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from edgefn.clock import NS
from edgefn.errors import AccessError, EdgefnError, NotConnectedError, PayloadError
from edgefn.events import from_json

# What says something of the items themselves. All other 4xx are about the address, the rights or the settings, where
# a refusal would send everything there is to the dead letters because of one wrong letter in a URL.
ABOUT_ITEMS = frozenset({400, 413, 422})
# Not now: time-out, the same idempotency key is still at work, locked, too early, too many requests.
NOT_NOW = frozenset({408, 409, 423, 425, 429})
LONGEST_WAIT = 86_400.0  # seconds; what a far side may ask for at the most
TOLD = 200  # characters of an answer that go into a message

_HINTS = {
    401: "set token_file or headers to what the service knows us by",
    403: "see what the service lets this token do",
    404: "see that url is right",
    405: "see that url is right: it takes no POST",
    407: "there is a proxy on the way that wants to know who we are",
    415: "set encoding and compress to what the service takes",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, the headers (names in any case) and as much of the body as we read; `whole`: that was all of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    detail: str


class BatchRefusedError(EdgefnError, ValueError):
    """Something in the batch will never be taken, or there is too much of it: pieces of it will tell."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Result(msgspec.Struct):
    id: str
    status: int | None = None
    error: Any = None


def read_answer(url: str, answer: Answer, items: int, now: int) -> dict[str, Refused]:
    """The keys of the items that are refused for good, of a batch of `items`. `now` is in ns since the epoch.

    Raises BatchRefusedError (send less at a time), AccessError (the settings are wrong) and NotConnectedError (later).
    """
    status = answer.status
    if 200 <= status < 300:
        return _results(url, answer, items)
    said = f"{url}: the service answers {status}{_quote(answer.body)}"
    if 300 <= status < 400:
        to = answer.headers.get("Location", "nowhere")
        raise AccessError(f"{said} and points to {to}; edgefn posts to the address it is given: set url to that one")
    if status in ABOUT_ITEMS:
        raise BatchRefusedError(f"http_{status}", _text(answer.body))
    if status in NOT_NOW or status >= 500 or status < 200:
        raise NotConnectedError(said, retry_after=retry_after(answer.headers, now))
    raise AccessError(f"{said}; {_HINTS.get(status, 'see that url and the other settings are right')}")


def retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """Seconds of a Retry-After header, in both of its forms (RFC 9110, 10.2.3); None where there is none."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), LONGEST_WAIT)
    until = _date(value)
    if until is None:
        return None
    # The date is one of their clock, so it is held against their clock: ours may be in 1970.
    since = _date(headers.get("Date", ""))
    return min(max(until - (now / NS if since is None else since), 0.0), LONGEST_WAIT)


def _results(url: str, answer: Answer, items: int) -> dict[str, Refused]:
    media_type = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if not answer.body or not (media_type == "application/json" or media_type.endswith("+json")):
        return {}  # 2xx is what counts; the rest is for people
    if not answer.whole:
        if items == 1:
            return {}  # it was taken, and nobody needs that many words to say otherwise
        raise BatchRefusedError("answer_too_long", f"more than {len(answer.body)} bytes of JSON")
    try:
        body = from_json(answer.body)
        if not isinstance(body, dict) or "results" not in body:
            return {}
        results = msgspec.convert(body["results"], list[_Result])
    except (PayloadError, msgspec.ValidationError) as error:
        raise NotConnectedError(
            f"{url}: the service answers {answer.status} with JSON that cannot be used, so that nobody knows what it took "
            f"({error}); `results` is a list of objects with `id` and `status` or `error`"
        ) from error
    refused: dict[str, Refused] = {}
    for result in results:
        status = result.status
        if status is None:
            if result.error:
                refused[result.id] = Refused("rejected", _told(result.error))
        elif status in NOT_NOW or status >= 500:
            raise NotConnectedError(f"{url}: the service answers {status} for {result.id}: {_told(result.error)}")
        elif status >= 400:
            refused[result.id] = Refused(f"http_{status}", _told(result.error))
    return refused


def _told(error: Any) -> str:
    if error is None:
        return ""
    return (error if isinstance(error, str) else msgspec.json.encode(error).decode())[:TOLD]


def _text(body: bytes) -> str:
    return " ".join(body[: 4 * TOLD].decode(errors="replace").split())[:TOLD]


def _quote(body: bytes) -> str:
    return f" ({text})" if (text := _text(body)) else ""


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
