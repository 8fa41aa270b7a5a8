"""Recordings: manifests and folders of them.

**Manifest.** A CSV file, UTF-8, with a header line; one row for each recording:

============  ========  ========================================================================
column                  meaning
============  ========  ========================================================================
path          required  the audio file, from the manifest's folder or absolute
recording_id  optional  a unique name; where there is none, the file's stem (its path, if stems
                        collide)
work_id       optional  the composition; recordings of one work are one clique. Only together with
                        ``role``
role          optional  ``original`` (exactly one for each work) or ``cover``. A row may leave both
                        empty
title, genre  optional  text
others        optional  kept as text in ``Recording.extra``
============  ========  ========================================================================
"""

import csv
import hashlib
import io
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

# What a folder's audio files are called, whether or not this machine has a decoder for them. Films
# are read where they are named.
SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    *(".flac", ".mp3", ".mp2", ".mp1", ".mpa", ".mpga", ".ogg", ".oga", ".opus", ".spx", ".voc"),
    *(".m4a", ".m4b", ".m4r", ".mp4", ".aac", ".wma", ".webm", ".weba", ".mka", ".ac3", ".eac3"),
    *(".ec3", ".dts", ".amr", ".3ga", ".ape", ".wv", ".tta", ".tak", ".mpc", ".dsf", ".dff", ".ra"),
    *(".8svx", ".sph", ".nist", ".oma", ".shn"),
)
ROLES = ("original", "cover")
_FIELDS = ("path", "recording_id", "work_id", "role", "title", "genre")


@dataclass(frozen=True)
class Recording:
    """One audio file, and what its manifest says of it."""

    id: str  # unique
    path: Path  # absolute
    work: str  # the composition; "" if unknown
    role: str  # "original", "cover" or ""
    title: str
    genre: str
    extra: Mapping[str, str] = field(hash=False)  # the manifest's other columns, as text


class ManifestError(ValueError):
    """Recordings that cannot be used as asked: all problems, one a line, with the line number where
    there is one.
    """


def recordings(path: str | os.PathLike[str]) -> tuple[Recording, ...]:
    """The recordings that a manifest (``.csv``) or a folder names."""
    path = Path(path)
    if os.path.isdir(path):
        return read_folder(path)
    if path.suffix.lower() == ".csv":
        return read_manifest(path)
    reason = "a folder or a manifest (.csv) expected" if path.exists() else "no such file or folder"
    raise ManifestError(f"{path}: {reason}.")


def read_folder(path: str | os.PathLike[str]) -> tuple[Recording, ...]:
    """The audio files of ``walk``, sorted by path.

    Raises:
      ManifestError: there is no such folder, it cannot be read, or there is nothing in it.
    """
    found = walk(path).audio
    if not found:
        raise ManifestError(f"{path}: no audio files below it.")
    return in_folder(path, found)


def in_folder(path: str | os.PathLike[str], files: Sequence[Path]) -> tuple[Recording, ...]:
    """Files below a folder as recordings."""
    ids = _ids([""] * len(files), files, Path(os.path.abspath(path)))
    return tuple(Recording(i, file, "", "", "", "", {}) for i, file in zip(ids, files, strict=True))


class Folder(NamedTuple):
    """All that is below a folder."""

    audio: list[Path]  # files by their suffix, and folders that cannot be read, sorted
    skipped: Counter[str]  # other files, by what they are: a suffix in small letters, or "hidden"


def walk(path: str | os.PathLike[str]) -> Folder:
    """Every file below a folder. Links are followed, each file's folder once: as itself where it
    is below the folder too, else through the first link.

    A folder below it that cannot be read is a recording too, of no audio: who reads it fails, and
      reports it.

    Raises:
      ManifestError: there is no such folder, or it cannot be read.
    """
    root = Path(os.path.abspath(path))
    if not os.path.isdir(root):
        raise ManifestError(f"{path}: no such folder.")
    found, skipped = list[Path](), Counter[str]()
    visited, links = set[tuple[int, int]](), deque([root])

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == root:
            raise ManifestError(f"{path}: cannot be read ({error.strerror}).") from error
        found.append(Path(error.filename))

    while links:
        for folder, inner, names in os.walk(links.popleft(), onerror=unreadable):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                inner.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            skipped["hidden"] += sum(name.startswith(".") for name in [*inner, *names])
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            # Those of folders wait, and os.walk does not follow them.
            links += [Path(folder, name) for name in inner if os.path.islink(Path(folder, name))]
            for name in names:
                if name.startswith("."):
                    continue
                if name.lower().endswith(SUFFIXES):
                    found.append(Path(folder, name))
                else:
                    skipped[Path(name).suffix.lower() or "no suffix"] += 1
    found.sort(key=lambda file: file.relative_to(root).as_posix())
    return Folder(found, +skipped)


def read_manifest(path: str | os.PathLike[str], *, missing: bool = False) -> tuple[Recording, ...]:
    """The recordings of a manifest; the format is at the top of this module.

    Args:
      path: the file.
      missing: a file that is not there is a recording too, which who reads it reports.

    Raises:
      ManifestError: lists everything that is wrong with it, with line numbers.
    """
    path = Path(path)
    header, rows = _read_csv(path)
    problems = _check_header(header) + ([] if rows else [(1, "no recordings")])
    rows, others = _check_rows(rows, len(header))
    folder = Path(os.path.abspath(path)).parent
    named = [_Row(line, *(_value(header, row, name) for name in _FIELDS)) for line, row in rows]
    files = [Path(os.path.abspath(folder / row.path)) for row in named]
    ids = _ids([row.id for row in named], files, folder)
    problems += others + _check_works(named)
    if "path" in header:
        problems += _check_paths(named, files, missing=missing) + _check_ids(named, ids)
    if problems:
        raise ManifestError("\n".join(f"{path}:{line}: {text}" for line, text in sorted(problems)))
    extras = [name for name in header if name not in _FIELDS]
    return tuple(
        Recording(
            i,
            file,
            row.work,
            row.role,
            row.title,
            row.genre,
            {n: cells[header.index(n)] for n in extras},
        )
        for i, file, row, (_, cells) in zip(ids, files, named, rows, strict=True)
    )


def require_covers(recordings: Sequence[Recording]) -> None:
    """Raises ManifestError unless there are covers, and one original for each of them."""
    originals = Counter(r.work for r in recordings if r.role == "original")
    covers = [r for r in recordings if r.role == "cover"]
    problems = []
    if not originals:
        problems.append("no recording has the role original")
    if not covers:
        problems.append("no recording has the role cover")
    problems += [
        f"work {work!r} has {n} originals, one expected" for work, n in originals.items() if n > 1
    ]
    if originals:
        lost = [r for r in covers if not originals[r.work]]
        problems += [f"cover {r.id!r}: there is no original of its work {r.work!r}" for r in lost]
    if problems:
        hint = "Cover accuracy needs a manifest with the columns work_id and role"
        raise ManifestError("\n".join([f"{hint}, one original for each work:", *problems]))


def split(
    recordings: Sequence[Recording], *, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation recordings, whole ones, whatever their works.

    The order is by a digest of seed and id, so it depends on no library's random numbers, and a
    recording that is added moves few others.

    Args:
      recordings: two at least where a fraction is held out.
      fraction: for validation, in [0, 1), in whole recordings; above 0 at least one, and one stays
        for training.
      seed: of the choice.

    Returns:
      int64 (training,), int64 (validation,): indices into ``recordings``, ascending.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), got {fraction}.")
    if fraction and len(recordings) < 2:
        raise ValueError(
            f"At least 2 recordings are needed to hold out {fraction} of them, "
            f"got {len(recordings)}."
        )
    held = min(max(round(fraction * len(recordings)), 1), len(recordings) - 1) if fraction else 0
    digests = [hashlib.sha256(os.fsencode(f"{seed} {r.id}")).digest() for r in recordings]
    order = np.array(sorted(range(len(recordings)), key=digests.__getitem__), np.int64)
    return np.sort(order[held:]), np.sort(order[:held])


class _Row(NamedTuple):
    line: int
    path: str
    id: str
    work: str
    role: str
    title: str
    genre: str


_Problems = list[tuple[int, str]]  # line, text
_Cells = list[tuple[int, list[str]]]  # line on which the row starts, its fields


def _read_csv(path: Path) -> tuple[list[str], _Cells]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{path}:{line}: not UTF-8 text (byte {data[error.start]:#04x})."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: _Cells = []
    line = 1
    try:
        for cells in reader:
            if cells:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}:{line}: not CSV ({error}).") from error
    if not rows:
        raise ManifestError(f"{path}:1: an empty file, a header line expected.")
    return [name.strip() for name in rows[0][1]], rows[1:]


def _check_header(header: Sequence[str]) -> _Problems:
    problems = [
        (1, f"column {name!r} occurs {n} times") for name, n in Counter(header).items() if n > 1
    ]
    if "path" not in header:
        problems.append(
            (1, f"column 'path' is missing; the columns are {', '.join(map(repr, header))}")
        )
    for here, missing in (("work_id", "role"), ("role", "work_id")):
        if here in header and missing not in header:
            problems.append((1, f"column {missing!r} is missing, which {here!r} needs"))
    return problems


def _check_rows(rows: _Cells, columns: int) -> tuple[_Cells, _Problems]:
    """The rows of the right length, and what is wrong with the others."""
    problems = [
        (line, f"{len(cells)} fields, {columns} expected as in the header")
        for line, cells in rows
        if len(cells) != columns
    ]
    return [(line, cells) for line, cells in rows if len(cells) == columns], problems


def _value(header: Sequence[str], cells: Sequence[str], name: str) -> str:
    return cells[header.index(name)].strip() if name in header else ""


def _check_paths(rows: Sequence[_Row], files: Sequence[Path], *, missing: bool) -> _Problems:
    problems, first = [], dict[Path, int]()
    for row, file in zip(rows, files, strict=True):
        if not row.path:
            problems.append((row.line, "path is empty"))
        elif file in first:
            problems.append((row.line, f"path {row.path!r} is already on line {first[file]}"))
        elif not missing and not os.path.isfile(file):
            problems.append((row.line, f"path {row.path!r} is not a file that is there"))
        first.setdefault(file, row.line)
    return problems


def _check_ids(rows: Sequence[_Row], ids: Sequence[str]) -> _Problems:
    problems, first = [], dict[str, int]()
    for row, i in zip(rows, ids, strict=True):
        if row.id and i in first:
            problems.append((row.line, f"recording_id {i!r} is already on line {first[i]}"))
        first.setdefault(i, row.line)
    return problems


def _check_works(rows: Sequence[_Row]) -> _Problems:
    problems, originals = [], dict[str, int]()
    unknown = {
        row.work for row in rows if row.role not in ("", *ROLES)
    }  # of these no one can say what is missing
    for row in rows:
        if row.role not in ("", *ROLES):
            problems.append((row.line, f"role must be {' or '.join(ROLES)}, got {row.role!r}"))
        if row.role and not row.work:
            problems.append((row.line, f"role is {row.role!r} but work_id is empty"))
        elif row.work and not row.role:
            problems.append((row.line, f"work_id is {row.work!r} but role is empty"))
        elif row.role == "original" and row.work in originals:
            first = f"the first is on line {originals[row.work]}"
            problems.append((row.line, f"a second original of work {row.work!r}, {first}"))
        elif row.role == "original":
            originals[row.work] = row.line
    without = {row.work: row.line for row in reversed(rows) if row.role == "cover" and row.work}
    for work, line in without.items():
        if work not in originals and work not in unknown:
            problems.append((line, f"work {work!r} has no original"))
    return problems


def _ids(given: Sequence[str], files: Sequence[Path], folder: Path) -> list[str]:
    """The ids given; else the stems, and where one of these is taken, the path from the folder."""
    stems = [i or file.stem for i, file in zip(given, files, strict=True)]
    uses = Counter(stems)
    return [
        i or (stem if uses[stem] == 1 else Path(os.path.relpath(file, folder)).as_posix())
        for i, stem, file in zip(given, stems, files, strict=True)
    ]
