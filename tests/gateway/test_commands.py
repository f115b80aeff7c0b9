"""A command is carried out, answered where it asks to be, and harms nothing whatever it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgefn.errors import StoreError
from edgefn.gateway.commands import MAX_ANSWER, MAX_COMMAND, CommandError, Commands, Tell, text
from edgefn.metrics import Metrics
from edgefn.monitor import Topics
from edgefn.testing import MemoryBus

TOPICS = Topics("gw-1")
REPLY = "edgefn/gw-1/reply/me"


class Desk:
    """Commands over a bus in memory, with verbs that do what a test needs."""

    def __init__(self) -> None:
        self.bus, self.metrics = MemoryBus(), Metrics()
        self.go_on = asyncio.Event()
        self.done: list[dict[str, Any]] = []
        verbs = {"greet": self.greet, "fail": self.fail, "break": self.bug, "fill": self.fill, "wait": self.wait}
        self.commands = Commands(self.bus, TOPICS, self.metrics, verbs, beside={"wait"})  # type: ignore[arg-type]

    async def greet(self, arguments: dict[str, Any], _: Tell) -> Any:
        self.done.append(arguments)
        return f"hello {text(arguments, 'name')}"

    async def fail(self, arguments: dict[str, Any], _: Tell) -> Any:
        raise StoreError("edgefn.db: the disk is full")

    async def bug(self, arguments: dict[str, Any], _: Tell) -> Any:
        raise KeyError("oops")

    async def fill(self, arguments: dict[str, Any], _: Tell) -> Any:
        return "x" * arguments["bytes"]

    async def wait(self, arguments: dict[str, Any], tell: Tell) -> Any:
        await tell({"left": 1})
        await self.go_on.wait()
        return "over"

    async def say(self, verb: str, payload: Any, **more: Any) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.bus.publish(TOPICS.command(verb), data, qos=1, **more)
        for _ in range(10):  # the steps of the tasks that this wakes
            await asyncio.sleep(0)

    def answers(self, topic: str = REPLY) -> list[Any]:
        return [json.loads(message.payload) for message in self.bus.on(topic)]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with _running(Desk()) as one:
        yield one


@asynccontextmanager
async def _running(desk: Desk) -> AsyncIterator[Desk]:
    task = asyncio.create_task(desk.commands.run())
    await asyncio.sleep(0)
    yield desk
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_an_answer_goes_where_it_is_wanted_with_the_id_it_was_asked_with(desk: Desk) -> None:
    await desk.say("greet", {"name": "Ada", "reply_to": REPLY, "id": [7, "seven"]})
    assert desk.answers() == [{"id": [7, "seven"], "ok": True, "result": "hello Ada", "done": True}]
    assert [message.qos for message in desk.bus.on(REPLY)] == [1]
    assert desk.done == [{"name": "Ada"}]


async def test_without_a_reply_topic_it_is_carried_out_and_nothing_is_said(desk: Desk) -> None:
    await desk.say("greet", {"name": "Ada"})
    assert desk.done == [{"name": "Ada"}]
    assert len(desk.bus.published) == 1


@pytest.mark.parametrize(
    ("verb", "arguments", "error"),
    [
        ("greet", {}, 'it needs {"name": "…"}'),
        ("dance", {}, "it is not known; known are break, fail, fill, greet, wait"),
        ("fail", {}, "edgefn.db: the disk is full"),
        ("break", {}, "'oops'"),
    ],
)
async def test_what_cannot_be_done_is_answered_logged_and_counted(
    desk: Desk, caplog: pytest.LogCaptureFixture, verb: str, arguments: dict[str, Any], error: str
) -> None:
    await desk.say(verb, {**arguments, "reply_to": REPLY, "id": 1})
    assert desk.answers() == [{"id": 1, "ok": False, "error": error, "done": True}]
    assert f"cmd/{verb}: {error}" in caplog.messages
    assert desk.metrics.total("commands.failed") == 1
    await desk.say("greet", {"name": "Ada", "reply_to": REPLY})
    assert desk.answers()[-1]["ok"]


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"[1]", "no JSON object"),
        (b"{", "bad_json"),
        (b'{"name": "' + b"x" * MAX_COMMAND + b'"}', f"{MAX_COMMAND} are allowed"),
        (b'{"reply_to": "a/+"}', "contains a wildcard"),
        (b'{"reply_to": "$SYS/a"}', "answers go to a topic"),
        (b'{"reply_to": 7}', "answers go to a topic"),
        (b'{"reply_to": null}', "answers go to a topic"),
        (b'{"reply_to": "edgefn/gw-1/cmd/greet"}', "answers go to a topic"),
        (b'{"reply_to": "edgefn/gw-2/confirmed"}', "answers go to a topic"),
        (b'{"reply_to": "edgefn"}', "answers go to a topic"),
    ],
)
async def test_what_is_no_command_is_logged_and_not_carried_out(
    desk: Desk, caplog: pytest.LogCaptureFixture, payload: bytes, error: str
) -> None:
    await desk.say("greet", payload)
    assert (desk.done, len(desk.bus.published)) == ([], 1)
    assert error in caplog.text
    assert desk.metrics.total("commands.failed") == 1


async def test_a_retained_command_is_not_carried_out(desk: Desk) -> None:
    await desk.say("greet", {"name": "Ada"}, retain=True)
    assert desk.done == []


async def test_what_takes_long_tells_its_progress_and_holds_nothing_up(desk: Desk) -> None:
    await desk.say("wait", {"reply_to": REPLY, "id": 1})
    assert desk.answers() == [{"id": 1, "ok": True, "result": {"left": 1}, "done": False}]
    await desk.say("greet", {"name": "Ada", "reply_to": REPLY, "id": 2})
    await desk.say("wait", {"reply_to": REPLY, "id": 3})
    assert desk.answers()[1:] == [
        {"id": 2, "ok": True, "result": "hello Ada", "done": True},
        {"id": 3, "ok": False, "error": "one is under way; wait for its end, or stop it", "done": True},
    ]
    desk.go_on.set()
    await desk.say("wait", {"reply_to": REPLY, "id": 4})
    assert [answer["id"] for answer in desk.answers() if answer.get("result") == "over"] == [1, 4]


async def test_an_answer_that_is_too_long_becomes_an_error(desk: Desk) -> None:
    await desk.say("fill", {"bytes": MAX_ANSWER, "reply_to": REPLY})
    await desk.say("fill", {"bytes": MAX_ANSWER - 100, "reply_to": REPLY})
    first, second = desk.answers()
    assert "ask for less at a time" in first["error"]
    assert second["ok"]


async def test_an_answer_that_cannot_be_given_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    publish = desk.bus.publish

    async def away(topic: str, *arguments: Any, **more: Any) -> None:
        if topic == REPLY:
            raise CommandError("away")
        await publish(topic, *arguments, **more)

    desk.bus.publish = away  # type: ignore[method-assign]
    await desk.say("greet", {"name": "Ada", "reply_to": REPLY})
    assert "cmd/greet: its answer is lost: away" in caplog.messages
