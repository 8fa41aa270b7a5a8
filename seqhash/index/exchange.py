"""Between an index and other files: another index, FAISS, npz, Parquet.

Files are written whole or not at all, beside themselves first. Words are little-endian uint32
wherever they are bytes.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from seqhash import audio, files
from seqhash.index.catalogue import (
    Entry,
    Identity,
    Index,
    IndexFileError,
    Row,
    check_entry,
    open_index,
    require_same,
)

GROUP = 64  # recordings a transaction when many are brought in, and a row group of Parquet
_TEXTS = ("path", "digest", "title", "artist", "work")
_REQUIRED = (
    "hasher",
    "hasher_digest",
    "code_rate",
    "sample_rate",
    "words",
    "starts",
    "path",
)  # of an npz
_OPTIONAL = ("digest", "duration", "title", "artist", "work", "metadata", "channel")


class Added(NamedTuple):
    """What became of recordings that were brought in."""

    added: int
    present: int  # already there, by content digest


def merge(index: Index, other: str | os.PathLike[str]) -> Added:
    """Adds another index's recordings, in groups: after a kill, the same call goes on where it
    stopped.

    Raises:
      IndexFileError: the other one cannot be read, is damaged, or of another hasher.
    """
    with open_index(other, identity=index.identity, readonly=True, channel=index.channel) as source:
        rows = source.rows()
        present = index.known(row.digest for row in rows)
        fresh = [row for row in rows if row.digest not in present]
        added = _add_groups(
            index, (_entry(row, words) for row, words in _with_words(source, fresh))
        )
    return Added(added, len(rows) - added)


def export_faiss(index: Index, path: str | os.PathLike[str]) -> Path:
    """Writes FAISS's ``IndexBinaryFlat`` and, beside it, its id map; returns the id map's path,
    ``path`` + ``.csv``.

    Row t of the FAISS index is code t - ``row`` of the last recording in the id map whose ``row``
    is t or less. Bit j of FAISS's byte i is bit 8 i + j of the code. The layout is that of
    ``write_index_binary`` in FAISS's impl/index_write.cpp: "IBxF", int32 bits, int32 bytes a code,
    int64 rows, uint8 trained, int32 metric (1; of no use here), uint64 bytes that follow, the
    codes.

    An id map that is there goes before the codes do: one that is there is always theirs.
    """
    path = Path(path)
    ids = path.with_name(path.name + ".csv")
    rows, width = index.rows(), index.identity.words
    count = sum(row.codes for row in rows)
    with _replacing(index, ids) as table, _replacing(index, path) as file:
        _write_ids(table, rows)
        file.write(
            struct.pack(
                "<4siiq?iQ", b"IBxF", 32 * width, 4 * width, count, True, 1, 4 * width * count
            )
        )
        for _, words in _with_words(index, rows):
            file.write(words.astype("<u4", copy=False).tobytes())
        file.flush()
        ids.unlink(missing_ok=True)
    return ids


def export_npz(index: Index, path: str | os.PathLike[str]) -> None:
    """Writes everything to an npz: the arrays that ``import_npz`` reads, and ``ids`` int64
    (recordings,).
    """
    identity = index.identity
    with index.snapshot():
        rows, collection = index.rows(), index.load()
    arrays: dict[str, Any] = {
        name: np.array([getattr(row, name) for row in rows], np.str_) for name in _TEXTS
    }
    arrays |= {
        "hasher": identity.name,
        "hasher_digest": identity.digest,
        "code_rate": identity.code_rate,
        "sample_rate": identity.sample_rate,
        "channel": index.channel,
        "duration": np.array([row.duration for row in rows], np.float64),
        "metadata": np.array([json.dumps(row.metadata) for row in rows], np.str_),
    }
    with _replacing(index, Path(path)) as file:
        np.savez(file, **collection._asdict(), **arrays)


def export_parquet(index: Index, path: str | os.PathLike[str]) -> None:
    """Writes a Parquet table, a recording a row: the catalogue's columns, and ``words``
    list<list<uint32>[words]>.

    ``metadata`` is JSON text; the hasher's identity is JSON in the schema's key ``seqhash``. Bytes
    of a path that are not UTF-8 are escaped with a backslash, since Parquet's texts must be.
    IndexFileError where there is no pyarrow.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise IndexFileError(
            f"{path}: Parquet needs pyarrow; 'pip install pyarrow', or export to npz."
        ) from error
    rows, schema = index.rows(), _schema(index.identity)
    with (
        _replacing(index, Path(path)) as file,
        # Codes look random: a dictionary or compression would only cost time.
        parquet.ParquetWriter(file, schema, compression="none", use_dictionary=False) as writer,
    ):
        for group in _groups(_with_words(index, rows)):
            writer.write_table(_table(group, schema))


def import_npz(index: Index, path: str | os.PathLike[str]) -> Added:
    """Adds precomputed codes, in groups: after a kill, the same call goes on where it stopped.

    The arrays, for R recordings: ``hasher``, ``hasher_digest`` (texts), ``code_rate``,
    ``sample_rate`` (numbers): whose codes these are, the index's hasher; ``words`` uint32 (rows,
    words); ``starts`` integers (R + 1,): recording r has the rows starts[r] up to starts[r + 1];
    ``path`` texts (R,). And where there are, (R,) each: ``digest`` (SHA-256 of the audio file's
    content; else that of the words stands for it), ``duration`` (s; else codes / code_rate),
    ``title``, ``artist``, ``work``, ``metadata`` (JSON objects of texts). ``channel`` is a text, of
    ``audio.blocks``.

    Raises:
      IndexFileError: the file is not like that, or of another hasher; then nothing was added.
    """
    path = Path(path)
    arrays = _read_npz(path)
    require_same(path, _identity(path, arrays), index.identity)
    if (channel := _channel(path, arrays)) != index.channel:
        raise IndexFileError(f"{path}: of the {channel} channel; the index's is {index.channel}.")
    try:
        entries = _entries(arrays, index.identity)
        for entry in entries:
            check_entry(entry, index.identity)
    except (ValueError, TypeError) as error:
        raise IndexFileError(f"{path}: cannot be imported: {error}") from error
    added = _add_groups(index, entries)
    return Added(added, len(entries) - added)


def npz_made_of(path: str | os.PathLike[str]) -> tuple[Identity, str]:
    """The hasher whose codes an npz holds, and the channel that they were made of, so that an index
    can be made for them.
    """
    arrays = _read_npz(Path(path))
    return _identity(Path(path), arrays), _channel(Path(path), arrays)


def _channel(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    try:
        return audio.check_channel(str(arrays.get("channel", "first")))
    except ValueError as error:
        raise IndexFileError(f"{path}: cannot be imported: {error}") from error


def _groups(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(items)
    while group := list(itertools.islice(items, GROUP)):
        yield group


def _with_words(index: Index, rows: Iterable[Row]) -> Iterator[tuple[Row, np.ndarray]]:
    """Rows and their words, a group in memory; no transaction stays open between groups and keeps
    writers waiting.
    """
    for group in _groups(rows):
        yield from zip(group, index.words_of(row.id for row in group), strict=True)


def _add_groups(index: Index, entries: Iterable[Entry]) -> int:
    return sum(sum(index.add(group)) for group in _groups(entries))


def _entry(row: Row, words: np.ndarray) -> Entry:
    return Entry(
        row.path, row.digest, words, row.duration, row.title, row.artist, row.work, row.metadata
    )


@contextlib.contextmanager
def _replacing(index: Index, path: Path) -> Iterator[IO[bytes]]:
    """``files.replacing``, but never the index itself."""
    if path.exists() and path.samefile(index.path):
        raise IndexFileError(f"{path}: is the index itself; name another file to export to.")
    try:
        with files.replacing(path) as file:
            yield file
    except OSError as error:
        reason = error.strerror or error
        raise IndexFileError(
            f"{path}: cannot be written ({reason}); mend that, or name another file."
        ) from error


def _write_ids(file: IO[bytes], rows: Sequence[Row]) -> None:
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", "codes", "recording", *_TEXTS, "duration"])
    row = 0
    for line in rows:
        table.writerow(
            [row, line.codes, line.id, *(getattr(line, name) for name in _TEXTS), line.duration]
        )
        row += line.codes
    text.detach()  # flushes, and leaves the file open


def _schema(identity: Identity) -> Any:
    import pyarrow as pa

    words = pa.list_(pa.list_(pa.uint32(), identity.words))
    fields = [
        ("id", pa.int64()),
        *((name, pa.string()) for name in _TEXTS),
        ("duration", pa.float64()),
        ("metadata", pa.string()),
        ("words", words),
    ]
    return pa.schema(fields, metadata={"seqhash": json.dumps(identity._asdict())})


def _table(group: Sequence[tuple[Row, np.ndarray]], schema: Any) -> Any:
    import pyarrow as pa

    offsets = np.cumsum([0, *(len(words) for _, words in group)], dtype=np.int32)
    flat = np.concatenate([words.reshape(-1) for _, words in group])
    codes = pa.FixedSizeListArray.from_arrays(
        pa.array(flat), type=schema.field("words").type.value_type
    )
    columns = [
        pa.array([row.id for row, _ in group], pa.int64()),
        *(
            pa.array([_unicode(getattr(row, name)) for row, _ in group], pa.string())
            for name in _TEXTS
        ),
        pa.array([row.duration for row, _ in group], pa.float64()),
        pa.array([json.dumps(row.metadata) for row, _ in group], pa.string()),
        pa.ListArray.from_arrays(pa.array(offsets), codes),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _unicode(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:  # numpy leaves a damaged one open
            if not zipfile.is_zipfile(file):  # numpy would suggest to trust it
                file.seek(0)
                kind = "Parquet, which is only written" if file.read(4) == b"PAR1" else "no archive"
                raise ValueError(f"{kind}; 'seqhash export --to=FILE.npz' makes one")
            file.seek(0)
            return files.read_arrays(file, (*_REQUIRED, *_OPTIONAL))
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise IndexFileError(f"{path}: not an npz file, or damaged ({error}).") from error


def _identity(path: Path, arrays: Mapping[str, np.ndarray]) -> Identity:
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise IndexFileError(f"{path}: cannot be imported: {', '.join(missing)} missing.")
    if arrays["words"].ndim != 2:
        raise IndexFileError(
            f"{path}: cannot be imported: words must be (rows, words), got {arrays['words'].shape}."
        )
    try:
        return Identity(
            str(arrays["hasher"].item()),
            str(arrays["hasher_digest"].item()),
            float(arrays["code_rate"].item()),
            arrays["words"].shape[1],
            int(arrays["sample_rate"].item()),
        )
    except (ValueError, TypeError) as error:
        raise IndexFileError(f"{path}: cannot be imported: the hasher's {error}.") from error


def _entries(arrays: Mapping[str, np.ndarray], identity: Identity) -> list[Entry]:
    """Recordings as views of the arrays, or a ValueError that says what is wrong with these."""
    words, starts, count = arrays["words"], arrays["starts"], arrays["starts"].size - 1
    if starts.ndim != 1 or starts.dtype.kind not in "iu" or count < 0:
        raise ValueError(
            f"starts must be integers (recordings + 1,), got {starts.dtype} {starts.shape}."
        )
    starts = starts.astype(np.int64)
    if starts[0] != 0 or starts[-1] != len(words) or (np.diff(starts) < 0).any():
        raise ValueError(f"starts must rise from 0 to the number of rows, {len(words)}.")
    own = [words[start:end] for start, end in itertools.pairwise(starts)]
    columns: dict[str, list[Any]] = {
        "digest": [hashlib.sha256(codes.astype("<u4").tobytes()).hexdigest() for codes in own],
        "duration": [len(codes) / identity.code_rate for codes in own],
        "metadata": ["{}"] * count,
        **{name: [""] * count for name in ("title", "artist", "work")},
    }
    for name in {"path", *columns} & arrays.keys():
        array, kinds, what = (
            arrays[name],
            *(("fiu", "numbers") if name == "duration" else ("U", "texts")),
        )
        if array.shape != (count,) or array.dtype.kind not in kinds:
            raise ValueError(f"{name} must be {what} ({count},), got {array.dtype} {array.shape}.")
        columns[name] = array.tolist()
    return [
        Entry(
            path=columns["path"][r],
            digest=columns["digest"][r],
            words=codes,
            duration=columns["duration"][r],
            title=columns["title"][r],
            artist=columns["artist"][r],
            work=columns["work"][r],
            metadata=json.loads(columns["metadata"][r]),
        )
        for r, codes in enumerate(own)
    ]
