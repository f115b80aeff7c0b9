"""Rows of neighbouring windows become one when there is no room: exact in what they say, and never twice at the far side."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.mergeable import pack, parts
from edgefn.policies import StreamPolicy
from edgefn.store import Commit, Item, NewItem, Store, hands, thinning
from edgefn.summaries import RELATIVE_ERROR, ZERO_ERROR, Summary
from edgefn.timestamps import to_iso
from tests.store.helpers import START, a_store

STATS = ("n", "mean", "min", "max", "sum", "std", "first", "last", "median", "p95")
MINUTE = 60 * NS
BEGIN = START - START % (MINUTE << 20)  # the grid of every level begins here


def a_summary(
    samples: list[float], window: int, *, key: str = "attic", stats: tuple[str, ...] = STATS, quota: int | None = None,
    size: int = MINUTE,
) -> NewItem:  # fmt: skip
    """The row of one window, as the engine and the gateway make it."""
    end = BEGIN + (window + 1) * size
    times = end - size + np.arange(len(samples)) * (size // 1000)
    summary = Summary.of(samples, times)
    body = {
        "ts": to_iso(end),
        "handler": "minute",
        "key": key,
        "samples": len(samples),
        "window_s": size / 1e9,
        "values": {stat: int(summary.stat(stat)) if stat == "n" else summary.stat(stat) for stat in stats},
    }
    policy = StreamPolicy(quota, ("thin", "drop-lowest-priority"))
    packed = pack(size, parts(stats), [summary])
    return NewItem("summary/minute", json.dumps(body).encode(), end, policy=policy, summary=packed)


def merged(one: Item) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(one.payload)
    return {"merged": 1, **body}


async def thin(store: Store, need: int = 1, limit: int = 1 << 20) -> int:
    def work(db: Any, ledger: Any) -> int:
        freed, _ = thinning.thin(db, ledger, ledger.streams["summary/minute"], need, limit)
        return freed

    return await store._database.transact(work)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_two_neighbours_become_one_row_of_twice_the_window(path: Path) -> None:
    async with a_store(path) as store:
        first, second = [1.0, 2.0, 3.0], [10.0, 20.0]
        stored = await store.commit(Commit([a_summary(first, 0), a_summary(second, 1)]))
        before = (await store.stats("cloud")).bytes
        freed = await thin(store)
        [one] = await store.read("cloud", 9)
        assert (one.key, one.ts, one.id) == (stored[1].key, stored[1].ts, stored[1].id)
        body = merged(one)
        assert (body["ts"], body["window_s"], body["merged"], body["samples"]) == (to_iso(one.ts), 120, 2, 5)
        assert (body["handler"], body["key"]) == ("minute", "attic")
        values = body["values"]
        assert list(values) == list(STATS)
        assert (values["n"], values["min"], values["max"], values["sum"]) == (5, 1.0, 20.0, 36.0)
        assert (values["first"], values["last"]) == (1.0, 20.0)
        assert values["mean"] == pytest.approx(7.2, rel=1e-14)
        assert values["std"] == pytest.approx(np.std(first + second), rel=1e-14)
        stats = await store.stats("cloud")
        assert (stats.rows, stats.bytes) == (1, before - freed)
        assert freed > 0
        assert [(drop.reason, drop.n) for drop in await store.drops()] == [("thinned", 1)]


async def test_windows_pair_up_on_a_grid_and_a_missing_one_changes_nothing_for_the_others(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([a_summary([1.0], n) for n in (1, 2, 3, 5, 6)]))
        await thin(store)
        spans = [(merged(one)["merged"], merged(one)["window_s"]) for one in await store.peek(9)]
        assert spans == [(1, 60), (2, 120), (1, 60), (1, 60)]
        await thin(store)
        spans = [(merged(one)["merged"], merged(one)["window_s"]) for one in await store.peek(9)]
        assert spans == [(3, 180), (1, 60), (1, 60)]  # 1, 2 and 3; the next is three minutes on


async def test_keys_are_merged_apart_and_other_streams_left_alone(path: Path) -> None:
    async with a_store(path) as store:
        rows = [a_summary([float(n)], n, key=key) for n in range(4) for key in ("attic", "cellar")]
        other = NewItem("alert/spike", b"{}", BEGIN)
        await store.commit(Commit([*rows[:5], other, *rows[5:]]))
        await thin(store, 1 << 20)
        left = [(one.stream, merged(one).get("key"), merged(one).get("samples")) for one in await store.peek(9)]
        assert left == [("alert/spike", None, None), ("summary/minute", "attic", 4), ("summary/minute", "cellar", 4)]


@pytest.mark.parametrize(
    "differs",
    [
        {"uplinks": frozenset({"lab"})},
        {"own_clock": False},
        {"summary": None},
        {"summary": b"\xc1"},
        {"summary": pack(2 * MINUTE, parts(STATS), [Summary()])},
        {"summary": pack(MINUTE, parts(("mean",)), [Summary.of([1.0], 0)])},
        {"summary": pack(MINUTE, parts(STATS), [Summary(), Summary(), Summary()])},
        {"payload": b'{"key":"attic"}'},
    ],
)
async def test_what_does_not_belong_together_is_not_merged(path: Path, differs: dict[str, Any]) -> None:
    import dataclasses

    async with a_store(path, uplinks=("cloud", "lab")) as store:
        other = dataclasses.replace(a_summary([2.0], 1), **differs)
        stored = await store.commit(Commit([a_summary([1.0], 0), other]))
        assert await thin(store) == 0
        assert await store.peek(9) == stored


async def test_rows_that_the_clock_has_put_over_one_another_are_not_merged(path: Path) -> None:
    async with a_store(path) as store:
        await store.commit(Commit([a_summary([1.0], n) for n in (1, 0, 1)]))
        assert await thin(store) > 0
        assert [merged(one)["merged"] for one in await store.peek(9)] == [1, 2]


async def test_a_row_in_hand_is_not_merged_until_it_comes_back_as_acknowledged_by_that_uplink(path: Path) -> None:
    async with a_store(path) as store:
        stored = await store.commit(Commit([a_summary([1.0], n) for n in range(4)]))
        assert await store.read("cloud", 1) == stored[:1]
        await thin(store)
        assert [merged(one)["samples"] for one in await store.peek(9)] == [1, 1, 2]
        await store.acknowledge("cloud", [stored[0].id])
        await thin(store, 1 << 20)
        assert [merged(one)["samples"] for one in await store.peek(9)] == [3]


async def reopened(path: Path, store: Store, *, clean: bool) -> Store:
    """The next process, after a proper end or after a power cut."""
    files = {file: file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name)}
    await store.close()
    if not clean:
        for file, data in files.items():
            file.write_bytes(data)
    return await a_store(path, uplinks=("cloud",)).__aenter__()


@pytest.mark.parametrize("clean", [True, False])
async def test_after_a_restart_nothing_that_may_be_at_the_far_side_is_merged(path: Path, clean: bool) -> None:
    store = await a_store(path).__aenter__()
    await store.commit(Commit([a_summary([1.0], n) for n in range(4)]))
    handed = await store.read("cloud", 2)
    store = await reopened(path, store, clean=clean)
    await store.commit(Commit([a_summary([1.0], n) for n in range(4, 8)]))
    await thin(store, 1 << 20)
    left = [merged(one)["samples"] for one in await store.peek(9)]
    assert left == ([1, 1, 6] if clean else [1, 1, 1, 1, 4])  # which two it were is known after a proper end only
    assert [one.payload for one in await store.peek(2)] == [one.payload for one in handed]
    await store.close()


async def test_a_process_that_handed_nothing_out_freezes_nothing(path: Path) -> None:
    store = await a_store(path).__aenter__()
    stored = await store.commit(Commit([a_summary([1.0], 0)]))
    await store.read("cloud", 1)
    await store.acknowledge("cloud", [stored[0].id])
    for clean in (False, False, True, False):
        store = await reopened(path, store, clean=clean)
    await store.commit(Commit([a_summary([1.0], n) for n in range(4)]))
    store = await reopened(path, store, clean=False)
    await thin(store, 1 << 20)
    assert [merged(one)["samples"] for one in await store.peek(9)] == [4]
    await store.close()


async def test_rows_long_after_the_last_that_was_handed_out_are_merged_after_a_power_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefn.store.store.AHEAD", 4)
    store = await a_store(path).__aenter__()
    await store.commit(Commit([a_summary([1.0], n) for n in range(2)]))
    await store.read("cloud", 9)
    await store.commit(Commit([a_summary([1.0], n) for n in range(2, 16)]))
    store = await reopened(path, store, clean=False)
    await thin(store, 1 << 20)
    assert [merged(one)["samples"] for one in await store.peek(99)] == [1] * 6 + [10]
    await store.close()


async def test_too_many_rows_in_hand_are_remembered_as_one_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "MAX_IN_HAND", 2)
    async with a_store(path) as store:
        await store.commit(Commit([a_summary([1.0], n) for n in range(6)]))
        await store.read("cloud", 4)
        await thin(store, 1 << 20)
        assert [merged(one)["samples"] for one in await store.peek(9)] == [1, 1, 1, 1, 2]


async def test_the_search_is_bounded_and_goes_on_where_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "CHUNK", 2)
    async with a_store(path) as store:
        await store.commit(Commit([a_summary([1.0], n) for n in range(8)]))
        found = [await thin(store, 1 << 20, limit=2 * thinning.LOADED) > 0 for _ in range(4)]
        assert found == [True] * 4
        assert (await store.stats("cloud")).rows == 4


async def test_a_month_without_network_costs_detail_and_not_extent(path: Path) -> None:
    """Hourly summaries of three rooms for thirty days, in a quota that holds a day and a half of them."""
    rooms, hours, size = ("attic", "cellar", "hall"), 30 * 24, 60 * MINUTE
    samples = np.random.default_rng(4).normal(20, 3, (hours, len(rooms), 4)).round(2)
    stats = ("n", "mean", "min", "max", "std", "p95")
    async with a_store(path) as store:
        for at in range(0, hours, 6):
            rows = [
                a_summary(list(samples[hour, k]), hour, key=room, stats=stats, quota=40_000, size=size)
                for hour in range(at, at + 6)
                for k, room in enumerate(rooms)
            ]
            await store.commit(Commit(rows))
        assert (await store.stats("cloud")).bytes <= 40_000 * 17 // 16
        bodies = [merged(one) for one in await store.peek(10_000)]
        assert {drop.reason for drop in await store.drops()} == {"thinned"}
        for k, room in enumerate(rooms):
            mine = [body for body in bodies if body["key"] == room]
            assert 20 < len(mine) < 72
            assert mine[0]["ts"] <= to_iso(BEGIN + 3 * 24 * size)
            assert mine[-1]["ts"] == to_iso(BEGIN + hours * size)
            assert sum(body["values"]["n"] for body in mine) == hours * 4
            at = 0
            for body in mine:
                part = samples[at : at + body["merged"], k].ravel()
                at += body["merged"]
                assert body["ts"] == to_iso(BEGIN + at * size)
                values = body["values"]
                assert (values["n"], values["min"], values["max"]) == (part.size, part.min(), part.max())
                assert values["mean"] == pytest.approx(part.mean(), rel=1e-12)
                assert values["std"] == pytest.approx(part.std(), rel=1e-9)
                assert values["p95"] == pytest.approx(np.percentile(part, 95), rel=RELATIVE_ERROR)
            assert at == hours


@dataclass
class Consumer:
    """The far side: it takes each number once, and knows what samples there were."""

    samples: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # (key, seq) of a row as it was made
    received: dict[int, Item] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)

    def take(self, items: list[Item]) -> None:
        for one in items:
            if (before := self.received.get(one.seq)) is not None:
                assert before.payload == one.payload, "sent again with other content"
            else:
                assert not self.order or one.seq > self.order[-1]
                self.order.append(one.seq)
                self.received[one.seq] = one

    def check(self, dropped: dict[str, int]) -> None:
        rows: dict[str, list[int]] = defaultdict(list)  # the numbers of each key in their order
        for key, seq in sorted(self.samples, key=lambda what: what[1]):
            rows[key].append(seq)
        assert set(dropped) <= {"thinned"}
        seen: set[int] = set()
        for seq, one in sorted(self.received.items()):
            body = merged(one)
            mine = [other for other in rows[body["key"]] if other <= seq and other not in seen][-body["merged"] :]
            assert len(mine) == body["merged"]
            seen.update(mine)
            values = np.concatenate([self.samples[body["key"], other] for other in mine])
            assert body["samples"] == body["values"]["n"] == values.size
            assert (body["values"]["min"], body["values"]["max"]) == (values.min(), values.max())
            assert (body["values"]["first"], body["values"]["last"]) == (values[0], values[-1])
            largest = np.abs(values).max()
            for stat, plain in (("mean", values.mean()), ("std", values.std()), ("sum", values.sum())):
                assert math.isclose(body["values"][stat], plain, rel_tol=1e-9, abs_tol=1e-6 * (1 + largest)), stat
            p95 = np.percentile(values, 95)
            error = RELATIVE_ERROR * np.abs(np.sort(values)[-2:]).max() + ZERO_ERROR * largest + 1e-12
            if body["merged"] > 1 and values.size > 1:
                assert abs(body["values"]["p95"] - p95) <= max(error, RELATIVE_ERROR * largest)
        assert len(self.received) + dropped.get("thinned", 0) == len(self.samples)
        assert len(seen) == len(self.samples)


_samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4)
_step = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), _samples), max_size=6)),
    st.tuples(st.just("thin"), st.integers(1, 2000)),
    st.tuples(st.just("send"), st.tuples(st.integers(1, 5), st.booleans())),
    st.tuples(st.just("reopen"), st.booleans()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_step, max_size=25))
async def test_whatever_is_merged_sent_again_and_cut_off_every_sample_arrives_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("thin") / "store.db"
    consumer = Consumer()
    window = {"a": 0, "b": 0}
    store = await a_store(path).__aenter__()
    for what, argument in steps:
        if what == "commit":
            new = []
            for key, distance, samples in argument:
                window[key] += distance
                new.append(a_summary(samples, window[key], key=key))
            for one, (key, _, samples) in zip(await store.commit(Commit(new)), argument, strict=True):
                consumer.samples[key, one.seq] = samples
        elif what == "thin" and consumer.samples:
            await thin(store, argument)
        elif what == "send":
            limit, confirmed = argument
            batch = await store.read("cloud", limit)
            consumer.take(batch)
            if confirmed:
                await store.acknowledge("cloud", [one.id for one in batch])
        elif what == "reopen":
            store = await reopened(path, store, clean=argument)
    batch = await store.read("cloud", 10_000)
    consumer.take(batch)
    dropped = {drop.reason: drop.n for drop in await store.drops()}
    await store.close()
    consumer.check(dropped)
