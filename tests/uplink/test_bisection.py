"""Whatever batch the culprits are in, they are found, and nobody else is given up for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgefn.uplink.bisection import Bisection


def send(queue: list[int], culprits: set[int], size: int, attempts: int) -> tuple[list[int], list[int]]:
    """Sends a queue in batches through a sink that fails on culprits; what arrived, and what was given up."""
    bisection, arrived, given_up = Bisection(), [], []
    for _ in range(attempts):
        batch = queue[: bisection.size(size)]
        if not batch:
            break
        if not culprits & set(batch):
            arrived += batch
            bisection.passed(len(batch))
        elif bisection.failed(len(batch)):
            given_up += batch
        else:
            continue
        del queue[: len(batch)]
    return arrived, given_up


@given(st.integers(1, 60), st.integers(1, 20), st.sets(st.integers(0, 59), max_size=4))
def test_every_culprit_is_given_up_and_nothing_else(n: int, size: int, culprits: set[int]) -> None:
    queue = list(range(n))
    arrived, given_up = send(queue, culprits, size, 2000)
    assert not queue
    assert given_up == sorted(culprits & set(range(n)))
    assert arrived == [item for item in range(n) if item not in culprits]


def test_one_in_256_is_found_within_twenty_failures() -> None:
    queue = list(range(256))
    _, given_up = send(queue, {200}, 256, 20)
    assert given_up == [200]


def test_two_failures_that_pass_divide_nothing() -> None:
    bisection = Bisection()
    bisection.failed(100)
    bisection.failed(100)
    assert bisection.size(100) == 100


def test_a_sink_that_fails_on_everything_empties_the_outbox_slower_and_slower() -> None:
    queue = list(range(1000))
    _, given_up = send(queue, set(queue), 1, 3 + 6 + 12 + 24 + 48 + 64 + 64)
    assert len(given_up) == 7
