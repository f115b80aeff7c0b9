"""What `edgefn dead` tells, as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgefn.cli.outbox_tables import console, new_table, plain, size, stream_and_number

INVOCATION = "invocation"  # the kind of a letter that a handler left; all others are of uplinks


def show_letters(letters: Iterable[Mapping[str, Any]]) -> None:
    table = new_table("*id", "what", "*seq", "refused by", "at", "reason", rest="detail")
    for one in letters:
        what, number = _what(one)
        detail = one["detail"].strip().rsplit("\n", 1)[-1]  # of a traceback, the line that says it
        table.add_row(
            str(one["id"]), plain(what), number, one["uplink"], one["at"], plain(one["reason"]), plain(detail)
        )
    if table.row_count:
        console().print(table)


def show_letter(letter: Mapping[str, Any]) -> None:
    out = console()
    what, number = _what(letter)
    told = [
        ("id", str(letter["id"])),
        ("what", f"{what} {number}".strip()),
        ("refused by", f"{'handler' if _is_invocation(letter) else 'uplink'} {letter['uplink']}"),
        ("at", letter["at"]),
        ("reason", letter["reason"]),
        ("size", size(letter["bytes"])),
    ]
    data = letter.get("data")
    if _is_invocation(letter) and isinstance(data, dict):
        told.insert(2, ("key", str(data.get("key", ""))))
        told.insert(5, ("attempts", str(data.get("attempts", ""))))
    for name, value in told:
        if value:
            out.print(f"{name + ':':<12}{plain(value)}", soft_wrap=True)
    for title, text in (("detail", letter["detail"]), ("payload", _payload(letter))):
        if text:
            out.print(f"{title}:")
            for line in text.splitlines():
                out.print(f"    {plain(line)}", soft_wrap=True)


def _is_invocation(letter: Mapping[str, Any]) -> bool:
    return bool(letter["kind"] == INVOCATION)


def _what(letter: Mapping[str, Any]) -> tuple[str, str]:
    """The stream and the number in it; or the topic of the event that a handler could not do."""
    if not _is_invocation(letter):
        return stream_and_number(letter["key"])
    data = letter.get("data")
    return str(data.get("topic", "")) if isinstance(data, dict) else "", ""


def _payload(letter: Mapping[str, Any]) -> str:
    """What was to be sent, or what the handler was given, in lines."""
    if "data" not in letter:
        return f"{letter['error']}\n{letter['begins']}"
    data = letter["data"]
    if _is_invocation(letter) and isinstance(data, dict):
        data = data.get("payload")
        if isinstance(data, str):
            text: str = data
            try:
                data = json.loads(text)
            except ValueError:
                return text
    return json.dumps(data, indent=2, ensure_ascii=False)
