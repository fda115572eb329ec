"""Texts by key on disk, for joins of millions of rows in the memory of a page cache.

One SQLite file: rows are appended as they come, and the index over the keys is built once at the end by SQLite's own
external sort. Readers are many processes that never write.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Final, Self, TypeVar

from curation.shards.target import Target, discard
from schemas.errors import StorageError, UserError

T = TypeVar("T")

_VERSION: Final = 1
_BATCH: Final = 10_000
_CACHE_KIB: Final = 65_536


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What an index was made of. `digest` is that of its sources."""

    digest: str
    rows: int
    keys: int
    empty: int  # rows whose text was null or blank; they are not in the index


def build_index(target: Target, path: str, rows: Iterable[tuple[str, str | None]], digest: str) -> IndexFacts:
    """Write the index of `rows` (key, text) to the file `path` of the local directory `target`, whole or not at all."""
    temporary = target.temporary(path)
    try:
        with closing(sqlite3.connect(temporary)) as database:
            facts = _fill(database, rows, digest)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        target.publish(temporary, path)
    except sqlite3.Error as error:
        raise StorageError(f"{target.path(path)}: cannot be written ({error}). Make room, then run again.") from None
    finally:
        discard(temporary)
    return facts


def stored_facts(path: str, digest: str) -> IndexFacts | None:
    """The facts of the index at `path`, if there is one that was made of the sources with `digest`."""
    if not os.path.isfile(path):
        return None
    with KeyedIndex(path) as index:
        return index.facts if index.facts.digest == digest else None


class KeyedIndex:
    """An index open for reading; not to be shared by threads."""

    def __init__(self, path: str) -> None:
        try:
            self._database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
            (row,) = self._database.execute("SELECT version, digest, n_rows, n_keys, n_empty FROM facts").fetchall()
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"{path}: not an index of captions ({error}). Delete it and run again.") from None
        if row[0] != _VERSION:
            raise UserError(f"{path}: an index of version {row[0]}, not {_VERSION}. Delete it and run again.")
        self.facts = IndexFacts(*row[1:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def texts(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The distinct texts of each of `keys` that has any, in the order in which they came."""
        found: dict[str, list[str]] = {}
        for key in keys:
            rows = self._database.execute("SELECT text FROM texts WHERE key = ? ORDER BY rowid", (key,)).fetchall()
            if rows:
                found[key] = list(dict.fromkeys(text for (text,) in rows))
        return found

    def keys_without(self, others: Iterable[str]) -> Iterator[str]:
        """The keys, in order, that are not among `others`, which may be as many and in any order."""
        # The empty name is SQLite's own temporary file: in memory while it is small, on disk when it is not.
        self._database.execute("ATTACH DATABASE '' AS scratch")
        self._database.execute("CREATE TABLE scratch.others (key TEXT NOT NULL)")
        for batch in _batches(others):
            self._database.executemany("INSERT INTO scratch.others VALUES (?)", ((key,) for key in batch))
        self._database.execute("CREATE INDEX scratch.by_other ON others (key)")
        query = "SELECT DISTINCT key FROM texts WHERE key NOT IN (SELECT key FROM scratch.others) ORDER BY key"
        for (key,) in self._database.execute(query):
            yield key

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _fill(database: sqlite3.Connection, rows: Iterable[tuple[str, str | None]], digest: str) -> IndexFacts:
    """Write all of an index."""
    database.execute("PRAGMA journal_mode = OFF")  # the file is thrown away unless it is finished
    database.execute("PRAGMA synchronous = OFF")
    database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    database.execute("CREATE TABLE texts (key TEXT NOT NULL, text TEXT NOT NULL)")
    total = empty = 0
    for batch in _batches(rows):
        kept = [(key, text) for key, text in batch if text is not None and text.strip()]
        total, empty = total + len(batch), empty + len(batch) - len(kept)
        database.executemany("INSERT INTO texts VALUES (?, ?)", kept)
    database.execute("CREATE INDEX by_key ON texts (key)")
    ((keys,),) = database.execute("SELECT count(DISTINCT key) FROM texts").fetchall()
    facts = IndexFacts(digest, total, keys, empty)
    database.execute("CREATE TABLE facts (version INT, digest TEXT, n_rows INT, n_keys INT, n_empty INT)")
    database.execute("INSERT INTO facts VALUES (?, ?, ?, ?, ?)", (_VERSION, digest, total, keys, empty))
    database.commit()
    return facts


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, _BATCH)):
        yield batch
