"""Fixtures that more than one part's tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgefn import aot
from edgefn.broker import PrivateBroker
from tests.broker import make_broker


@pytest.fixture(scope="session", autouse=True)
def just_in_time() -> Iterator[None]:
    """What tests compile in their own process, numba compiles: it checks the types of each call, and no C compiler is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aot, "unavailable", lambda: "in a test")
        yield


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[PrivateBroker]:
    """One broker for all tests that leave it as it was. Use topics of your own: retained messages stay."""
    with make_broker() as broker:
        yield broker


@pytest.fixture
def mortal_mosquitto() -> Iterator[PrivateBroker]:
    """A broker of the test's own, to stop, kill and restart."""
    with make_broker() as broker:
        yield broker
