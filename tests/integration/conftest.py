"""Brokers of a test's own: what a gateway retains and which sessions it keeps must not reach the next test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgefn.broker import PrivateBroker
from tests.broker import make_broker


@pytest.fixture
def local() -> Iterator[PrivateBroker]:
    with make_broker() as broker:
        yield broker


@pytest.fixture
def cloud() -> Iterator[PrivateBroker]:
    with make_broker() as broker:
        yield broker
