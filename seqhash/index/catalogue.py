"""The durable index: recordings and their words in one SQLite file.

- ``hasher``, one row: whose codes these are; name, digest, code rate, words a code, sample rate.
- ``recordings``, the catalogue: id, path, content digest, title, artist, work, duration, codes,
  metadata (JSON).
- ``codes``: the words of a recording, little-endian uint32 (codes, words).
- ``files``: what was last seen at each path: content digest, stamp, and why it could not be used.
  Copies of one file are one recording with several files.
- ``channel``: which one of each file was taken; where nothing is said, the first.

Older indexes get the last two tables when they are next written to.

Each row has a CRC-32 of its content. Words have a table of their own, so that the catalogue is read
without them. Codes never change, and an id is never given twice: what one call listed, the next
one reads, or finds removed. Path and tags of a recording follow its file (``follow``).

**Durability.** SQLite's rollback journal, not WAL: outside a transaction the index is one file,
which can be copied or lie on a read-only disk (WAL has two more files, and needs a writable folder
even to read). ``synchronous = EXTRA`` is FULL and the folder synced too, so a transaction that
returned outlives a power cut as well as a kill. A writer takes its turn (BEGIN IMMEDIATE) before it
looks at what is there, so two of them cannot add one recording twice; readers go on meanwhile, and
see whole transactions only. As with any SQLite file: not on a network disk without locks, and
``FILE-journal``, there while a process writes or after it was killed, belongs to the file.
"""

import contextlib
import json
import math
import os
import re
import sqlite3
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:  # a hasher brings jax
    from seqhash.codes import Hasher

APPLICATION_ID = 0x73716878  # "sqhx" in the file's header tells an index from any other SQLite file
BUSY_SECONDS = 60.0  # that a process waits for another one's transaction

# Step i takes a file from schema version i to i + 1 (SQLite's user_version): making a file is
# migrating an empty one.
STEPS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE hasher (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, "
        "digest TEXT NOT NULL, code_rate REAL NOT NULL, words INTEGER NOT NULL, "
        "sample_rate INTEGER NOT NULL, checksum INTEGER NOT NULL)",
        # AUTOINCREMENT: the id of a removed recording, which someone may have noted, never becomes
        # another one's.
        "CREATE TABLE recordings (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, "
        "digest TEXT NOT NULL UNIQUE, title TEXT NOT NULL, artist TEXT NOT NULL, "
        "work TEXT NOT NULL, duration REAL NOT NULL, codes INTEGER NOT NULL, "
        "metadata TEXT NOT NULL, checksum INTEGER NOT NULL)",
        "CREATE TABLE codes (recording INTEGER PRIMARY KEY "
        "REFERENCES recordings (id) ON DELETE CASCADE, "
        "checksum INTEGER NOT NULL, words BLOB NOT NULL)",
    ),
    (
        "CREATE TABLE files (path TEXT PRIMARY KEY, digest TEXT NOT NULL, stamp TEXT NOT NULL, "
        "reason TEXT NOT NULL, reader TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX files_of_recordings ON files (digest)",
    ),
    (
        "CREATE TABLE channel (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, "
        "checksum INTEGER NOT NULL)",
    ),
)
_FILES_SINCE, _CHANNEL_SINCE = 2, 3  # schema versions

# The latter: SQLite quotes damaged bytes in its message.
_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_TEXT = "CAST(? AS TEXT)"  # of bytes: a path need not be Unicode
_LINE = "id, path, digest, title, artist, work, duration, codes, metadata, checksum"
_FILES = "SELECT path, digest, stamp, reason, reader, checksum FROM files"


class IndexFileError(ValueError):
    """An index that cannot be used as asked: the message names the file, the reason, and what to
    do.
    """


class NotMadeError(IndexFileError):
    """An empty file, as what was stopped while it made an index may leave."""


class Identity(NamedTuple):
    """What decides whether codes can be compared."""

    name: str
    digest: str  # of everything that decides a bit
    code_rate: float  # codes a second
    words: int  # uint32 a code
    sample_rate: int  # Hz of the samples it takes

    @classmethod
    def of(cls, hasher: "Hasher") -> Self:
        """What an index notes of its hasher."""
        return cls(hasher.name, hasher.digest, hasher.code_rate, hasher.words, hasher.sample_rate)


class Entry(NamedTuple):
    """A recording to be added."""

    path: str
    digest: str  # SHA-256 of the file's content, 64 digits: what makes a recording the same
    words: np.ndarray  # uint32 (codes, words)
    duration: float  # s
    title: str = ""
    artist: str = ""
    work: str = ""
    metadata: Mapping[str, str] | None = None


class Row(NamedTuple):
    """A catalogue line: a recording without its words."""

    id: int
    path: str  # bytes that are not UTF-8 as surrogates, as ``os.fsdecode`` has them
    digest: str
    title: str
    artist: str
    work: str
    duration: float  # s
    codes: int
    metadata: dict[str, str]


class File(NamedTuple):
    """What was last seen at a path."""

    path: str
    digest: str  # SHA-256 of the content
    stamp: str = ""  # of the file when it was read; "": too young to be known by it
    reason: str = ""  # why it could not be used as audio
    reader: str = ""  # whose reason that is: another one may read it


class Collection(NamedTuple):
    """What search needs. Recording r has the rows starts[r] up to starts[r + 1] of ``words``."""

    words: np.ndarray  # uint32 (rows, words), recordings one after another by ascending id
    starts: np.ndarray  # int64 (recordings + 1,)
    ids: np.ndarray  # int64 (recordings,)

    @classmethod
    def of(cls, recordings: Sequence[np.ndarray], ids: Iterable[int] | None = None) -> Self:
        """Of the words of each recording, uint32 (codes, words), at least one of them.

        Args:
          ids: 0, 1, ... where None.
        """
        starts = np.cumsum([0, *map(len, recordings)], dtype=np.int64)
        ids = range(len(recordings)) if ids is None else ids
        return cls(np.concatenate(recordings), starts, np.fromiter(ids, np.int64, len(recordings)))

    def subset(self, keep: Iterable[int]) -> Self:
        """Of some recordings, at least one: by their places here, not by their ids."""
        keep = list(keep)
        words = [self.words[self.starts[i] : self.starts[i + 1]] for i in keep]
        return self.of(words, self.ids[keep])


class Index:
    """An open index, made by ``open_index``: a context manager, for the thread and process that
    opened it.

    Every method is one transaction, and raises IndexFileError where the file does not let it; then
    nothing has changed.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        identity: Identity,
        *,
        readonly: bool,
        schema: int,
        channel: str,
    ):
        self.path = path
        self.identity = identity
        self.readonly = readonly
        self.channel = channel  # of ``audio.blocks``
        self.schema = schema  # version of the file, which may be older where it is only read
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Inside, all that is read is of one moment, and this index cannot write; other writers
        wait to the end.
        """
        with self._transaction():
            yield

    def add(self, entries: Iterable[Entry], files: Iterable[File] = ()) -> list[bool]:
        """Adds recordings, all of them or none, in one transaction that is on the disk when this
        returns; with it goes what was seen at some paths.

        Returns:
          For each entry: True, it is new; False, one of this content digest is there already, and
            stays as it is.

        Raises:
          ValueError: an entry is not valid; says which and why.
        """
        entries = list(entries)
        lines = [check_entry(entry, self.identity) for entry in entries]
        with self._transaction(write=True) as db:
            for file in files:
                _note(db, file)
            return [
                _insert(db, line, entry.words) for line, entry in zip(lines, entries, strict=True)
            ]

    def known(self, digests: Iterable[str]) -> set[str]:
        """Those of the content digests whose recordings are in the index."""
        query = "SELECT 1 FROM recordings WHERE digest = ?"
        with self._transaction() as db:
            return {digest for digest in digests if db.execute(query, (digest,)).fetchone()}

    def files(self) -> dict[str, File]:
        """What was last seen at each path, where anything was."""
        if self.schema < _FILES_SINCE:
            return {}
        with self._transaction() as db:
            return {file.path: file for file in _files_where(db)}

    def astray(self) -> list[tuple[Row, list[str]]]:
        """Recordings that may have another path than the catalogue says, each with all paths where
        its content was last seen: there is another one, or something else was seen at its own.
        """
        if self.schema < _FILES_SINCE:
            return []
        query = (
            "SELECT r.id FROM recordings r JOIN files f ON f.path = r.path "
            "WHERE f.digest <> r.digest AND f.reason = '' UNION "
            "SELECT r.id FROM recordings r JOIN files f ON f.digest = r.digest "
            "WHERE f.path <> r.path ORDER BY 1"
        )
        with self._transaction() as db:
            rows = [self._row(db, i) for (i,) in db.execute(query).fetchall()]
            return [(row, self._places(db, row)) for row in rows]

    def places(self, i: int) -> list[str]:
        """Paths where a recording was last seen, its own first if it is one of them."""
        with self._transaction() as db:
            row = self._row(db, i)
            return self._places(db, row)

    def _places(self, db: sqlite3.Connection, row: Row) -> list[str]:
        if self.schema < _FILES_SINCE:
            return [row.path]
        places = [file.path for file in _files_where(db, "digest", row.digest) if not file.reason]
        own = _files_where(db, "path", row.path)
        if any(file.digest != row.digest and not file.reason for file in own):
            return places
        return [row.path, *(path for path in places if path != row.path)]

    def move(
        self,
        paths: Mapping[int, str],
        retagged: Mapping[int, int],
        gone: Iterable[int] = (),
        forget: Iterable[str] = (),
    ) -> None:
        """Has recordings follow their files, all or none; those that another process has removed
        meanwhile are left out.

        Args:
          paths: the new path of some recordings.
          retagged: by the id of a recording, that of the new one that has the same codes: its line
            becomes the old one's, and it is removed.
          gone: recordings to be removed.
          forget: paths where nothing is any more.
        """
        with self._transaction(write=True) as db:
            for path in forget:
                db.execute(f"DELETE FROM files WHERE path = {_TEXT}", (_encoded(path),))
            there = self.ids()
            for i in there & paths.keys():
                self._rewrite(db, i, self._row(db, i)._replace(path=paths[i]))
            for old, new in retagged.items():
                if {old, new} <= there:
                    line = self._row(db, new)
                    db.execute("DELETE FROM recordings WHERE id = ?", (new,))
                    work = line.work or self._row(db, old).work
                    self._rewrite(db, old, line._replace(work=work))
            for i in gone:
                _delete(db, i)

    def _rewrite(self, db: sqlite3.Connection, i: int, row: Row) -> None:
        """Gives a recording another line; its words stay."""
        old = self._row(db, i)
        blob = self._read_words(db, old).astype("<u4").tobytes()
        texts = (row.path, row.digest, row.title, row.artist, row.work)
        metadata = json.dumps(row.metadata, sort_keys=True)
        checksum = _line_checksum([*texts, row.duration, row.codes, metadata])
        names = ("path", "digest", "title", "artist", "work")
        db.execute(
            f"UPDATE recordings SET {', '.join(f'{name} = {_TEXT}' for name in names)}, "
            "duration = ?, codes = ?, metadata = ?, checksum = ? WHERE id = ?",
            (*map(_encoded, texts), row.duration, row.codes, metadata, checksum, i),
        )
        words = _words_checksum(row.digest, blob)
        db.execute("UPDATE codes SET checksum = ? WHERE recording = ?", (words, i))

    def remove(self, ids: Iterable[int]) -> int:
        """Removes recordings; the number of those that were there. Only ``compact`` makes the file
        smaller.
        """
        valid = [int(i) for i in ids if 0 < i < 2**63]
        with self._transaction(write=True) as db:
            return sum(_delete(db, i) for i in valid)

    def ids(self) -> set[int]:
        """Of all recordings, also of those whose lines are damaged."""
        with self._transaction() as db:
            return {i for (i,) in db.execute("SELECT id FROM recordings").fetchall()}

    def rows(self) -> list[Row]:
        """The catalogue, by ascending id."""
        with self._transaction() as db:
            return self._rows(db)

    def words_of(self, ids: Iterable[int]) -> list[np.ndarray]:
        """The words, uint32 (codes, words), of recordings by their ids; IndexFileError where one is
        not there.
        """
        with self._transaction() as db:
            return [self._read_words(db, self._row(db, int(i))) for i in ids]

    def load(self) -> Collection:
        """All words in one array of 4 bytes a word; filling it takes one recording more."""
        with self._transaction() as db:
            rows = self._rows(db)
            starts = np.zeros(len(rows) + 1, np.int64)
            np.cumsum([row.codes for row in rows], out=starts[1:])
            words = np.empty((starts[-1], self.identity.words), np.uint32)
            for row, start, end in zip(rows, starts[:-1], starts[1:], strict=True):
                words[start:end] = self._read_words(db, row)
        return Collection(words, starts, np.array([row.id for row in rows], np.int64))

    def info(self) -> dict[str, Any]:
        """The file's and the hasher's facts: duration in seconds, sizes in bytes (``free``: what
        ``compact`` gives).
        """
        with self._transaction() as db:
            sums = "count(*), coalesce(sum(codes), 0), coalesce(sum(duration), 0.0)"
            found = db.execute(f"SELECT {sums} FROM recordings").fetchone()
            recordings, codes, duration = found
            page = _pragma(db, "page_size")
            return {
                "path": str(self.path),
                "schema": _pragma(db, "user_version"),
                "hasher": self.identity._asdict(),
                "channel": self.channel,
                "recordings": recordings,
                "codes": codes,
                "duration": duration,
                "bytes": page * _pragma(db, "page_count"),
                "free": page * _pragma(db, "freelist_count"),
            }

    def verify(self) -> list[str]:
        """Reads every byte; what is wrong, one problem a line. Empty: nothing is."""
        problems: list[str] = []
        for check in (self._check_structure, self._check_recordings, self._check_files):
            try:
                with self._transaction() as db:
                    problems.extend(check(db))  # what it found before an error stays
            except IndexFileError as error:
                problems.append(str(error))
        return problems

    def compact(self) -> tuple[int, int]:
        """Gives the space of removed recordings back; bytes before and after. Needs as much again
        for a moment.
        """
        self._require_writing()
        before = self.info()["bytes"]
        with _errors_named(self.path):
            self._connection.execute("VACUUM")
        return before, self.info()["bytes"]

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        if write:
            self._require_writing()
        with _errors_named(self.path), _transaction(self._connection, write=write):
            yield self._connection

    def _require_writing(self) -> None:
        if self.readonly or self._connection.in_transaction:  # the latter: a snapshot
            raise IndexFileError(
                f"{self.path}: opened for reading only; open it for writing to change it."
            )

    def _rows(self, db: sqlite3.Connection) -> list[Row]:
        return [
            self._as_row(line)
            for line in db.execute(f"SELECT {_LINE} FROM recordings ORDER BY id").fetchall()
        ]

    def _row(self, db: sqlite3.Connection, i: int) -> Row:
        line = db.execute(f"SELECT {_LINE} FROM recordings WHERE id = ?", (i,)).fetchone()
        if line is None:
            raise IndexFileError(
                f"{self.path}: there is no recording {i}; 'seqhash list' shows those there are."
            )
        return self._as_row(line)

    def _as_row(self, line: Sequence[Any]) -> Row:
        """A catalogue line as it was written, or an IndexFileError."""
        *fields, metadata, checksum = line
        if _line_checksum([*fields[1:], metadata]) != checksum:
            raise self._damaged(fields[0], fields[1], "its catalogue line is not as it was written")
        return Row._make([*fields, json.loads(metadata)])

    def _read_words(self, db: sqlite3.Connection, row: Row) -> np.ndarray:
        """The words of a recording as they were written, or an IndexFileError."""
        line = db.execute(
            "SELECT checksum, words FROM codes WHERE recording = ?", (row.id,)
        ).fetchone()
        if line is None:
            raise self._damaged(row.id, row.path, "it has no words")
        checksum, blob = line
        if not isinstance(blob, bytes) or len(blob) != 4 * self.identity.words * row.codes:
            raise self._damaged(row.id, row.path, f"its words are not those of {row.codes} codes")
        if _words_checksum(row.digest, blob) != checksum:
            raise self._damaged(row.id, row.path, "its words are not as they were written")
        return (
            np.frombuffer(blob, "<u4")
            .astype(np.uint32, copy=False)
            .reshape(row.codes, self.identity.words)
        )

    def _damaged(self, i: Any, name: Any, problem: str) -> IndexFileError:
        return IndexFileError(
            f"{self.path}: recording {i} ({name!r}) is damaged, {problem}; remove and add it again."
        )

    def _check_structure(self, db: sqlite3.Connection) -> Iterator[str]:
        for (text,) in db.execute("PRAGMA integrity_check").fetchall():
            if text != "ok":
                yield f"{self.path}: {' '.join(text.split())}."
        for table, row, *_ in db.execute("PRAGMA foreign_key_check").fetchall():
            yield f"{self.path}: row {row} of table {table} belongs to no recording."

    def _check_recordings(self, db: sqlite3.Connection) -> Iterator[str]:
        for (i,) in db.execute("SELECT id FROM recordings ORDER BY id").fetchall():
            try:
                self._read_words(db, self._row(db, i))
            except IndexFileError as error:
                yield str(error)
            except _ERRORS as error:
                yield f"{self.path}: recording {i} cannot be read ({error})."

    def _check_files(self, db: sqlite3.Connection) -> Iterator[str]:
        lines = db.execute(_FILES).fetchall() if self.schema >= _FILES_SINCE else ()
        for line in lines:
            if _line_checksum(line[:-1]) != line[-1]:
                yield (
                    f"{self.path}: what it says of the file {line[0]!r} is not as it was written; "
                    "'seqhash add' of that file mends it."
                )


def open_index(
    path: str | os.PathLike[str],
    *,
    identity: Identity | None = None,
    create: bool = False,
    readonly: bool = False,
    channel: str | None = None,
) -> Index:
    """Opens an index, and undoes what a killed process left half-written in it.

    Args:
      path: the file.
      identity: of the hasher at hand; an index of another one is refused. None takes any.
      create: make the file where it is missing or empty; needs the identity.
      readonly: change nothing, and so be content with a file or a folder that cannot be written.
      channel: which one of each file is taken, ``first``, ``mix`` or a number; None, that of the
        index, and ``first`` in a new one. An index of another one is refused.

    Raises:
      IndexFileError: no index there, another hasher's or channel's, a newer version's, a damaged
        one, or one that cannot be written.
    """
    if create and (identity is None or readonly):
        raise ValueError("To create an index, an identity is needed, and writing.")
    path = Path(path)
    _check_file(path, create=create, readonly=readonly)
    # "rw" falls back to reading where the file cannot be written, and where it can, undoes a killed
    # process's transaction, which "ro" cannot. isolation_level None: no transaction begins by
    # itself.
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    with _errors_named(path):
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _configure(db, readonly=readonly)
            _check_size(path, db)
            made = identity if create else None
            schema = _prepare(path, db, made, channel or "first", readonly=readonly)
            taken = _read_channel(path, db, schema)
            if channel not in (None, taken):
                raise IndexFileError(
                    f"{path}: made of the {taken} channel of each file, not of {channel}; use it "
                    "so, or another index."
                )
            stored = _read_identity(path, db)
            require_same(path, stored, identity or stored)
        except BaseException:
            db.close()
            raise
    return Index(path, db, stored, readonly=readonly, schema=schema, channel=taken)


def delete_empty(path: str | os.PathLike[str]) -> None:
    """Deletes an index that holds nothing."""
    with open_index(path) as index, index._transaction(write=True):
        if not index.ids():  # nor does another process add to it meanwhile
            os.unlink(path)


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except _ERRORS as error:
        raise IndexFileError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    # Of errors without a code: this module's, and bytes that are no text. SQLite's have one.
    other = 0 if isinstance(error, sqlite3.ProgrammingError) else sqlite3.SQLITE_CORRUPT
    reasons = {
        sqlite3.SQLITE_BUSY: f"another process has been using it for {BUSY_SECONDS:g} s; wait "
        "until it has ended, then run the same command again",
        sqlite3.SQLITE_FULL: "the disk is full; what was added before is kept. Free some, run the "
        "same command again",
        sqlite3.SQLITE_IOERR: "reading or writing failed; what was added before is kept. If the "
        "disk is full, a limit on file sizes reached, or the folder not writable, mend that, and "
        "run the same command again",
        sqlite3.SQLITE_READONLY: "it cannot be written, or what a killed process left "
        "(FILE-journal) not be undone; give yourself write permission for it and its folder, or "
        "copy both files to a folder of your own",
        sqlite3.SQLITE_READONLY_DBMOVED: "it was moved or deleted meanwhile; run the same command "
        "again",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened, or no file be made beside it; check the "
        "permissions of both",
        sqlite3.SQLITE_CORRUPT: "damaged or cut short, or not to be read from its disk; run the "
        "same command again, and if it says so again, restore it from a copy, or delete it and add "
        "all again",
        sqlite3.SQLITE_ERROR: "damaged, its tables are not those of an index; restore it from a "
        "copy",
        sqlite3.SQLITE_NOTADB: "not a seqhash index; name another file",
    }
    code = getattr(error, "sqlite_errorcode", other)
    reason = reasons.get(code, reasons.get(code & 0xFF))  # the low byte; the others are its kind
    return f"{path}: {reason} ({error})." if reason else f"{path}: {error}."


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, *, write: bool) -> Iterator[None]:
    if db.in_transaction:  # reads inside a snapshot
        yield
        return
    db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # after some errors SQLite has rolled back by itself
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                db.execute("ROLLBACK")
        raise


def _check_file(path: Path, *, create: bool, readonly: bool) -> None:
    """Refuses what SQLite answers with a riddle, or waits for (a pipe)."""
    # By ``stat`` alone: to open and close the file would drop the locks of this process's other
    # connections to it.
    folder = path.absolute().parent
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        if not create:
            raise IndexFileError(f"{path}: no such index; 'seqhash add' makes one.") from error
        if not folder.is_dir():
            raise IndexFileError(f"{path}: its folder is not there; make it first.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise IndexFileError(
            f"{path}: cannot be opened ({reason}); check the path and its permissions."
        ) from error
    else:
        if stat.S_ISDIR(mode):
            raise IndexFileError(f"{path}: a folder; name a file, such as {path / 'music.index'}.")
        if not stat.S_ISREG(mode):
            raise IndexFileError(f"{path}: not a regular file; name another one.")
        if not readonly and not _writable(path):
            raise IndexFileError(
                f"{path}: cannot be written; give yourself write permission, or use a copy of it."
            )
    if not readonly and not _writable(folder):
        raise IndexFileError(
            f"{path}: its folder cannot be written, and writing needs a file beside it; give "
            "yourself write permission for the folder, or use a copy of the index in one of your "
            "own."
        )


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _configure(db: sqlite3.Connection, *, readonly: bool) -> None:
    db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    db.execute("PRAGMA trusted_schema = OFF")  # a file from elsewhere runs nothing of its own
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA synchronous = EXTRA")
    if not readonly:
        # The default, but someone may have changed the file's.
        db.execute("PRAGMA journal_mode = DELETE")


def _prepare(
    path: Path,
    db: sqlite3.Connection,
    identity: Identity | None,
    channel: str,
    *,
    readonly: bool,
) -> int:
    """Makes the tables where an identity is given and there are none; brings those of an older
    version up to date where they are to be written to; the schema version.
    """
    version = _version(path, db)
    if version == len(STEPS) or (version and readonly):
        return version
    if version == 0 and identity is None:
        raise NotMadeError(
            f"{path}: empty, as an interrupted 'seqhash add' may leave it; run that again."
        )
    with _transaction(db, write=True):
        version = _version(path, db)  # another process may have been faster
        for statement in (statement for step in STEPS[version:] for statement in step):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(STEPS)}")
        if version == 0 and identity is not None:
            name, digest, code_rate, words, sample_rate = identity
            line = (name, digest, float(code_rate), int(words), int(sample_rate))
            db.execute(
                "INSERT INTO hasher VALUES (1, ?, ?, ?, ?, ?, ?)", (*line, _line_checksum(line))
            )
            if channel != "first":
                chosen = (channel, _line_checksum([channel]))
                db.execute("INSERT INTO channel VALUES (1, ?, ?)", chosen)
    return len(STEPS)


def _version(path: Path, db: sqlite3.Connection) -> int:
    """The schema version; 0, an empty file. Refuses other databases, and what is newer than this
    module.
    """
    with _transaction(db, write=False):  # another process may be making it just now
        application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise IndexFileError(
            f"{path}: an SQLite database of something else, not a seqhash index; name another file."
        )
    if version > len(STEPS):
        newest = f"schema {version}, this one reads up to {len(STEPS)}"
        raise IndexFileError(f"{path}: made by a newer seqhash ({newest}); update seqhash.")
    return version


def _check_size(path: Path, db: sqlite3.Connection) -> None:
    """Refuses a file whose last page is cut, which SQLite lets be."""
    with _transaction(db, write=False):
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        size = _pragma(db, "page_size") * _pragma(db, "page_count")
        if tables and os.stat(path).st_size < size and _pragma(db, "journal_mode") != "wal":
            raise sqlite3.DatabaseError("the last page is cut")


def _pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _read_identity(path: Path, db: sqlite3.Connection) -> Identity:
    found = db.execute(
        "SELECT name, digest, code_rate, words, sample_rate, checksum FROM hasher"
    ).fetchone()
    if found is None or _line_checksum(found[:-1]) != found[-1]:
        raise IndexFileError(
            f"{path}: damaged, it does not say whose codes it holds; restore it from a copy."
        )
    return Identity(*found[:-1])


def _read_channel(path: Path, db: sqlite3.Connection, schema: int) -> str:
    if schema < _CHANNEL_SINCE:
        return "first"
    name, checksum = db.execute("SELECT name, checksum FROM channel").fetchone() or ("first", None)
    if checksum not in (None, _line_checksum([name])):
        raise IndexFileError(
            f"{path}: damaged, it does not say which channel it was made of; restore it from a "
            "copy."
        )
    return name


def require_same(path: Path, stored: Identity, given: Identity) -> None:
    """Raises IndexFileError unless the codes in a file can be compared with those of the hasher
    given.
    """
    if stored[1:] != given[1:]:  # whatever they are called
        raise IndexFileError(
            f"{path}: made with hasher {_described(stored)}, not with {_described(given)}; their "
            "codes cannot be compared. Use the first one, or another index."
        )


def _described(identity: Identity) -> str:
    name, digest, code_rate, words, _ = identity
    return f"{name!r} (digest {digest[:12]}, {32 * words} bits, {code_rate:g} codes/s)"


def _encoded(text: str) -> bytes:
    """Texts are stored as these bytes: a path need not be Unicode."""
    return text.encode("utf-8", "surrogateescape")


def _line_checksum(line: Sequence[Any]) -> int:
    """CRC-32 of a catalogue line from ``path`` to ``metadata``, or of an identity."""
    return zlib.crc32(_encoded("\0".join(map(str, line))))


def _words_checksum(digest: str, blob: bytes) -> int:
    """CRC-32 of the words, begun with the content digest, so that one recording's words do not pass
    for another's.
    """
    return zlib.crc32(blob, zlib.crc32(_encoded(digest)))


def check_entry(entry: Entry, identity: Identity) -> tuple[Any, ...]:
    """The catalogue line of an entry, from ``path`` to ``metadata``, or a ValueError that says what
    is wrong.
    """
    words, metadata = entry.words, dict(entry.metadata or {})
    if words.dtype != np.uint32 or words.ndim != 2 or words.shape[1] != identity.words:
        expected = f"uint32 (codes, {identity.words})"
        raise ValueError(
            f"{entry.path}: words must be {expected}, got {words.dtype} {words.shape}."
        )
    if not re.fullmatch("[0-9a-f]{64}", entry.digest):
        raise ValueError(
            f"{entry.path}: digest must be 64 hexadecimal digits, got {entry.digest!r}."
        )
    if not (math.isfinite(entry.duration) and entry.duration >= 0):
        raise ValueError(
            f"{entry.path}: duration must be finite and not negative, got {entry.duration}."
        )
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ValueError(f"{entry.path}: metadata must be texts by name, got {metadata}.")
    texts = (entry.path, entry.digest, entry.title, entry.artist, entry.work)
    try:
        _encoded("".join(texts))
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{entry.path!a}: path, title, artist and work must be Unicode ({error})."
        ) from error
    duration = float(entry.duration) + 0.0  # SQLite gives -0.0 back as 0.0
    return (*texts, duration, len(words), json.dumps(metadata, sort_keys=True))


def _note(db: sqlite3.Connection, file: File) -> None:
    db.execute(
        f"INSERT OR REPLACE INTO files VALUES ({5 * f'{_TEXT}, '}?)",
        (*map(_encoded, file), _line_checksum(file)),
    )


def _files_where(db: sqlite3.Connection, column: str = "", value: str = "") -> list[File]:
    """What was seen where a column has a value; a line that is not as it was written says
    nothing.
    """
    chosen = f" WHERE {column} = {_TEXT}" if column else ""
    lines = db.execute(_FILES + chosen, (_encoded(value),) if column else ()).fetchall()
    return [File._make(line[:-1]) for line in lines if _line_checksum(line[:-1]) == line[-1]]


def _delete(db: sqlite3.Connection, i: int) -> int:
    """Removes a recording and what was seen of its content; how many that were."""
    content = "(SELECT digest FROM recordings WHERE id = ?)"
    db.execute(f"DELETE FROM files WHERE digest = {content}", (i,))
    return db.execute("DELETE FROM recordings WHERE id = ?", (i,)).rowcount


def _insert(db: sqlite3.Connection, line: tuple[Any, ...], words: np.ndarray) -> bool:
    path, digest, title, artist, work, duration, codes, metadata = line
    texts = [_encoded(text) for text in (path, digest, title, artist, work)]
    cursor = db.execute(
        f"INSERT INTO recordings ({_LINE}) VALUES (NULL{5 * f', {_TEXT}'}, ?, ?, ?, ?) "
        "ON CONFLICT (digest) DO NOTHING",
        (*texts, duration, codes, metadata, _line_checksum(line)),
    )
    if cursor.rowcount == 0:
        return False
    blob = np.ascontiguousarray(words, "<u4").tobytes()
    db.execute(
        "INSERT INTO codes VALUES (?, ?, ?)",
        (cursor.lastrowid, _words_checksum(digest, blob), blob),
    )
    return True
