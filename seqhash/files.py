"""Files and folders that are replaced whole or not at all.

**A file.** What is written goes to a hidden file beside it, is flushed to the disk, and then takes
its name, which is one step. Whatever happens, a kill or a power cut too, its name stands for the
old file or for the new one, whole.

**A folder.** No portable call puts one folder in another's place, so there are three steps: the old
one is put aside (``.NAME.replaced``), the new one takes its name, and what is left of the old one
goes. After a kill one of the two is there, whole: ``present`` finds it, and the next
``replacing_folder`` tidies up. What is in the old folder alone is moved into the new one.

A killed process may leave its unfinished ``.NAME.PID.tmp`` behind.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file; ValueError with its name where it is not one, or damaged."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it, and make it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: damaged (an object expected); delete it, and make it again.")
    return found


def read_arrays(
    file: BinaryIO, names: Collection[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of an npz file, some or all; ValueError, whatever is wrong with it. No pickles."""
    try:
        data = np.load(file, allow_pickle=False)
        if isinstance(data, np.ndarray):
            raise ValueError("a single array")
        wanted = data.files if names is None else [name for name in data.files if name in names]
        found = {name: data[name] for name in wanted}
    except OSError:
        raise
    except Exception as error:  # of damaged bytes zipfile, its codecs and numpy say what they like
        raise ValueError(str(error) or type(error).__name__) from error
    if any(not isinstance(array, np.ndarray) for array in found.values()):
        raise ValueError("a member without an array's header")
    return found


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An open file that takes the place of ``path`` when the block ends; an error leaves all as it
    was.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(fresh, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder that takes the place of ``path`` when the block ends; an error leaves all as
    it was. Not for two processes at once on one folder.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: must be a folder, or free; a file is there.")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _tidy(path)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        for file in fresh.rglob("*"):
            _flush(file)
        _flush(fresh)
        if path.exists():
            path.rename(_aside(path))
        fresh.rename(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        _tidy(path)
        raise
    _tidy(path)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raises OSError where no file could take this name, or a folder be made for it; leaves nothing
    behind.
    """
    path = Path(path)
    if path.exists():
        open(path, "ab").close()
    else:
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=folder).close()


def present(path: str | os.PathLike[str]) -> Path:
    """Where a folder is: its own place, or aside, where a kill has stopped its replacement."""
    path = Path(path)
    aside = _aside(Path(os.path.realpath(path)))
    return aside if aside.is_dir() and not path.exists() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _tidy(path: Path) -> None:
    """Ends a replacement: puts the old folder back, or, where the new one is there, moves what it
    does not replace into it.
    """
    aside = _aside(path)
    if not aside.is_dir():
        return
    if not path.exists():
        aside.rename(path)
        return
    for left in aside.iterdir():
        if not (path / left.name).exists():
            left.rename(path / left.name)
    shutil.rmtree(aside)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
