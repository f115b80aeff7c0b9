"""What an operator's tables say of streams holds, whatever the handlers say; and what has no effect is told."""

from __future__ import annotations

import msgspec

from edgefn.config import Duration, OnFull, Size, StreamSettings
from edgefn.gateway.streams import idle_tables, overridden
from edgefn.manifest import FunctionManifest, HandlerManifest, Manifest
from edgefn.options import Options
from edgefn.triggers import Policy
from edgefn.windows import Window, count, tumbling


def handler(name: str, kind: str = "summarize", window: Window | None = None) -> HandlerManifest:
    return HandlerManifest(
        name=name, kind=kind, pattern="a", parent=None, inputs=(), outputs=(), line=1,  # type: ignore[arg-type]
        options=Options(("uplink",), priority=1, ttl=5, quota=9000), window=window or tumbling("1m"),
    )  # fmt: skip


FILE = Manifest("rooms.py", handlers=(handler("climate"), handler("climate_hour"), handler("spike", "anomaly")))


def options(*settings: StreamSettings) -> dict[str, Options]:
    return {one.name: one.options for one in overridden(FILE, settings).handlers}


def test_the_first_table_that_matches_is_the_one_and_says_only_what_it_says() -> None:
    given = options(
        StreamSettings("summary/climate_*", priority="low", on_full=OnFull(("reject",))),
        StreamSettings("summary/*", ttl=Duration(7), quota=Size(5000)),
    )
    assert given["climate_hour"] == Options(("uplink",), priority=0, ttl=5, quota=9000, on_full=("reject",))
    assert given["climate"] == Options(("uplink",), priority=1, ttl=7, quota=5000)
    assert given["spike"] == FILE.handlers[2].options
    assert overridden(FILE, ()) == FILE


def test_a_table_without_effect_is_told() -> None:
    [said] = idle_tables([FILE], [StreamSettings("summary/*"), StreamSettings("summary/climate")])
    assert "'summary/climate' is the first match of no stream; there are alert/spike, summary/climate," in said
    thin = StreamSettings("*", on_full=OnFull(("thin", "reject")))
    [said] = idle_tables([FILE], [thin])
    assert "rows of alert/spike cannot be merged" in said
    counting = Manifest("counts.py", handlers=(handler("five", window=count(5)),))
    [said] = idle_tables([counting], [thin])
    assert "rows of summary/five cannot be merged" in said


def test_tables_hold_for_python_handlers_too() -> None:
    report = FunctionManifest("report", "report", (), Options(("uplink",)), Policy(), 1, False, 1)
    file = Manifest("report.py", functions=(report, msgspec.structs.replace(report, name="own", options=Options(()))))
    settings = [StreamSettings("summary/*", priority="high", on_full=OnFull(("thin", "reject")))]
    told = overridden(file, settings).functions
    assert [one.options.priority for one in told] == [2, 1], "only what goes to the cloud has a stream"
    [said] = idle_tables([file], settings)
    assert "rows of summary/report cannot be merged" in said
