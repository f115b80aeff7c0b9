"""From a path to a connection that can be trusted: schema, epoch, what a crash left, and a fresh start after damage."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from dataclasses import replace
from pathlib import Path

from edgefn.store import files, reading, schema
from edgefn.store.ledger import Ledger
from edgefn.store.records import OpenReport

log = logging.getLogger(__name__)


def open_database(path: Path, ledger: Ledger, now: int) -> tuple[sqlite3.Connection, OpenReport]:
    """Opens or begins the store at `path` in the calling thread and loads the ledger.

    Raises StoreError for a file that is not ours or too new, OSError and sqlite3.Error for one that cannot be opened.
    """
    try:
        return _open(path, ledger)
    except sqlite3.DatabaseError as error:
        if not schema.is_damage(error):
            raise
        aside = files.set_aside(path, now)
        log.error("%s is damaged (%s); it is kept as %s and a fresh store begins", path, error, aside.name)
    db, report = _open(path, ledger)
    return db, replace(report, set_aside=aside, clean=False)


def _open(path: Path, ledger: Ledger) -> tuple[sqlite3.Connection, OpenReport]:
    tail = files.read_wal_tail(path)
    db = schema.connect(path)
    try:
        torn = tail.torn(db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
        db.execute("BEGIN IMMEDIATE")
        meta = dict(db.execute("SELECT name, value FROM meta"))
        fresh = "epoch" not in meta
        clean = fresh or (meta.get("clean") == "1" and not torn)
        if fresh:
            _begin_epoch(db)
        db.execute("REPLACE INTO meta VALUES ('clean', '0')")
        ledger.load(db)
        lost = 0
        if not clean:
            audit = reading.audit(db, ledger)
            ledger.save(db)
            lost = audit.lost
            if torn or not audit.trusted:
                # Numbers that were given out may be forgotten: only a new epoch makes sure that no key comes twice.
                torn = True
                _begin_epoch(db)
            ledger.load(db)
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    if lost:
        log.error("%s: %d items that were stored are missing; they are counted as dropped (lost)", path, lost)
    if torn:
        log.error("%s: its newest commits cannot be read; epoch %s begins", path, ledger.epoch)
    return db, OpenReport(fresh=fresh, clean=clean, lost=lost, torn=torn)


def _begin_epoch(db: sqlite3.Connection) -> None:
    db.execute("REPLACE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(4),))
