"""The demo's account as tables that a person can watch."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgefn.demo.account import Cloud, Device

MAX_FIELDS = 4


def render(device: Device, cloud: Cloud, note: str, backlog: int) -> Group:
    cut = "cut" in note
    uplink = Text(f"{note}.  ", style="bold red" if cut else "bold green")
    uplink.append(
        f"outbox: {backlog} waiting, {device.backlog} at most.  "
        f"cloud: {cloud.delivered} received, {cloud.duplicates} twice",
        style="default",
    )
    # On a small terminal the end is cut off: what matters most comes first.
    alerts = [_results("alerts", device.alerts)] if device.alerts else []
    return Group(uplink, *alerts, _results("summaries", device.summaries), _readings(device), _handlers(device))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, expand=True, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def _fields(values: dict[str, Any]) -> str:
    shown = [f"{name} {_number(value)}" for name, value in values.items() if name not in ("ts", "seq", "src", "dt")]
    return "  ".join(shown[:MAX_FIELDS])


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} samples"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _readings(device: Device) -> Table:
    table = _table("sensors", "driver", "events", "latest")
    for name in sorted(device.latest):
        table.add_row(name, str(device.events[name]), _fields(device.latest[name]))
    return table


def _results(title: str, results: dict[str, dict[str, Any]]) -> Table:
    table = _table(title, "handler", "key", "state" if title == "alerts" else "samples", "values")
    for name in sorted(results)[-12:]:
        result = results[name]
        state = str(result.get("state", result.get("samples", "")))
        key = result["key"].split("/")[-1]
        table.add_row(result["handler"], key, state, _fields(result["values"]))
    return table


def _handlers(device: Device) -> Table:
    table = _table("handlers", "name", "kind", "state", "events", "out", "skipped", "raised", "µs/event")
    for name in sorted(device.handlers):
        state = device.handlers[name]
        meter = state.get("meter", {})
        events = meter.get("events", 0)
        cost = f"{meter['ns'] / events / 1000:.2f}" if events else ""
        numbers = [str(meter.get(what, "")) for what in ("events", "rows", "skipped", "raised")]
        table.add_row(name, state.get("kind", ""), state.get("state", ""), *numbers, cost)
    return table
