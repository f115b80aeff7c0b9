"""The tables of the store, the settings of its connection, and the steps from older versions."""

from __future__ import annotations

import sqlite3
from functools import cache
from pathlib import Path

from edgefn.errors import StoreError
from edgefn.store.files import hand_over

# Of stores that begin now, and of those that began with 4 kB: they keep it. A commit changes a few rows on each of some
# pages and writes whole pages: see decision 17.
PAGE_SIZES = (1024, 4096)
# Of the write-ahead log, before what it holds is copied into the file: a page that changes often is copied once.
LOG_SIZE = 4 << 20
APPLICATION_ID = 0x6564_6765  # "edge"

# One table per priority, not an index on it: an index on (priority, id) costs 28 % more bytes written, and three tables
# are each only appended to. `id` is `counter << 2 | priority`, so ids order all items by age.
_ITEM = """
CREATE TABLE item_{priority} (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    expires INTEGER,
    pending INTEGER NOT NULL,       -- one bit per uplink that must still have it
    crc INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
"""

_V1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE stream (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, name TEXT NOT NULL) STRICT;

CREATE TABLE uplink (id INTEGER PRIMARY KEY, name TEXT NOT NULL, retired INTEGER NOT NULL) STRICT;

-- Everything that each commit changes stands together, since what a commit costs the card is its pages.
CREATE TABLE account (
    id INTEGER PRIMARY KEY,         -- a stream's id, or minus the id of an uplink
    next_seq INTEGER,               -- streams: the next to give out, how many have left, and the priority
    gone INTEGER,
    priority INTEGER,
    rows INTEGER,                   -- uplinks: what waits
    bytes INTEGER                   -- of both, and under 0 of all
) STRICT;

CREATE TABLE dropped (
    stream INTEGER NOT NULL,        -- 0: not known any more
    uplink TEXT NOT NULL,
    reason TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (stream, uplink, reason)
) STRICT, WITHOUT ROWID;

-- No index on the owner: the parts of one commit lie side by side, and the store knows which parts an owner has.
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    n INTEGER NOT NULL,             -- 0 for the snapshot, then 1, 2, 3 …
    crc INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
""" + "".join(_ITEM.format(priority=priority) for priority in range(3))

_ITEM_V2 = """
ALTER TABLE item_{priority} ADD COLUMN era INTEGER NOT NULL DEFAULT 0;
ALTER TABLE item_{priority} ADD COLUMN own INTEGER NOT NULL DEFAULT 0;  -- 1: ts moves with its era
ALTER TABLE item_{priority} ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
ALTER TABLE item_{priority} ADD COLUMN summary BLOB;
"""

# Adding a column touches no row. The bytes of streams are counted once: it reads the tables from end to end.
_V2 = (
    "".join(_ITEM_V2.format(priority=priority) for priority in range(3))
    + """
CREATE TABLE era (
    id INTEGER PRIMARY KEY,         -- 0 is none: rows whose times need no correction
    boot TEXT NOT NULL,
    offset INTEGER NOT NULL,        -- of the gateway's time over the monotonic clock, ns
    synced INTEGER NOT NULL,        -- 0: the clock was not known to be right, and has not been put right since
    shift INTEGER NOT NULL DEFAULT 0
) STRICT;

ALTER TABLE account ADD COLUMN day INTEGER;     -- uplinks: what they sent on a day
ALTER TABLE account ADD COLUMN spent INTEGER;
ALTER TABLE account ADD COLUMN crc INTEGER;     -- of all the others; NULL: written by version 1
ALTER TABLE stream ADD COLUMN crc INTEGER;
UPDATE account SET bytes = held.bytes FROM (
    SELECT stream, sum(size) AS bytes FROM (
        SELECT stream, length(payload) AS size FROM item_0
        UNION ALL SELECT stream, length(payload) FROM item_1
        UNION ALL SELECT stream, length(payload) FROM item_2
    ) GROUP BY stream
) AS held WHERE account.id = held.stream;

CREATE TABLE dead (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    uplink TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    crc INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
"""
)

MIGRATIONS = (_V1, _V2)
VERSION = len(MIGRATIONS)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is broken.

    One flipped bit in the text of the schema is enough for a column that our statements do not find, or for a message of
    SQLite that is no text.
    """
    name = getattr(error, "sqlite_errorname", "") or ""
    missing = name == "SQLITE_ERROR" and (str(error).startswith("no such ") or "has no column" in str(error))
    return (
        name.startswith("SQLITE_CORRUPT") or name == "SQLITE_NOTADB" or missing or isinstance(error, UnicodeDecodeError)
    )


def damage(finding: str) -> sqlite3.DatabaseError:
    """What SQLite's own check has found, as SQLite raises it when it stumbles over it."""
    error = sqlite3.DatabaseError(finding)
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def unreadable() -> sqlite3.DatabaseError:
    """For the UnicodeDecodeError that Python raises where SQLite's message quotes what it could not parse."""
    return damage("the list of its tables cannot be read")


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file and makes it ready; the calling thread is the only one that may use the connection.

    Raises StoreError for a file that is not ours or too new, sqlite3.DatabaseError for a damaged one.
    """
    path.touch(mode=0o600)  # what sensors say about a home is nobody else's business
    hand_over(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        # A text that a flipped bit made invalid must reach the checksum, not end the read.
        db.text_factory = lambda data: data.decode(errors="replace")
        # Set before the first access: no shared-memory file, and no second connection. SQLite before 3.51.3 can damage
        # a WAL that two connections reset.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        check_ours(db, path)
        db.execute(f"PRAGMA page_size = {PAGE_SIZES[0]}")
        db.execute("PRAGMA secure_delete = OFF")  # on in Debian's SQLite, where it writes each page that becomes free
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # NORMAL lost confirmed rows in 512 of 600 simulated power cuts
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_SIZE // page_size(db)}")
        db.execute("PRAGMA journal_size_limit = 8388608")
        db.execute("PRAGMA cache_size = -2000")
        db.execute("PRAGMA temp_store = MEMORY")
        _migrate(db)
        if columns(db) != _fresh(PAGE_SIZES[0])[1]:
            raise damage("the list of its tables is not that of a store")
    except UnicodeDecodeError as error:
        db.close()
        raise unreadable() from error
    except BaseException:
        db.close()
        raise
    return db


def page_size(db: sqlite3.Connection) -> int:
    size: int = db.execute("PRAGMA page_size").fetchone()[0]
    return size


def check_ours(db: sqlite3.Connection, path: Path) -> None:
    """Raises StoreError for the database of another program or of a newer edgefn."""
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{path}: this is the database of another program; give the store a path of its own")
    if version > VERSION:
        raise StoreError(too_new(path, version))


def too_new(path: Path, version: int) -> str:
    return (
        f"{path}: its schema has version {version} and this edgefn knows up to {VERSION}; "
        "install the newer edgefn again, or move the file away to start a fresh store"
    )


def beginning(size: int) -> tuple[dict[int, bytes], list[int]]:
    """The pages of a fresh store that say where its tables begin, by number, and the pages on which they begin."""
    data, _, roots = _fresh(size)
    return {number: data[(number - 1) * size : number * size] for number in (1, *_children(data[:size]))}, roots


def columns(db: sqlite3.Connection) -> dict[str, list[str]]:
    """The names of the columns of each table: a flipped bit in one is seen by no check of SQLite's."""
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {table: [row[1] for row in db.execute("SELECT * FROM pragma_table_info(?)", (table,))] for table in tables}


def is_foreign(found: dict[str, list[str]]) -> bool:
    """Whether there is a table or a column that no version has."""
    known = _fresh(PAGE_SIZES[0])[1]
    return any(not set(names) <= set(known.get(table, ())) for table, names in found.items())


@cache
def _fresh(size: int) -> tuple[bytes, dict[str, list[str]], list[int]]:
    """A fresh store with pages of that size: its content, its columns, and the pages on which its tables begin."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size = {size}")
        _migrate(db)
        roots = [row[0] for row in db.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0")]
        return db.serialize(), columns(db), roots
    finally:
        db.close()


def _children(page: bytes) -> list[int]:
    """The pages below the first one, where the list of tables is longer. Format: sqlite.org/fileformat2.html, 1.6."""
    if page[100] != 0x05:
        return []
    pointers = range(112, 112 + 2 * int.from_bytes(page[103:105], "big"), 2)
    cells = [int.from_bytes(page[at : at + 2], "big") for at in pointers]
    return [int.from_bytes(page[at : at + 4], "big") for at in (*cells, 108)]


def _migrate(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION:
        return
    script = "".join(MIGRATIONS[version:])
    db.executescript(
        f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    )
