"""What becomes of an invocation: it is done, tried again, or it ends among the dead letters; in real workers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edgefn.functions.invocation import from_row
from tests.functions.helpers import deployments, functions

LIGHT = """
from edgefn import on

@on("doors/{room}")
async def light(event, ctx):
    await ctx.publish(f"lights/{event.key.room}/set", {"on": event["open"], "attempt": event.attempt})
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    ctx.forward({"opened": event["open"]})
    return {"count": ctx.state["n"]}
"""

FLAKY = """
from edgefn import on

@on("flaky", retries=2, backoff="1ms")
def flaky(event, ctx):
    ctx.publish("said", "hello")
    ctx.publish("said", f"attempt {event.attempt}")
    ctx.publish("said", "hello")
    ctx.state["attempts"] = event.attempt
    ctx.forward(event.attempt)
    if event.attempt <= event["failures"]:
        raise RuntimeError(f"attempt {event.attempt}")
"""

ORDERED = """
import asyncio
from edgefn import on

@on("ordered/{key}", ordered=True, retries=3, backoff="1ms")
async def ordered(event, ctx):
    await asyncio.sleep(event["wait"])
    if event.attempt == 1 and event.get("fail"):
        raise RuntimeError("once")
    return event["n"]
"""

GATE = """
import time, pathlib
from edgefn import on

@on("gate", timeout="30s", max_queue=3{options})
def gate(event, ctx):
    while not pathlib.Path(ctx.secret("open")).exists():
        time.sleep(0.005)
    return event.data
"""


LEAKS = """
from edgefn import on

kept = []

@on("a", memory="32MB")
def leaks():
    kept.append(b"x" * (7 << 20))
    return len(kept)
"""


async def test_effects_of_an_invocation_go_where_they_belong(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("light.py", LIGHT)
        for _ in range(2):
            fn.invoke("light", b'{"open": true}', captures={"room": "hall"}, key="hall")
            await fn.until(lambda: not fn.scheduler.lanes["light"].waiting)
        assert await fn.outcomes("light", 2) == {"done": 2}
        assert fn.out.published == [("lights/hall/set", b'{"on":true,"attempt":1}')] * 2
        assert fn.out.values == [("light", {"count": 1}), ("light", {"count": 2})]
        cut = fn.commit()
        assert [item.payload for item in cut.items] == [b'{"opened":true}'] * 2
        assert [part.owner for part in cut.parts] == ["function light"]


async def test_a_failed_attempt_leaves_nothing_but_what_it_published_and_that_once(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("flaky.py", FLAKY)
        fn.invoke("flaky", b'{"failures": 2}')
        assert await fn.outcomes("flaky", 3) == {"failed": 2, "done": 1}
        said = [payload for _, payload in fn.out.published]
        assert said == [b"hello", b"attempt 1", b"hello", b"attempt 2", b"attempt 3"]
        assert [item.payload for item in fn.commit().items] == [b"3"]
        assert fn.scheduler.lanes["flaky"].memory.values == {"attempts": b"3"}


async def test_what_fails_each_time_ends_among_the_dead_letters_and_can_be_put_back(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("flaky.py", FLAKY)
        invocation = fn.invoke("flaky", b'{"failures": 3}', durable=True, key="k", captures={"a": "b"})
        assert await fn.outcomes("flaky", 3) == {"failed": 3}
        (letter,) = fn.commit().letters
        assert (letter.handler, letter.reason, letter.attempts) == ("flaky", "failed", 3)
        assert letter.detail.startswith("RuntimeError: attempt 3\nTraceback")
        again = from_row(invocation.id, letter.payload)
        assert (again.payload, again.key, again.captures, again.attempt) == (b'{"failures": 3}', "k", {"a": "b"}, 1)
        fn.scheduler.restore({again.owner: [letter.payload]})
        await fn.outcomes("flaky", 6)


async def test_invocations_of_one_key_keep_their_order_and_hold_no_other_key_up(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("ordered.py", ORDERED)
        fn.invoke("ordered", b'{"n": 1, "wait": 0.1, "fail": true}', key="a")
        fn.invoke("ordered", b'{"n": 2, "wait": 0}', key="a")
        fn.invoke("ordered", b'{"n": 3, "wait": 0}', key="b")
        await fn.until(lambda: len(fn.out.values) == 3)
        assert [value for _, value in fn.out.values] == [3, 1, 2]


@pytest.mark.parametrize(
    ("option", "durable", "kept", "buried"),
    [
        ("", False, [0, 4, 5, 6], []),
        ("", True, [0, 1, 2, 3], [4, 5, 6]),
        (", on_overflow='drop-oldest'", True, [0, 4, 5, 6], []),
        (", on_overflow='drop-newest'", False, [0, 1, 2, 3], []),
    ],
)
async def test_a_full_queue_gives_up_what_its_policy_says_and_counts_it(
    tmp_path: Path, option: str, durable: bool, kept: list[int], buried: list[int]
) -> None:
    async with functions(tmp_path) as fn:
        fn.write("gate.py", GATE.format(options=option))
        (tmp_path / "secrets" / "open").write_text(str(tmp_path / "opened"))
        fn.invoke("gate", b"0", durable=durable)
        await fn.until(lambda: fn.scheduler.lanes["gate"].running)
        for n in range(1, 7):
            fn.invoke("gate", b"%d" % n, durable=durable)
        (tmp_path / "opened").touch()
        await fn.outcomes("gate", 4)
        assert [value for _, value in fn.out.values] == kept
        letters = fn.commit().letters
        assert [letter.reason for letter in letters] == ["overflow"] * len(buried)
        assert fn.metrics.total("functions.dropped.queue_full") == 3
        assert not fn.scheduler.journal.waiting


async def test_a_new_version_takes_over_what_waits_and_a_removed_handler_s_invocations_wait_for_it(
    tmp_path: Path,
) -> None:
    async with functions(tmp_path) as fn:
        fn.write("a.py", "from edgefn import on\n@on('a')\ndef a(): return 1\n")
        fn.invoke("a")
        await fn.until(lambda: fn.out.values == [("a", 1)])
        (tmp_path / "a.py").unlink()
        fn.write("b.py", "from edgefn import on\n@on('b')\ndef b(): return 1\n")
        fn.invoke("a", durable=True)
        fn.invoke("b")
        await fn.until(lambda: ("b", 1) in fn.out.values)
        assert fn.scheduler.lanes["a"].waiting == 1
        fn.write("a.py", "from edgefn import on\n@on('a')\ndef a(): return 2\n")
        await fn.until(lambda: ("a", 2) in fn.out.values)


async def test_the_same_durable_event_is_taken_in_once(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("light.py", LIGHT)
        for _ in range(3):
            fn.invoke("light", b'{"open": true}', captures={"room": "hall"}, durable=True, id="same")
        assert await fn.outcomes("light", 1) == {"done": 1}
        fn.commit()
        fn.invoke("light", b'{"open": true}', captures={"room": "hall"}, durable=True, id="same")
        assert fn.metrics.total("functions.redelivered") == 3


async def test_a_handler_s_output_and_its_invocations_start_others(tmp_path: Path) -> None:
    source = """
from edgefn import on

@on("a")
def first(event, ctx):
    ctx.invoke(third, {"from": "first"})
    ctx.invoke("nobody")
    return {"n": 1}

@on(first)
def second(event):
    return [event["n"], event.topic]

@on("never")
def third(event):
    return event["from"]
"""
    async with functions(tmp_path) as fn:
        fn.write("chain.py", source)
        fn.invoke("first", durable=True)
        await fn.until(lambda: len(fn.out.values) == 3)
        assert sorted(fn.out.values, key=str) == [
            ("first", {"n": 1}),
            ("second", [1, "output/first"]),
            ("third", "first"),
        ]
        assert fn.metrics.total("functions.dropped.unknown_handler") == 1


async def test_workers_die_with_the_template_and_what_they_ran_runs_again_for_free(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("gate.py", GATE.format(options=", retries=0"))
        (tmp_path / "secrets" / "open").write_text(str(tmp_path / "opened"))
        invocation = fn.invoke("gate", b"1")
        await fn.until(lambda: fn.scheduler.lanes["gate"].running and invocation.published is not None)
        await fn.until(lambda: all(one.is_ready for one in fn.scheduler.pool.workers.values()))
        os.kill(fn.scheduler.pool.template_pid, signal.SIGKILL)
        (tmp_path / "opened").touch()
        await fn.until(lambda: fn.out.values == [("gate", 1)])
        assert invocation.attempt == 1


async def test_a_worker_that_leaks_is_replaced_between_two_invocations(tmp_path: Path) -> None:
    source = LEAKS
    async with functions(tmp_path) as fn:
        fn.write("leaks.py", source)
        for n in range(1, 8):
            fn.invoke("leaks")
            await fn.outcomes("leaks", n)
        assert {name: n for name, n in fn.scheduler.lanes["leaks"].meter.outcomes.items()} == {"done": 7}
        assert max(value for _, value in fn.out.values) < 5
        assert fn.metrics.total("functions.workers_recycled") >= 1


async def test_few_workers_serve_many_handlers_in_turns(tmp_path: Path) -> None:
    async with functions(tmp_path, workers=2) as fn:
        for n in range(5):
            fn.write(f"h{n}.py", f"from edgefn import on\n@on('a')\ndef h{n}(): return {n}\n")
        for _ in range(3):
            for n in range(5):
                fn.invoke(f"h{n}")
        await fn.until(lambda: len(fn.out.values) == 15)
        assert len(fn.scheduler.pool.workers) <= 2


SLIPS = """
from edgefn import on

@on("slips", retries=0)
async def slips(event, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    if event["what"] == "key":
        ctx.forward(1, key=5)
    elif event["what"] == "float":
        ctx.forward(1, ts=1.5)
    elif event["what"] == "far":
        ctx.forward(1, ts=2**63)
    elif event["what"] == "long":
        ctx.invoke("slips", "x" * (2 << 20))
    elif event["what"] == "large":
        return "x" * (2 << 20)
    elif event["what"] == "together":
        for _ in range(20):
            ctx.forward("x" * 500_000)
    elif event["what"] == "captured":
        ctx.forward(1, key=event.key)
        ctx.publish(event.key, event.key.what)
        ctx.state[event.key] = event.key
"""


@pytest.mark.parametrize(
    ("what", "result", "error"),
    [
        ("key", "failed", "EffectError: forward(key=5): a text is expected, such as '5'"),
        ("float", "failed", "EffectError: forward(ts=1.5): whole ns since the epoch are expected"),
        ("far", "failed", f"EffectError: forward(ts={2**63}): whole ns since the epoch are expected"),
        ("long", "failed", "EffectError: the data for slips has 2097154 bytes; 1048576 are allowed"),
        ("large", "unfit", "UnfitError: what it returned has 2097154 bytes; 1048576 are allowed"),
        ("together", "unfit", "UnfitError: what it returned and forwarded is too large together"),
    ],
)
async def test_an_effect_that_cannot_be_fails_its_attempt_alone_and_leaves_no_state(
    tmp_path: Path, what: str, result: str, error: str
) -> None:
    async with functions(tmp_path) as fn:
        fn.write("slips.py", SLIPS)
        fn.invoke("slips", f'{{"what": "{what}"}}'.encode())
        assert await fn.outcomes("slips", 1) == {result: 1}
        lane = fn.scheduler.lanes["slips"]
        assert lane.last_error is not None
        assert lane.last_error["error"].startswith(error)
        (worker,) = fn.scheduler.pool.workers.values()
        fn.invoke("slips", b'{"what": ""}')
        await fn.until(lambda: lane.meter.outcomes["done"])
        assert lane.memory.values == {"n": b"1"}
        assert list(fn.scheduler.pool.workers.values()) == [worker]


async def test_a_captured_key_is_a_text_wherever_one_is_wanted(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("slips.py", SLIPS)
        fn.invoke("slips", b'{"what": "captured"}', key="hall", captures={"what": "hall"})
        assert await fn.outcomes("slips", 1) == {"done": 1}
        assert fn.out.published == [("hall", b"hall")]
        assert fn.scheduler.lanes["slips"].memory.values == {"n": b"1", "hall": b'"hall"'}


LAST_WORDS = """
import os, threading
from edgefn import on

@on("a", retries=0)
def a(event, ctx):
    if event["leave"]:
        ctx.publish("b", "last")
        threading.Timer(0.1, os._exit, (0,)).start()
"""

CLINGS = """
import asyncio
from edgefn import on

tasks = []

async def cling():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@on("a")
async def a(event, ctx):
    tasks.append(asyncio.create_task(cling()))
    ctx.publish("begun", "")
    await asyncio.sleep(0.2)
"""

PAUSED = """
import pathlib, time
from edgefn import on

@on("a", retries=1, backoff="1ms")
def a(event, ctx):
    pathlib.Path(ctx.secret("here")).touch()
    while not pathlib.Path(ctx.secret("here") + ".go").exists():
        time.sleep(0.005)
    if event["fail"] and event.attempt == 1:
        raise RuntimeError("once")
    ctx.forward(event.attempt)
    ctx.invoke("b")
    return event.attempt

@on("b")
def b(event):
    return "b"
"""


async def test_what_a_new_version_finds_in_a_worker_that_begins_runs_in_the_new_one_at_no_cost(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        source = "import time\nfrom edgefn import on\ntime.sleep(0.2)\n@on('a', retries=0)\ndef a(): return {}\n"
        fn.write("a.py", source.format(1))
        first, second = fn.invoke("a", durable=True), fn.invoke("a", durable=True)
        fn.write("a.py", source.format(2))
        await fn.until(lambda: len(fn.out.values) == 2)
        assert fn.out.values == [("a", 2), ("a", 2)]
        assert await fn.outcomes("a", 2) == {"done": 2}
        assert [one.id for one in fn.commit().done] == [first.id, second.id]


async def test_one_that_waits_for_its_worker_while_its_handler_is_paused_waits_for_the_handler(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        (tmp_path / "a.py").write_text(
            "import time\nfrom edgefn import on\ntime.sleep(0.2)\n@on('a', retries=0)\ndef a(): return 1\n"
            "@on('b', retries=0)\ndef b(): return 1\n"
        )
        both = deployments(tmp_path / "a.py")
        fn.scheduler.deploy(both)
        fn.invoke("a", durable=True)
        fn.scheduler.deploy([one for one in both if one.manifest.name == "b"])
        fn.invoke("b")
        await fn.until(lambda: fn.out.values == [("b", 1)])
        assert fn.scheduler.lanes["a"].waiting == 1
        fn.scheduler.deploy(both)
        await fn.until(lambda: ("a", 1) in fn.out.values)
        assert not fn.commit().letters


@pytest.mark.parametrize("fail", [False, True])
async def test_one_that_runs_while_its_handler_is_paused_has_its_effects_and_its_retries(
    tmp_path: Path, *, fail: bool
) -> None:
    async with functions(tmp_path) as fn:
        here = tmp_path / "here"
        (tmp_path / "secrets" / "here").write_text(str(here))
        (tmp_path / "a.py").write_text(PAUSED)
        both = deployments(tmp_path / "a.py")
        fn.scheduler.deploy(both)
        invocation = fn.invoke("a", f'{{"fail": {str(fail).lower()}}}'.encode(), durable=True)
        await fn.until(here.exists)
        fn.scheduler.deploy([one for one in both if one.manifest.name == "b"])
        (tmp_path / "here.go").touch()
        if fail:
            await fn.outcomes("a", 1)
            assert not fn.commit().letters
            fn.scheduler.deploy(both)
        await fn.until(lambda: ("b", "b") in fn.out.values)
        attempt = 2 if fail else 1
        assert ("a", attempt) in fn.out.values
        cut = fn.commit()
        assert [item.payload for item in cut.items] == [b"%d" % attempt]
        assert invocation in cut.done


async def test_what_a_worker_said_before_it_died_counts_also_where_its_death_is_heard_first(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("a.py", LAST_WORDS)
        fn.invoke("a", b'{"leave": false}')
        await fn.outcomes("a", 1)
        (worker,) = fn.scheduler.pool.workers.values()
        assert worker.transport is not None
        assert isinstance(worker.transport, asyncio.Transport)
        worker.transport.pause_reading()
        fn.invoke("a", b'{"leave": true}', durable=True)
        await fn.until(lambda: worker.ended)
        assert await fn.outcomes("a", 2) == {"done": 2}
        assert fn.out.published == [("b", b"last")]
        assert not fn.commit().letters


async def test_a_worker_that_was_told_to_leave_and_does_not_when_its_calls_are_through_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place would be taken for ever."""
    monkeypatch.setattr("edgefn.functions.pool.LEAVING", 0.05)
    async with functions(tmp_path) as fn:
        fn.write("a.py", CLINGS)
        fn.invoke("a")
        await fn.until(lambda: fn.out.published)
        (worker,) = fn.scheduler.pool.workers.values()
        fn.write("a.py", CLINGS + "\n")
        await fn.until(lambda: worker.ended)
        assert await fn.outcomes("a", 1) == {"done": 1}
        assert worker.cause == "idle"


async def test_what_is_not_durable_and_comes_again_while_it_runs_or_waits_is_taken_in_once(tmp_path: Path) -> None:
    """Of two of one id in one worker nobody stopped the timer of the first, which then killed the worker."""
    async with functions(tmp_path) as fn:
        fn.write(
            "a.py",
            "import asyncio\nfrom edgefn import on\n@on('a')\n"
            "async def a(event):\n    await asyncio.sleep(event['for'])\n",
        )
        fn.invoke("a", b'{"for": 0.2}', id="same")
        fn.invoke("a", b'{"for": 0.2}', id="same")
        assert await fn.outcomes("a", 1) == {"done": 1}
        assert fn.metrics.total("functions.redelivered") == 1
        assert not fn.scheduler.lanes["a"].running
        fn.invoke("a", b'{"for": 0}', id="same")  # it is remembered no longer than it is there
        assert await fn.outcomes("a", 2) == {"done": 2}


async def test_as_many_give_way_to_a_large_one_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefn.functions.scheduler.MAX_BYTES", 20_000)
    async with functions(tmp_path) as fn:
        (tmp_path / "secrets" / "open").write_text(str(tmp_path / "opened"))
        fn.write("gate.py", GATE.format(options="").replace("max_queue=3", "max_queue=100"))
        fn.invoke("gate")
        for _ in range(10):
            fn.invoke("gate")
        for _ in range(10):
            fn.invoke("gate", b'"' + b"x" * 10_000 + b'"')
        lane = fn.scheduler.lanes["gate"]
        assert sum(one.size for one in lane.queue) <= 20_000
        assert lane.meter.dropped["queue_full"] == 20 - len(lane.queue)
        fn.invoke("gate", b"x" * 30_000)  # for this one no room can be made
        assert lane.meter.dropped["queue_full"] == 21 - len(lane.queue)
        (tmp_path / "opened").touch()


async def test_what_a_worker_did_while_it_was_given_an_older_state_is_not_forgotten(tmp_path: Path) -> None:
    """A worker of the version before ends meanwhile, so the state goes to the new one anew: without what that has just done."""
    async with functions(tmp_path) as fn:
        source = (
            "import asyncio\nfrom edgefn import on\n@on('a')\nasync def a(event, ctx):\n"
            "    await asyncio.sleep(event['for'])\n"
            "    ctx.state[event['what']] = 1\n    return sorted(ctx.state)\n"
        )
        fn.write("a.py", source)
        fn.invoke("a", b'{"what": "w", "for": 0}')
        await fn.outcomes("a", 1)
        fn.invoke("a", b'{"what": "old", "for": 0.6}')
        (old,) = fn.scheduler.pool.workers.values()
        await fn.until(lambda: old.calls)
        fn.write("a.py", source + "\n")
        fn.invoke("a", b'{"what": "x", "for": 0}')
        await fn.outcomes("a", 2)
        new = next(one for one in fn.scheduler.pool.workers.values() if one is not old)
        assert isinstance(new.transport, asyncio.Transport)
        fn.invoke("a", b'{"what": "y", "for": 0}')
        new.transport.pause_reading()  # what it says is heard after the old one is through
        await fn.outcomes("a", 3)
        fn.invoke("a", b'{"what": "z", "for": 0.3}')
        new.transport.resume_reading()
        await fn.outcomes("a", 5)
        fn.invoke("a", b'{"what": "last", "for": 0}')
        await fn.outcomes("a", 6)
        assert fn.out.values[-1] == ("a", ["last", "old", "w", "x", "y", "z"])


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("raised", "error"),
    [
        ("ValueError('\\udc80')", "ValueError: \\udc80"),
        ("Mute()", "Mute, and ZeroDivisionError when it was to be told"),
    ],
)
async def test_an_error_that_cannot_be_written_is_told_all_the_same(
    tmp_path: Path, kind: str, raised: str, error: str
) -> None:
    async with functions(tmp_path) as fn:
        fn.write(
            "a.py",
            "from edgefn import on\nclass Mute(Exception):\n    def __str__(self): return 1 / 0\n"
            f"@on('a', retries=0)\n{kind} a(): raise {raised}\n",
        )
        fn.invoke("a")
        assert await fn.outcomes("a", 1) == {"failed": 1}
        assert (fn.scheduler.lanes["a"].last_error or {})["error"] == error
