"""What `edgefn outbox` tells, as tables that a person reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgefn import durations
from edgefn.timestamps import to_iso

WIDE = 160  # columns where nothing says how wide the output is


def console() -> Console:
    """Colours and width are those of a terminal where there is one. What is data is not read as rich's markup."""
    return Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)


def show_status(told: Mapping[str, Any]) -> None:
    out = console()
    state = "it runs" if told["running"] else "no gateway runs on it"
    rows = sum(one["rows"] for one in told["streams"])
    out.print(f"{told['gateway']}, epoch {told['epoch']}: {rows} rows, {size(told['bytes'])} wait ({state})")
    table = new_table("uplink", "state", "*rows", "*bytes", "*oldest", "*left today", rest="error")
    for name, one in sorted(told["uplinks"].items()):
        budget = one.get("budget") or {}
        table.add_row(
            name,
            _state(one["state"]),
            str(one["rows"]),
            size(one["bytes"]),
            "" if one["oldest_s"] is None else age(one["oldest_s"]),
            size(budget["left"]) if "left" in budget else "",
            plain(one.get("last_error", "")),
        )
    _print(out, table, "no uplink: nothing leaves this gateway")
    table = new_table("stream", "priority", "*rows", "*bytes", rest="dropped so far")
    for one in told["streams"]:
        name = one["name"] if one["epoch"] == told["epoch"] else f"{one['name']} (epoch {one['epoch']})"
        dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(one["dropped"].items()))
        table.add_row(name, one["priority"], str(one["rows"]), size(one["bytes"]), dropped)
    _print(out, table, "no stream: nothing was stored yet")
    if left_out := told["streams_left_out"]:
        out.print(f"{left_out} more streams with less")
    if told["dead"]:
        letters = "dead letter" if told["dead"] == 1 else "dead letters"
        out.print(f"{told['dead']} {letters}; see edgefn dead list")


def show_items(rows: Iterable[Mapping[str, Any]]) -> None:
    table = new_table("stream", "*seq", "time", "priority", "*bytes", rest="data")
    for row in rows:
        stream, seq = stream_and_number(row["key"])
        item = row.get("item")
        time = "" if item is None else to_iso(item["ts"])
        time += "?" if row["unsynced"] else ""  # the clock may have been wrong then
        data = row["error"] if item is None else json.dumps(item["data"], ensure_ascii=False)
        table.add_row(stream, seq, time, row["priority"], str(row["bytes"]), plain(data))
    _print(console(), table, "")


def plain(text: str) -> str:
    """What a device or a far side said, without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def size(n: float) -> str:
    """Bytes as in the settings: powers of 1024."""
    for unit in ("B", "kB", "MB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GB"


def age(seconds: float) -> str:
    """The two largest units are enough for a person."""
    whole = durations.show(max(1, round(seconds)) * durations.UNITS["s"])
    parts, part = [], ""
    for letter in whole:
        part += letter
        if letter.isalpha():
            parts.append(part)
            part = ""
    return "".join(parts[:2])


def _state(state: str) -> Text:
    colour = {"connected": "green", "refused": "red", "backoff": "yellow", "budget": "yellow", "cut": "red"}
    return Text(state, style=colour.get(state, ""))


def stream_and_number(key: str) -> tuple[str, str]:
    """Of <gateway>/<epoch>/<stream>/<number>; a stream has levels of its own."""
    stream, number = key.split("/", 2)[2].rsplit("/", 1)
    return stream, number


def new_table(*columns: str, rest: str = "") -> Table:
    """A column whose name begins with * holds numbers; `rest` has the width that the others leave."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=bool(rest))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith("*") else "left"
        table.add_column(column.removeprefix("*"), justify=justify, no_wrap=True)
    if rest:
        table.add_column(rest, no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _print(out: Console, table: Table, otherwise: str) -> None:
    if table.row_count:
        out.print(table)
    elif otherwise:
        out.print(otherwise)
