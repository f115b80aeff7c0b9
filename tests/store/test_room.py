"""When the store or a stream is full, the stream that adds pays, in the way that its policy says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefn.metrics import Metrics
from edgefn.policies import StreamPolicy
from edgefn.store import Commit, NewItem, Store, room
from tests.store.helpers import TurnedClock, a_store, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def rows(stream: str, n: int, *on_full: str, quota: int | None = None, priority: int = 1) -> Commit:
    policy = StreamPolicy(quota, on_full or ("drop-lowest-priority",))
    return Commit([dataclasses.replace(item(stream, i, priority, 100), policy=policy) for i in range(n)])


async def held(store: Store) -> dict[str, list[int]]:
    left: dict[str, list[int]] = {}
    for one in await store.peek(1000):
        left.setdefault(one.stream, []).append(one.seq)
    return left


async def reasons(store: Store) -> dict[tuple[str, str], int]:
    return {(drop.stream, drop.reason): drop.n for drop in await store.drops()}


async def test_reject_does_not_take_the_newest(path: Path) -> None:
    async with a_store(path, max_bytes=1000) as store:
        await store.commit(rows("other", 6))
        stored = await store.commit(rows("a", 6, "reject"))
        assert [one.seq for one in stored] == [1, 2, 3, 4, 5, 6]
        assert await held(store) == {"other": [1, 2, 3, 4, 5, 6], "a": [1, 2, 3, 4]}
        assert await reasons(store) == {("a", "rejected"): 2}
        await store.commit(rows("a", 1, "reject"))
        assert (await held(store))["a"] == [1, 2, 3, 4]


async def test_drop_oldest_gives_up_its_own(path: Path) -> None:
    async with a_store(path, max_bytes=1000) as store:
        await store.commit(rows("low", 5, priority=0))
        await store.commit(rows("a", 5, "drop-oldest"))
        await store.commit(rows("a", 3, "drop-oldest"))
        assert await held(store) == {"low": [1, 2, 3, 4, 5], "a": [4, 5, 6, 7, 8]}
        assert await reasons(store) == {("a", "quota"): 3}


async def test_drop_lowest_priority_never_takes_a_row_of_a_higher_one(path: Path) -> None:
    async with a_store(path, max_bytes=1000) as store:
        await store.commit(rows("high", 8, priority=2))
        await store.commit(rows("low", 4, priority=0))
        assert await held(store) == {"high": [1, 2, 3, 4, 5, 6, 7, 8], "low": [3, 4]}
        await store.commit(rows("normal", 4))
        assert await held(store) == {"high": [1, 2, 3, 4, 5, 6, 7, 8], "normal": [3, 4]}
        assert await reasons(store) == {("low", "quota"): 4, ("normal", "quota"): 2}


@pytest.mark.parametrize("word", ["drop-oldest", "drop-lowest-priority"])
async def test_over_its_own_quota_a_stream_pays_with_its_own_rows(path: Path, word: str) -> None:
    async with a_store(path) as store:
        await store.commit(rows("low", 5, priority=0))
        for _ in range(3):
            await store.commit(rows("a", 3, word, quota=500))
        assert await held(store) == {"low": [1, 2, 3, 4, 5], "a": [5, 6, 7, 8, 9]}


async def test_an_own_quota_with_reject_keeps_the_oldest(path: Path) -> None:
    async with a_store(path) as store:
        for _ in range(3):
            await store.commit(rows("a", 3, "reject", quota=500))
        assert await held(store) == {"a": [1, 2, 3, 4, 5]}
        await store.acknowledge("cloud", [one.id for one in await store.read("cloud", 2)])
        await store.commit(rows("a", 3, "reject", quota=500))
        assert await held(store) == {"a": [3, 4, 5, 10, 11]}


async def test_each_stream_of_a_commit_pays_for_what_it_adds_the_lowest_priority_first(path: Path) -> None:
    async with a_store(path, max_bytes=1000) as store:
        await store.commit(rows("old", 10, priority=2))
        both = [*rows("high", 3, "drop-lowest-priority", priority=2).items, *rows("low", 2, "reject", priority=0).items]
        await store.commit(Commit(both))
        assert await held(store) == {"old": [4, 5, 6, 7, 8, 9, 10], "high": [1, 2, 3]}


async def test_what_has_expired_is_counted_as_expired(path: Path) -> None:
    clock = TurnedClock()
    async with a_store(path, clock=clock) as store:
        for ttl in (1, 10**12):
            new = [dataclasses.replace(one, ttl=ttl) for one in rows("a", 2, "drop-oldest", quota=400).items]
            await store.commit(Commit(new))
        clock.turn(1)
        await store.commit(rows("a", 3, "drop-oldest", quota=400))
        assert await reasons(store) == {("a", "expired"): 2, ("a", "quota"): 1}


async def test_an_item_that_could_never_fit_takes_no_place_from_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    async with a_store(path, max_bytes=1000, metrics=metrics) as store:
        await store.commit(rows("other", 9))
        for _ in range(2):
            await store.commit(Commit([item("a", size=1001), *rows("b", 1, quota=99).items]))
        assert await held(store) == {"other": [1, 2, 3, 4, 5, 6, 7, 8, 9]}
        assert await reasons(store) == {("a", "too_large"): 2, ("b", "too_large"): 2}
        assert metrics.counters["outbox.dropped.too_large"] == 4
        assert len([one for one in caplog.messages if "does not fit into its quota of 99 bytes" in one]) == 1


async def test_the_oldest_rows_are_looked_for_in_bounded_steps_and_nothing_is_lost_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SEARCH_ROWS", 4)
    monkeypatch.setattr(room, "CHUNK", 2)
    async with a_store(path) as store:
        await store.commit(rows("other", 12))
        await store.commit(rows("a", 32, "drop-oldest", quota=3200))
        for _ in range(3):  # a sixteenth more is 34: the third goes itself, instead of the oldest
            await store.commit(rows("a", 1, "drop-oldest", quota=3200))
            assert (await held(store))["a"][0] == 1
        assert (await reasons(store)) == {("a", "rejected"): 1}
        await store.commit(rows("a", 1, "drop-oldest", quota=3200))
        assert len((await held(store))["a"]) == 32
        assert len((await held(store))["other"]) == 12


async def test_a_bound_that_was_lowered_is_reached_at_the_next_commit(path: Path) -> None:
    async with a_store(path, max_bytes=10_000) as store:
        await store.commit(rows("a", 60))
        await store.commit(rows("high", 20, priority=2))
    async with a_store(path, max_bytes=3200) as store:
        await store.commit(rows("b", 1))
        left = await held(store)
        assert len(left["a"]) + len(left["high"]) + len(left["b"]) <= 34
        assert len(left["high"]) == 20


_policy = st.tuples(
    st.sampled_from([None, 500, 900]),
    st.lists(st.sampled_from(["reject", "drop-oldest", "drop-lowest-priority", "thin"]), min_size=1, max_size=3),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policies=st.tuples(_policy, _policy, _policy),
    commits=st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(10, 400), st.integers(0, 2)), max_size=8), max_size=12
    ),
)
async def test_whatever_the_policies_are_the_bounds_hold_and_every_item_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    policies: tuple[tuple[int | None, list[str]], ...],
    commits: list[list[tuple[int, int, int]]],
) -> None:
    path = tmp_path_factory.mktemp("room") / "store.db"
    made = [0, 0, 0]
    async with a_store(path, max_bytes=2000) as store:
        for commit in commits:
            new: list[NewItem] = []
            for stream, size, priority in commit:
                policy = StreamPolicy(policies[stream][0], tuple(policies[stream][1]))
                new.append(dataclasses.replace(item("abc"[stream], 0, priority, size), policy=policy))
                made[stream] += 1
            await store.commit(Commit(new))
            streams = {one.name: one for one in await store.streams()}
            assert sum(one.bytes for one in streams.values()) <= 2000
            for (quota, _), name in zip(policies, "abc", strict=True):
                if quota is not None and name in streams:
                    assert streams[name].bytes <= quota
        waiting = await store.peek(1000)
        streams = {one.name: one for one in await store.streams()}
        for n, name in zip(made, "abc", strict=True):
            if n:
                mine = [one for one in waiting if one.stream == name]
                assert [one.seq for one in mine] == sorted({one.seq for one in mine})
                assert n == len(mine) + sum(streams[name].dropped.values())
                assert streams[name].rows == len(mine)
                assert streams[name].bytes == sum(len(one.payload) for one in mine)
