"""Lines of cron on a clock that is turned by hand, against a stepper that looks at each minute."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.functions.sources.cron import NEVER, Crons, following, local_zone, newest
from edgefn.functions.sources.memory import Memories
from edgefn.metrics import Metrics
from edgefn.testing import ManualClock
from edgefn.triggers import Cron
from tests.functions.sources.helpers import Fired, function

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = 60 * NS


def ns(text: str, zone: ZoneInfo = BERLIN) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * NS


def moments(line: str, begin: str, n: int, zone: ZoneInfo = BERLIN) -> list[str]:
    found, at = [], ns(begin, zone)
    for _ in range(n):
        at = following(line, zone, at)
        found.append(datetime.fromtimestamp(at // NS, zone).isoformat())
    return found


class Bench:
    def __init__(self, *triggers: Cron, now: str = "2026-06-01T05:59:30", saved: Fired | None = None) -> None:
        self.fired, self.metrics = Fired(), Metrics()
        self.clock = ManualClock(ns(now))
        self.right = True
        memories = Memories(self.clock, self.fired.save)
        if saved is not None:
            memories.restore(saved.saved())
            self.fired.parts = list(saved.parts)
        self.crons = Crons(
            self.fired, self.clock, self.metrics, memories, lambda: self.right, self.fired.save, lambda: BERLIN
        )
        self.functions = [function("f", *triggers)]
        self.crons.plan(self.functions)
        self.crons.step()

    def advance(self, duration: str, every: str = "10s") -> list[str]:
        """Lets time pass, and returns what came."""
        self.fired.all.clear()
        until = self.clock.monotonic() + _ns(duration)
        while self.clock.monotonic() < until:
            self.clock.advance(every)
            self.crons.step()
        return self.fired.scheduled()

    def jump(self, duration: str) -> list[str]:
        self.fired.all.clear()
        self.clock.jump(duration)
        self.crons.step()
        return self.fired.scheduled()


def _ns(duration: str) -> int:
    from edgefn import durations

    return durations.parse(duration)


SIX = Cron("0 6 * * *")
MINUTELY = Cron("* * * * *")


def test_it_comes_at_its_moment_and_says_which():
    bench = Bench(SIX)
    assert bench.advance("20s") == []
    assert bench.advance("10s") == ["2026-06-01T06:00:00+02:00"]
    name, occurrence = bench.fired.all[0]
    assert (name, occurrence.topic, occurrence.key, occurrence.parts) == ("f", "cron/0 6 * * *", "", ())
    assert bench.advance("23h", "1m") == []
    assert bench.advance("1h", "1m") == ["2026-06-02T06:00:00+02:00"]


def test_it_sleeps_until_its_moment_but_looks_at_the_clock_now_and_then():
    bench = Bench(SIX, now="2026-06-01T05:00:00")
    assert bench.crons.step() == 30 * NS
    bench.clock.advance("59m50s")
    assert bench.crons.step() == bench.clock.monotonic() + 10 * NS
    bench.crons.plan([])
    assert bench.crons.step() is None


def test_a_clock_that_is_not_right_fires_nothing():
    bench = Bench(MINUTELY, now="1970-01-01T00:00:00")
    bench.right = False
    bench.crons.plan([])
    bench.crons.plan(bench.functions)
    assert bench.advance("5m") == []
    assert bench.jump("490000h") == []
    bench.right = True
    assert bench.jump("1s") == []
    assert len(bench.advance("5m")) == 5


def test_a_step_back_fires_nothing_a_second_time():
    bench = Bench(MINUTELY)
    assert len(bench.advance("10m")) == 10
    assert bench.jump("-5m") == []
    assert bench.advance("5m") == []  # these moments were
    assert len(bench.advance("5m")) == 5


def test_a_step_back_over_a_whole_day_is_of_a_clock_that_was_wrong():
    bench = Bench(MINUTELY, now="2031-01-01T00:00:30")
    assert len(bench.advance("1m")) == 1
    assert bench.jump("-40000h") == []
    assert len(bench.advance("5m")) == 5


def test_a_rare_moment_that_was_fired_by_a_wrong_clock_does_not_come_again():
    bench = Bench(Cron("0 6 * * mon"))
    assert len(bench.advance("1m")) == 1
    assert bench.jump("-48h") == []
    assert bench.advance("240h", "1m") == ["2026-06-08T06:00:00+02:00"]


def test_a_small_step_forward_over_the_moment_loses_it_not():
    bench = Bench(SIX)
    assert bench.jump("50s") == ["2026-06-01T06:00:00+02:00"]
    assert bench.advance("1h", "1m") == []


def test_a_large_step_forward_makes_up_for_nothing():
    bench = Bench(SIX, MINUTELY)
    bench.advance("1m")
    assert bench.jump("240h") == []
    assert bench.metrics.counters["triggers.missed.cron"] == 2
    assert bench.advance("1m") == ["2026-06-11T06:01:00+02:00"]


def test_a_run_that_was_missed_is_made_up_for_once():
    saved = Bench(Cron("0 6 * * *", catch_up=True)).fired
    bench = Bench(Cron("0 6 * * *", catch_up=True), now="2026-06-04T12:00:00", saved=saved)
    assert bench.fired.scheduled() == ["2026-06-04T06:00:00+02:00"]
    assert bench.advance("18h", "1m") == ["2026-06-05T06:00:00+02:00"]
    # What was saved with it says so to the next life.
    again = Bench(Cron("0 6 * * *", catch_up=True), now="2026-06-05T06:00:10", saved=bench.fired)
    assert again.fired.scheduled() == []


def test_nothing_is_made_up_for_where_nothing_was_missed_or_nobody_asked():
    saved = Bench(Cron("0 6 * * *", catch_up=True), now="2026-06-01T07:00:00").fired
    assert Bench(Cron("0 6 * * *", catch_up=True), now="2026-06-02T05:59:00", saved=saved).fired.all == []
    assert Bench(SIX, now="2026-06-04T12:00:00", saved=saved).fired.all == []


def test_a_run_is_made_up_for_only_when_the_clock_is_right():
    saved = Bench(Cron("0 6 * * *", catch_up=True)).fired
    bench = Bench(now="2026-06-01T05:59:00", saved=saved)
    bench.right = False
    bench.functions = [function("f", Cron("0 6 * * *", catch_up=True))]
    bench.crons.plan(bench.functions)
    assert bench.advance("1h", "1m") == []
    bench.clock.jump("72h")
    bench.right = True
    assert bench.advance("1s", "1s") == ["2026-06-04T06:00:00+02:00"]


def test_the_newest_of_many_missed_is_found_quickly():
    until = ns("2026-06-01T12:00:30")
    assert newest("* * * * *", BERLIN, 0, until) == ns("2026-06-01T12:00:00")
    assert newest("0 0 29 2 *", BERLIN, ns("1990-01-01T00:00:00"), until) == ns("2024-02-29T00:00:00")
    assert newest("0 0 29 2 *", BERLIN, ns("2024-02-29T00:00:00"), until) is None


def test_lines_that_a_function_has_no_more_are_forgotten():
    fired, clock = Fired(), ManualClock()
    memories = Memories(clock, fired.save)
    crons = Crons(fired, clock, Metrics(), memories, lambda: True, fired.save, lambda: BERLIN)
    for minute in range(60):
        crons.plan([function("f", Cron(f"{minute} 6 * * *", catch_up=True))])
        crons.step()
    assert list(memories["f"].moments) == ["59 6 * * *"]


# Summer and winter, as the library has it: as Debian's cron, a run of a fixed hour is neither lost nor doubled.


def test_a_run_in_the_hour_that_spring_leaves_out_comes_right_after_it():
    assert moments("30 2 * * *", "2026-03-28T12:00:00", 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_a_run_in_the_hour_that_autumn_has_twice_comes_once():
    assert moments("30 2 * * *", "2026-10-24T12:00:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_in_the_second_of_two_hours_the_first_is_over():
    second = round(datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN).timestamp()) * NS
    assert following("30 2 * * *", BERLIN, second) == ns("2026-10-26T02:30:00")


def test_what_runs_all_the_time_goes_by_the_minutes_that_pass():
    assert moments("*/30 * * * *", "2026-10-25T01:45:00", 5) == [
        f"2026-10-25T{at}:00" for at in ("02:00:00+02", "02:30:00+02", "02:00:00+01", "02:30:00+01", "03:00:00+01")
    ]
    assert moments("*/30 * * * *", "2026-03-29T01:15:00", 3) == [
        f"2026-03-29T{at}:00" for at in ("01:30:00+01", "03:00:00+02", "03:30:00+02")
    ]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_whole_day_of_the_change_on_the_clock(day: str, hours: int):
    bench = Bench(Cron("30 2 * * *"), MINUTELY, now=f"{day}T00:00:30")
    came = bench.advance(f"{hours}h")
    assert len(came) == len(set(came)) + 1 == hours * 60 + 1  # the one at 2:30 (or 3:00) is also one of each minute


def field(low: int, high: int) -> st.SearchStrategy[tuple[str, Callable[[int], bool]]]:
    """A field of cron, and whether a number fits it."""
    number = st.integers(low, high)
    return st.one_of(
        st.just(("*", lambda n: True)),
        number.map(lambda n: (str(n), lambda m, n=n: m == n)),
        st.sets(number, min_size=2, max_size=4).map(
            lambda some: (",".join(map(str, sorted(some))), lambda m, some=some: m in some)
        ),
        st.tuples(number, number)
        .map(sorted)
        .map(lambda ends: (f"{ends[0]}-{ends[1]}", lambda m, ends=ends: ends[0] <= m <= ends[1])),
        st.integers(2, 20).map(lambda n: (f"*/{n}", lambda m, n=n: (m - low) % n == 0)),
    )


@settings(max_examples=60, deadline=None)
@given(
    minute=field(0, 59),
    hour=field(0, 23),
    day=field(1, 28),
    month=field(1, 12),
    weekday=field(0, 6),
    seed=st.integers(),
)
def test_against_a_stepper_that_looks_at_each_minute(minute, hour, day, month, weekday, seed):  # type: ignore[no-untyped-def]
    line = " ".join(one[0] for one in (minute, hour, day, month, weekday))
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=random.Random(seed).randrange(525_600))
    both = day[0].startswith("*") or weekday[0].startswith("*")

    def comes(at: datetime) -> bool:
        if not (minute[1](at.minute) and hour[1](at.hour) and month[1](at.month)):
            return False
        days = day[1](at.day), weekday[1](at.isoweekday() % 7)
        return all(days) if both else any(days)

    at, expected = begin.replace(second=0) + timedelta(minutes=1), NEVER
    for _ in range(20 * 1440):
        if comes(at):
            expected = round(at.timestamp()) * NS
            break
        at += timedelta(minutes=1)
    found = following(line, ZoneInfo("UTC"), round(begin.timestamp()) * NS)
    assert found == expected or (expected == NEVER and found > round(at.timestamp() - 60) * NS)


def nothing() -> None:
    """A handler."""


@pytest.mark.parametrize(
    "line", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * */9 * 0#5", "0 0 */9 2 MON#5", "0 0 */31 4 1L"]
)
def test_a_line_that_never_comes_is_refused(line: str):
    from edgefn import cron
    from edgefn.errors import HandlerError

    with pytest.raises(HandlerError, match=r"never comes|Bad day-of-month"):
        cron(line)(nothing)


@pytest.mark.parametrize("line", ["0 0 29 2 *", "0 0 29 2 */7", "0 0 */28 2 MON#5", "0 0 31 2 1"])
def test_a_line_that_seldom_comes_is_not(line: str):
    from edgefn import cron

    assert cron(line)(nothing)


# The zone of the machine


def test_the_zone_of_the_machine_is_that_of_the_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shared = tmp_path / "zoneinfo" / "Asia" / "Kolkata"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"")
    link = tmp_path / "localtime"
    link.symlink_to(shared)
    monkeypatch.delenv("TZ", raising=False)
    assert str(local_zone(link)) == "Asia/Kolkata"
    monkeypatch.setenv("TZ", ":America/Lima")
    assert str(local_zone(link)) == "America/Lima"
    monkeypatch.setenv("TZ", "no/such")
    assert str(local_zone(tmp_path / "none")) == "UTC"
