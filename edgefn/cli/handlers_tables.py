"""What `edgefn handlers` tells, as tables that a person reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from edgefn.cli.outbox_tables import console, new_table, plain

COLOURS = {"active": "green", "failed": "red", "quarantined": "red", "paused": "yellow", "stopped": "yellow"}


def show_list(told: Mapping[str, Any]) -> None:
    out = console()
    if not told["running"]:
        out.print("no gateway runs on it; this is what its state folder tells")
    table = new_table("handler", "state", "kind", "file", "version", rest="listens to")
    for one in told["handlers"]:
        table.add_row(
            one["name"],
            _state(one),
            one.get("kind", ""),
            Path(one.get("file", "")).name,
            one.get("version", "") + (" (rolled back)" if one.get("rolled_back") else ""),
            plain(one.get("error") or one.get("source") or ", ".join(one.get("triggers", ()))),
        )
    out.print(table if table.row_count else "no handlers; `edgefn new` makes one")
    if told["left_out"]:
        out.print(f"{told['left_out']} more")


def show_one(told: Mapping[str, Any]) -> None:
    out = console()
    table = new_table("", rest=" ")
    table.show_header = False
    for name, value in told.items():
        if name not in ("versions", "running", "traceback", "newest"):
            table.add_row(name, plain(_shown(value)))
    out.print(table)
    newest = told.get("newest") or told
    if newest is not told:
        out.print(f"its newest version: {newest['state']}")
    for name in ("error", "traceback"):
        if name in newest and (name == "traceback" or newest is not told):
            for line in str(newest[name]).splitlines():
                out.print(plain(line))
    table = new_table("version", "runs", rest="handlers")
    for one in told["versions"]:
        table.add_row(one["version"], "yes" if one["running"] else "", ", ".join(one["handlers"]))
    if table.row_count:
        out.print(table)


def _state(one: Mapping[str, Any]) -> Text:
    progress = f" {one['done']} of {one['of']}" if one.get("of") else ""
    newest = f" (newest: {one['newest']})" if "newest" in one else ""
    return Text(f"{one['state']}{progress}{newest}", style=COLOURS.get(one["state"], ""))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return json.dumps(value)
