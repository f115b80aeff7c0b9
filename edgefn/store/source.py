"""A damaged store, read row by row: what SQLite refuses is stepped over, and nothing in the file is trusted unseen."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from edgefn.errors import StoreError
from edgefn.store import schema
from edgefn.store.files import sync_folder, wal_path
from edgefn.store.seal import is_intact

log = logging.getLogger(__name__)

_BEGINNING = 16 << 10  # what may be replaced, of either page size
_TREE = (0x02, 0x05, 0x0A, 0x0D)  # the first byte of a page of a table or an index
_GALLOP = 1.25  # steps over a damaged part grow by a quarter, so no more good rows than that share of it are missed


class Source:
    """`with Source(path) as source`. Raises StoreError where the file is not a store of ours at all, or too new.

    A first page that cannot be read is replaced in the file, unless `mend` is False.
    """

    def __init__(self, path: Path, *, mend: bool = True) -> None:
        self.path = path
        self._mend = mend

    def __enter__(self) -> Source:
        try:
            self._db = self._connect()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not (self._mend and schema.is_damage(error) and self._rebuild_beginning()):
                raise StoreError(f"{self.path}: nothing of it can be read as a store: {error}") from error
            try:
                self._db = self._connect()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as again:
                raise StoreError(f"{self.path}: nothing of it can be read as a store: {again}") from again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)
        log_file = wal_path(self.path)
        if log_file.exists() and not log_file.stat().st_size:  # SQLite makes one where there was none
            log_file.unlink()

    def _connect(self) -> sqlite3.Connection:
        # Read-only, so that the log stays as it is: SQLite would write it into the damaged file. That takes a file of
        # shared memory beside it; where none can be made, the log cannot be read.
        mode = "mode=ro" if os.access(self.path.parent, os.W_OK) else "immutable=1"
        db = sqlite3.connect(f"file:{quote(str(self.path))}?{mode}", uri=True, isolation_level=None)
        try:
            db.text_factory = lambda data: data.decode(errors="replace")
            db.execute("PRAGMA cache_size = -2000")
            db.execute("PRAGMA writable_schema = ON")  # or SQLite refuses all of a file that ends too early
            schema.check_ours(db, self.path)
            self._columns = schema.columns(db)
            if schema.is_foreign(self._columns):
                raise schema.damage("the list of its tables is damaged")
        except UnicodeDecodeError as error:
            db.close()
            raise schema.unreadable() from error
        except BaseException:
            db.close()
            raise
        return db

    @property
    def identity(self) -> str:
        """The same for each copy of the file: its epoch, or a checksum where that cannot be read."""
        if epoch := dict(self.small("meta", {"name": str, "value": str})).get("epoch"):
            return str(epoch)
        crc = 0
        with self.path.open("rb") as file:
            file.seek(_BEGINNING)
            while chunk := file.read(1 << 20):
                crc = zlib.crc32(chunk, crc)
        return f"crc-{crc:08x}"

    def small(self, table: str, columns: Mapping[str, type]) -> list[tuple[Any, ...]]:
        """A table of few rows, as far as it can be read and its values are of these types, and counts no nonsense."""
        return [row for row in self._small(table, list(columns)) if all(map(_plausible, row, columns.values()))]

    def sealed(self, table: str, columns: Mapping[str, type]) -> list[tuple[Any, ...]]:
        """The rows of such a table that are what was written."""
        known = self._columns.get(table, [])
        there = [column for column in known if column != "crc"]
        found = []
        for *values, crc in self._small(table, [*there, "crc" if "crc" in known else "NULL"]):
            row = dict(zip(there, values, strict=True))
            wanted = tuple(row.get(column) for column in columns)
            if is_intact(crc, values) and all(map(_plausible, wanted, columns.values())):
                found.append(wanted)
        return found

    def _small(self, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        if table in self._columns:
            with contextlib.suppress(sqlite3.DatabaseError):
                found.extend(self._db.execute(f"SELECT {', '.join(columns)} FROM {table}"))
        return found

    def pragma(self, name: str) -> list[Any]:
        """The first column of what a PRAGMA says; empty where the damage keeps it from saying anything."""
        with contextlib.suppress(sqlite3.DatabaseError):
            return [row[0] for row in self._db.execute(f"PRAGMA {name}")]
        return []

    def span(self, tables: Sequence[str]) -> int:
        """How many rows tables that number their rows together have at the most: by their ids, without reading them."""
        ids: list[int] = []
        for table in tables:
            with contextlib.suppress(sqlite3.DatabaseError):
                ids += (
                    self._db.execute(f"SELECT min(id), max(id) FROM {table} HAVING min(id) IS NOT NULL").fetchone()
                    or ()
                )
        return ((max(ids) - min(ids)) >> 2) + 1 if ids else 0

    def rows(self, table: str, columns: Sequence[str], after: int = 0) -> Iterator[tuple[Any, ...]]:
        """The readable rows with an id above `after`, the id first, in the order of the table."""
        if table not in self._columns:
            return
        select = f"SELECT id, {', '.join(self._expressions(table, columns))} FROM {table} WHERE id >= ? ORDER BY id"
        start = after + 1
        while True:
            try:
                for row in self._db.execute(select, (start,)):
                    yield row
                    start = max(start, row[0] + 1)  # in a damaged tree ids can go back, and what reads it must not
                return
            except sqlite3.DatabaseError as error:
                # Python's cursor reads one row ahead: the last before the damage is lost with the first behind it.
                while one := self._first(select, start):
                    yield one
                    start = one[0] + 1
                log.info("%s: rows of %s from %d on cannot be read (%s)", self.path, table, start, error)
                if (beyond := self._beyond(select, start)) is None:
                    return
                start = beyond

    def _first(self, select: str, start: int) -> tuple[Any, ...] | None:
        """The first row from that id on; None where it cannot be read, or there is none."""
        try:
            row: tuple[Any, ...] | None = self._db.execute(select + " LIMIT 1", (start,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        return row if row is not None and row[0] >= start else None

    def _expressions(self, table: str, columns: Sequence[str]) -> list[str]:
        """Columns that came with a later version have their defaults in a file of an earlier one."""
        known = self._columns[table]
        return [name if name in known else "NULL" if name == "summary" else "0" for name in columns]

    def _beyond(self, select: str, bad: int) -> int | None:
        """The id where reading can go on when it cannot at `bad`, by bisection: behind the damaged pages."""

        def readable(id_: int) -> bool:
            return self._first(select, id_) is not None

        step = 1
        while not readable(good := bad + step):
            bad, step = good, int(step * _GALLOP) + 1
            if bad + step >= 1 << 62:
                return None
        while good - bad > 1:
            middle = (bad + good) // 2
            bad, good = (bad, middle) if readable(middle) else (middle, good)
        return good

    def _rebuild_beginning(self) -> bool:
        """Puts the first page of a fresh store in the place of one that cannot be read; False where that is no use.

        It and those below it say where the tables begin, and stores of one version begin alike. The file's first pages as
        they were are kept beside it.
        """
        kept = self.path.with_name(self.path.name + ".page1")
        page_size = self._page_size()
        pages, roots = schema.beginning(page_size)
        if not self._begins_like(roots, page_size):
            return False
        page = bytearray(pages[1])
        page[18:20] = b"\2\2" if wal_path(self.path).exists() else b"\1\1"
        page[28:32] = (self.path.stat().st_size // page_size).to_bytes(4, "big")
        page[32:40] = bytes(8)  # no list of free pages: what it said is lost
        page[92:96] = page[24:28]
        with self.path.open("r+b") as file:
            if not kept.exists():
                kept.write_bytes(file.read(max(pages) * page_size))
                sync_folder(self.path.parent)
            for number, data in {**pages, 1: bytes(page)}.items():
                os.pwrite(file.fileno(), data, (number - 1) * page_size)
            os.fsync(file.fileno())
        log.warning("%s: its first page cannot be read and is replaced; it is kept as %s", self.path, kept.name)
        return True

    def _page_size(self) -> int:
        """As the header says, or where that is unreadable, as the pages do: small ones begin where large ones do not."""
        small, large = schema.PAGE_SIZES
        with self.path.open("rb") as file:
            header = file.read(18)
            stated = int.from_bytes(header[16:], "big")
            if header.startswith(b"SQLite format 3\0") and stated in schema.PAGE_SIZES:
                return stated
            between = [at for at in range(small, min(self.path.stat().st_size, 1 << 20), small) if at % large]
            begins = [os.pread(file.fileno(), 1, at)[0] in _TREE for at in between]
        return small if 8 * sum(begins) > len(begins) else large  # of random bytes 1 in 64 looks like a page

    def _begins_like(self, roots: Sequence[int], page_size: int) -> bool:
        """Whether most tables begin where they do in a fresh store with pages of this size."""
        with self.path.open("rb") as file:
            begins = [os.pread(file.fileno(), 1, (root - 1) * page_size) for root in roots]
        found = sum(begin != b"" and begin[0] in _TREE for begin in begins)
        return self.path.stat().st_size >= 2 * page_size and found > len(roots) // 2


def _plausible(value: Any, kind: type) -> bool:
    """Times are the largest numbers that a store holds; sums of a few larger ones would leave SQLite's 64 bits."""
    return isinstance(value, kind) and (not isinstance(value, int) or abs(value) < 1 << 62)
