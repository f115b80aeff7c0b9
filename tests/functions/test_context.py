"""What a handler may ask for, and what it is told where that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgefn import on
from edgefn.errors import TopicError
from edgefn.functions.context import MAX_EFFECTS, MAX_STATE, Context, EffectError, State, UnfitError, to_json
from edgefn.functions.event import Event


@pytest.fixture
def published() -> list[tuple[str, bytes, int, bool]]:
    return []


@pytest.fixture
def ctx(tmp_path: Path, published: list[tuple[str, bytes, int, bool]]) -> Context:
    return Context(
        Event("t", key="k"), State({"n": b"1"}), lambda *message: published.append(message), name="h", gateway="gw",
        deadline=3_000_000_000, secrets=tmp_path, monotonic=lambda: 1_000_000_000,
    )  # fmt: skip


async def test_publishing_can_be_awaited_or_not(ctx: Context, published: list[tuple[str, bytes, int, bool]]) -> None:
    ctx.publish("a", {"x": 1})
    await ctx.publish("b", "text", qos=1, retain=True)
    ctx.publish("c", b"\x00")
    assert published == [("a", b'{"x":1}', 0, False), ("b", b"text", 1, True), ("c", b"\x00", 0, False)]


def test_what_cannot_be_published_says_why(ctx: Context) -> None:
    with pytest.raises(TopicError, match="contains a wildcard"):
        ctx.publish("a/#", 1)
    with pytest.raises(EffectError, match="qos=2; 0 or 1 is allowed"):
        ctx.publish("a", 1, qos=2)
    with pytest.raises(UnfitError, match="what is published to a cannot be written as JSON"):
        ctx.publish("a", object())
    with pytest.raises(EffectError, match="1048577 bytes"):
        ctx.publish("a", b"x" * ((1 << 20) + 1))


def test_state_is_a_dictionary_of_copies_whose_changes_are_known(ctx: Context) -> None:
    state = ctx.state
    assert dict(state) == {"n": 1}
    state["list"] = [1]
    state["list"].append(2)  # of a copy
    assert state["list"] == [1]
    del state["n"]
    assert list(state) == ["list"]
    assert len(state) == 1
    assert state.changes == {"list": b"[1]", "n": None}
    with pytest.raises(KeyError):
        del state["n"]


def test_state_has_a_size_and_takes_what_json_has_words_for(ctx: Context) -> None:
    with pytest.raises(EffectError, match="65536 are allowed"):
        ctx.state["large"] = "x" * MAX_STATE
    with pytest.raises(UnfitError, match=r"state\['f'\] cannot be written as JSON"):
        ctx.state["f"] = lambda: 1
    assert dict(ctx.state) == {"n": 1}


def test_an_invocation_has_so_many_effects(ctx: Context) -> None:
    for _ in range(MAX_EFFECTS):
        ctx.forward(1)
    with pytest.raises(EffectError, match="more than 1000 forwarded rows"):
        ctx.forward(1)


def test_another_handler_is_invoked_by_its_function_or_name(ctx: Context) -> None:
    @on("x", name="other")
    def function(event: Event) -> None: ...

    ctx.invoke(function, {"a": 1})
    ctx.invoke("third")
    assert [(one.name, one.payload) for one in ctx.invokes] == [("other", b'{"a":1}'), ("third", b"null")]
    with pytest.raises(EffectError, match="name a Python handler"):
        ctx.invoke(print)


def test_a_secret_is_read_from_its_file(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    assert ctx.secret("token") == "abc"
    with pytest.raises(EffectError, match="there is no file"):
        ctx.secret("other")
    with pytest.raises(EffectError, match="without /"):
        ctx.secret("../passwd")


def test_the_time_that_is_left(ctx: Context) -> None:
    assert ctx.remaining == 2.0


class Row(NamedTuple):
    mean: float
    n: int


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (Row(1.5, 2), b'{"mean":1.5,"n":2}'),
        (np.float64(1.5), b"1.5"),
        ({"a": np.arange(2)}, b'{"a":[0,1]}'),
        (float("nan"), b"null"),
    ],
)
def test_values_as_json(value: object, json: bytes) -> None:
    assert to_json(value, "it") == json
