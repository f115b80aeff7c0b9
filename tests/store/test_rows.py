"""The checksum of a row, its item, and its time where the clock that stamped it was put right."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefn.clock import NS
from edgefn.store import Commit
from edgefn.store.ledger import Era, Ledger
from edgefn.store.rows import checksum, stamped
from edgefn.timestamps import to_iso
from tests.store.helpers import START, TurnedClock, a_store, item

HOUR = 3600 * NS
_int64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.tuples(_int64, _int64, _int64, _int64, st.binary(max_size=20)))
def test_a_row_as_version_1_had_it_keeps_its_checksum(row: tuple[int, int, int, int, bytes]) -> None:
    *place, payload = row
    assert checksum(*row) == zlib.crc32(payload, zlib.crc32(struct.pack("<qqqq", *place)))
    assert len({checksum(*row, era=1), checksum(*row, own=1), checksum(*row, made=1), checksum(*row, summary=b"")}) == 4


def test_only_the_text_under_ts_changes() -> None:
    payload = (
        b'{"ts":"1970-01-01T00:00:01.000Z","values":{"mean":1.0,"ts":"x"},"big":12345678901234567890123,"n":1e400}'
    )
    moved = stamped(payload, START)
    assert moved == payload.replace(b"1970-01-01T00:00:01.000Z", to_iso(START).encode())


@pytest.mark.parametrize("payload", [b"", b"12", b"[1]", b'{"t', b"\xff", b'{"ts":5}', b'{"ts":null}', b'{"n":1}'])
def test_what_has_no_time_as_text_stays_as_it_is(payload: bytes) -> None:
    assert stamped(payload, START) == payload


async def in_eras(path: Path, *eras: Era) -> None:
    """Begins the eras one after the other, each with a row that goes by the gateway's clock and one of a device's."""
    for era in eras:
        async with a_store(path) as store:

            def begin(db: sqlite3.Connection, ledger: Ledger, era: Era = era) -> None:
                row = (era.id, era.boot, era.offset, era.synced, era.shift)
                db.execute("INSERT INTO era VALUES (?, ?, ?, ?, ?)", row)
                ledger.eras[era.id], ledger.era = era, era.id

            await store._database.transact(begin)
            own = dataclasses.replace(item("own"), payload=b'{"ts":"%s"}' % to_iso(START).encode(), ttl=HOUR)
            device = dataclasses.replace(own, stream="device", own_clock=False)
            await store.commit(Commit([own, device]))


async def test_rows_of_the_gateways_clock_move_with_their_era_and_others_do_not(path: Path) -> None:
    await in_eras(path, Era(1, "a", 0, False), Era(2, "b", 0, True, 2 * HOUR))
    clock = TurnedClock()
    async with a_store(path, clock=clock) as store:
        rows = {(one.stream, one.seq): one for one in await store.read("cloud", 9)}
        assert [rows["own", n].ts - START for n in (1, 2)] == [0, 2 * HOUR]
        assert [rows["device", n].ts - START for n in (1, 2)] == [0, 0]
        assert [rows["own", n].unsynced for n in (1, 2)] == [True, False]
        for one in rows.values():
            assert json.loads(one.payload)["ts"] == to_iso(one.ts)
        assert await store.peek(9) == [rows["own", 1], rows["device", 1], rows["own", 2], rows["device", 2]]
        clock.turn(2 * 3600)
        assert (await store.stats("cloud")).oldest_s == 2 * 3600
        assert {one.seq for one in await store.read("cloud", 9)} == {2}  # a time to live is of the clock, too
        clock.turn(3600)
        assert await store.read("cloud", 9) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"
