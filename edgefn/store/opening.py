"""From a path to a connection that can be trusted: schema, epoch, what a crash left, and a fresh start after damage."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgefn.errors import StoreError
from edgefn.store import asides, audit, files, schema
from edgefn.store.database import store_error
from edgefn.store.ledger import Ledger
from edgefn.store.records import OpenReport
from edgefn.store.reserve import Reserve
from edgefn.store.salvage import Progress, Salvaged, salvage

log = logging.getLogger(__name__)


def open_database(
    path: Path,
    ledger: Ledger,
    now: int,
    *,
    reserve: Reserve | None = None,
    uplinks: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[sqlite3.Connection, OpenReport]:
    """Opens or begins the store at `path` in the calling thread and loads the ledger.

    `reserve` bounds what it writes. A damaged file is set aside, and what can be read of it is taken over; `progress`
    hears how far that is. `uplinks` get the items of a file that does not say whose they are.

    Raises StoreError for a file that is not ours or too new, OSError and sqlite3.Error for one that cannot be opened.
    """
    asides.complete(path)
    aside: Path | None = None
    try:
        db, report = _open(path, ledger)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not schema.is_damage(error):
            raise
        aside = asides.set_aside(path, now)
        log.error("%s is damaged (%s); it is kept as %s and a fresh store begins", path, error, aside.name)
        asides.suspect(path).unlink(missing_ok=True)
        db, report = _open(path, ledger)
        report = replace(report, set_aside=aside, clean=False)
    try:
        asides.suspect(path).unlink(missing_ok=True)
        if reserve is not None:
            reserve.prepare(db)
        for file in asides.pending(path):
            report = _take_over(db, ledger, file, report, uplinks, progress)
        asides.prune(path, spare=report.set_aside)
    except BaseException:
        db.close()
        raise
    return db, report


def salvage_into(path: Path, file: Path, now: int, progress: Progress | None = None) -> Salvaged:
    """Takes what can be read of `file` into the store at `path`, which no gateway has open. Raises StoreError.

    Saved state is taken only where there was no store.
    """
    with files.Lock(path):
        ledger = Ledger()
        try:
            db, report = open_database(path, ledger, now)
            try:
                names = [uplink.name for uplink in ledger.uplinks if not uplink.retired]
                found = salvage(db, ledger, file, uplinks=names, state=report.fresh, progress=progress)
                mark_clean(db, ledger)
            finally:
                db.close()
        except sqlite3.Error as error:
            raise store_error(path, error) from error
        if found.complete and file.resolve() in [one.resolve() for one in asides.pending(path)]:
            asides.finish(file)
    return found


def mark_clean(db: sqlite3.Connection, ledger: Ledger) -> None:
    """The last thing before an orderly end; with a census that is not through, the next start has to begin it again."""
    if ledger.census is None:
        db.execute("REPLACE INTO meta VALUES ('clean', '1')")


def _look_at_all(db: sqlite3.Connection, path: Path) -> None:
    """Where damage was met the last time: raises sqlite3.DatabaseError if the file itself is damaged.

    A glitch on the way from the card looks the same to SQLite, and the file is all right.
    """
    for (finding,) in db.execute("PRAGMA quick_check(1)"):
        if finding != "ok":
            raise schema.damage(finding)
    log.warning("%s: damage was met while it was open, and none is found now; it is used again", path)


def _take_over(
    db: sqlite3.Connection,
    ledger: Ledger,
    file: Path,
    report: OpenReport,
    uplinks: Sequence[str],
    progress: Progress | None,
) -> OpenReport:
    try:
        found = salvage(db, ledger, file, uplinks=uplinks, progress=progress)
    except StoreError as error:
        log.error("%s", error)
        found = Salvaged()
    except Exception:
        # What damage can look like has no end; a gateway that does not start for it would lose more than what is in there.
        log.exception("%s: taking over what can be read of it has failed; the next start tries again", file)
        found = Salvaged(complete=False)
    else:
        log.warning("%s: %s", file, found)
    kept = asides.finish(file) if found.complete else file
    return replace(
        report,
        set_aside=kept if report.set_aside == file else report.set_aside,
        salvaged=report.salvaged + found.items,
        damaged=report.damaged + found.damaged,
    )


def _open(path: Path, ledger: Ledger) -> tuple[sqlite3.Connection, OpenReport]:
    tail = files.read_wal_tail(path)
    db = schema.connect(path)
    try:
        if asides.suspect(path).exists():
            _look_at_all(db, path)
        torn = tail.torn(db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
        db.execute("BEGIN IMMEDIATE")
        meta = dict(db.execute("SELECT name, value FROM meta"))
        fresh = "epoch" not in meta
        clean = fresh or (meta.get("clean") == "1" and not torn)
        if fresh:
            begin_epoch(db)
        db.execute("REPLACE INTO meta VALUES ('clean', '0')")
        ledger.load(db)
        lost = 0
        if not clean:
            if ledger.stored <= audit.AT_ONCE or not audit.knows_newest(db, ledger):
                found = audit.recount(db, ledger)
                ledger.save(db)
                lost = found.lost
                torn |= not found.trusted
            else:
                ledger.census = audit.Census()
            if torn:
                # Numbers that were given out may be forgotten: only a new epoch makes sure that no key comes twice.
                begin_epoch(db)
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


def begin_epoch(db: sqlite3.Connection) -> None:
    db.execute("REPLACE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(4),))
