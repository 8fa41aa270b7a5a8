"""The feature store: the cepstra of a corpus's recordings on disk, memory-mapped.

``prepare`` writes ``DIR/cepstra/NAME-KEY.npy``, float32 (frames, coeffs), for each recording. KEY
digests all that the cepstra depend on, the file's content and the settings: a file that is there is
current, a run killed at any moment is continued by the next, and only what is new or changed is
made again. ``DIR/store.json``,
written last, says which recordings the store holds: those of the last ``prepare`` that ended.
"""

import contextlib
import functools
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from seqhash import audio, decode, digests, parallel
from seqhash.config import Config, from_flat_dict, identity, override, to_flat_dict
from seqhash.corpus import Recording
from seqhash.files import replacing

STORE_VERSION = 1
_KEY_DIGITS = 16
_PIECE = 1 << 16  # frames that are turned to float64 at a time

Features = Callable[[Iterable[np.ndarray]], np.ndarray]


class StoreError(ValueError):
    """A feature store that is missing, damaged, empty, or of another version."""


class Report(NamedTuple):
    """What ``prepare`` did: ids of recordings, in order, and the files that could not be used, with
    the reason.
    """

    prepared: tuple[str, ...]
    reused: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]  # (path, reason)


class Store(NamedTuple):
    """An opened feature store; ``cepstra[i]`` belongs to ``recordings[i]``."""

    recordings: tuple[Recording, ...]
    cepstra: tuple[np.ndarray, ...]  # float32 (frames_i, coeffs), memory-mapped, read-only
    settings: dict[str, Any]
    failed: tuple[tuple[str, str], ...]  # (path, reason): files that were left out
    # SHA-256 of each recording's file; () in a store that no ``prepare`` made
    contents: tuple[str, ...] = ()


def prepare(
    recordings: Sequence[Recording],
    directory: str | os.PathLike[str],
    *,
    features: Features,
    settings: Mapping[str, Any],
    sample_rate: int,
    minimum_seconds: float,
    workers: int = 2,
    progress: bool = True,
    strict: bool = False,
    report: Callable[[audio.Flaw], None] = audio.warn,
) -> Report:
    """Makes the feature store of some recordings, or brings it up to date.

    Files are decoded ahead by ``workers`` processes, as blocks of a minute; bad ones are left out
    and listed. Every file is digested at every call, which costs about as much as reading it.

    Args:
      recordings: the store's recordings after this call; what it held of others is deleted.
      directory: of the store; made if it is not there.
      features: sample blocks of one recording -> cepstra, float32 (frames, coeffs); called in this
        thread.
      settings: all that ``features`` depends on, as JSON values; others make all cepstra anew.
      sample_rate: of the blocks, Hz.
      minimum_seconds: a shorter recording is a bad file.
      workers: decoding processes.
      progress: shows a bar, in recordings.
      strict, report: of ``audio.blocks``. What was made without ``strict`` is made anew with it.

    Raises:
      OSError: the directory cannot be written to, or the disk is full; what was made is kept for
        the next call.
    """
    if workers < 1:
        raise ValueError(f"workers must be positive, got {workers}.")
    repeated = [i for i, n in Counter(r.id for r in recordings).items() if n > 1]
    if repeated:
        raise ValueError(f"Recordings need unique ids, got several of {', '.join(repeated)}.")
    folder = Path(directory) / "cepstra"
    with _writing(directory):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # an error now, not after minutes of decoding
    strictly = ["strict"] if strict else []
    common = json.dumps(
        [STORE_VERSION, dict(settings), sample_rate, minimum_seconds, *strictly],
        sort_keys=True,
        allow_nan=False,
    )
    files, contents, failures = _plan(recordings, folder, common)
    reused = tuple(i for i, file in files.items() if _is_whole(file))
    left = files.keys() - set(reused)
    missing = [r for r in recordings if r.id in left]
    bar = tqdm(
        total=len(recordings),
        initial=len(recordings) - len(missing),
        unit="recording",
        disable=None if progress else True,
    )
    decoding = decode.decoding(
        (recording.path for recording in missing),
        sample_rate=sample_rate,
        minimum_seconds=minimum_seconds,
        workers=workers,
        strict=strict,
        report=report,
    )
    with bar, decoding as groups:
        for recording, stream in zip(missing, chain.from_iterable(groups), strict=True):
            try:
                cepstra = _cepstra(recording.path, features, stream)
            except audio.AudioError as error:
                failures[recording.id] = error.reason
            else:
                with _writing(directory), replacing(files[recording.id]) as file:
                    file.writelines([_npy_header(cepstra), cepstra.data])
            bar.update()
    failed = tuple((str(r.path), failures[r.id]) for r in recordings if r.id in failures)
    held = [(r, files[r.id], contents[r.id]) for r in recordings if r.id not in failures]
    with _writing(directory):
        with replacing(Path(directory) / "store.json") as file:
            file.write(_store_json(settings, held, failed))
        _delete_others(folder, {file.name for _, file, _ in held})
    return Report(tuple(r.id for r in missing if r.id not in failures), reused, failed)


def settings_of(config: Config) -> dict[str, Any]:
    """All that the cepstra of a config depend on, by the names of its fields."""
    return {name: value for name, value in identity(config).items() if name.startswith("mfcc.")}


def prepare_for(
    config: Config,
    recordings: Sequence[Recording],
    directory: str | os.PathLike[str],
    *,
    workers: int = 2,
    strict: bool = False,
    report: Callable[[audio.Flaw], None] = audio.warn,
) -> Report:
    """``prepare`` with the cepstra that a config asks for."""
    from seqhash import mfcc  # late, for jax

    return prepare(
        recordings,
        directory,
        features=functools.partial(mfcc.stream, config=config.mfcc),
        settings=settings_of(config),
        sample_rate=config.mfcc.sample_rate,
        minimum_seconds=mfcc.shortest_seconds(config.segment.frames, config=config.mfcc),
        workers=workers,
        strict=strict,
        report=report,
    )


def config_for(store: Store, changes: Sequence[str]) -> Config:
    """The config of a run on prepared features: what they were made with, then the changes.

    ValueError where a change asks for other features than the store has.
    """
    config = override(from_flat_dict(store.settings), changes)
    require(store, config)
    return config


def require(store: Store, config: Config) -> None:
    """ValueError, naming the fields, where a store was prepared otherwise than a config asks."""
    made = to_flat_dict(from_flat_dict(store.settings))
    other = [
        f"{name}={value}"
        for name, value in to_flat_dict(config).items()
        if name.startswith("mfcc.") and made[name] != value
    ]
    if other:
        raise ValueError(
            f"The features were prepared otherwise than {', '.join(other)}: "
            "run prepare with it first."
        )


def open_store(directory: str | os.PathLike[str]) -> Store:
    """Opens what ``prepare`` made; the cepstra stay on disk until they are used.

    Raises:
      StoreError: no store, one of another version, one without recordings, or a file of it is
        missing or damaged.
    """
    directory = Path(directory)
    try:
        stored = json.loads((directory / "store.json").read_text("utf-8"))
        version = stored["version"]
    except FileNotFoundError as error:
        raise StoreError(
            f"{directory}: there is no feature store (store.json); prepare makes one, and goes on "
            "with one that was interrupted."
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{directory}: store.json is damaged ({error}); prepare again.") from error
    if version != STORE_VERSION:
        raise StoreError(
            f"{directory}: a store of version {STORE_VERSION} expected, got {version}; "
            "prepare again."
        )
    try:
        rows = [
            (Recording(**{**r["recording"], "path": Path(r["recording"]["path"])}), r)
            for r in stored["recordings"]
        ]
        failed = tuple((str(path), str(reason)) for path, reason in stored["failed"])
        settings, shapes = dict(stored["settings"]), [(r["frames"], r["coeffs"]) for _, r in rows]
        cepstra = tuple(_load(directory / "cepstra" / r["cepstra"]) for _, r in rows)
        contents = tuple(str(r.get("content", "")) for _, r in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{directory}: the store is damaged ({error}); prepare again.") from error
    if not rows:
        reasons = "".join(f"\n{path}: {reason}" for path, reason in failed)
        raise StoreError(
            f"{directory}: the store holds no recording; {len(failed)} failed{reasons}"
        )
    if shapes != [c.shape for c in cepstra] or len({c.shape[1] for c in cepstra}) > 1:
        raise StoreError(
            f"{directory}: the store is damaged (cepstra of other shapes than listed); "
            "prepare again."
        )
    if not all(contents):
        raise StoreError(
            f"{directory}: does not say what its recordings hold, as an early version left it; "
            "prepare again (what is made is kept)."
        )
    return Store(tuple(recording for recording, _ in rows), cepstra, settings, failed, contents)


def statistics(cepstra_list: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each coefficient over all frames of all recordings, silent
    ones included.

    Two passes in float64 over pieces of the arrays, which may be memory-mapped. The deviation is
    that of the population (divided by n), and 0 for a coefficient that is constant.

    Args:
      cepstra_list: (frames_i, coeffs) each; at least one frame in all.

    Returns:
      float64 (coeffs,), float64 (coeffs,).
    """
    total = sum(len(cepstra) for cepstra in cepstra_list)
    if not total:
        raise ValueError("Statistics need at least one frame, got none.")
    mean = sum(piece.sum(axis=0) for piece in _pieces(cepstra_list)) / total
    variance = sum(((piece - mean) ** 2).sum(axis=0) for piece in _pieces(cepstra_list)) / total
    return mean, np.sqrt(variance)


def _pieces(cepstra_list: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for cepstra in cepstra_list:
        for start in range(0, len(cepstra), _PIECE):
            yield np.asarray(cepstra[start : start + _PIECE], np.float64)


def _plan(
    recordings: Sequence[Recording], folder: Path, common: str
) -> tuple[dict[str, Path], dict[str, str], dict[str, str]]:
    """By id: where the cepstra of each recording go, and the digest of its file's content; or why
    the file cannot even be opened.
    """
    contents = parallel.map_all(_content, [recording.path for recording in recordings])
    files, digested, failures = dict[str, Path](), dict[str, str](), dict[str, str]()
    for recording, content in zip(recordings, contents, strict=True):
        if isinstance(content, audio.AudioError):
            failures[recording.id] = content.reason
        else:
            digested[recording.id] = content
            files[recording.id] = folder / _cepstra_name(recording.id, content, common)
    return files, digested, failures


def _cepstra(path: Path, features: Features, stream: decode.Stream) -> np.ndarray:
    samples = iter(stream)
    cepstra = np.ascontiguousarray(features(samples))
    for _ in samples:  # what ``features`` left: only at the end is a file known to be good
        pass
    if cepstra.ndim != 2 or cepstra.dtype != np.float32:
        raise ValueError(
            f"features must return float32 (frames, coeffs), got {cepstra.dtype} {cepstra.shape}."
        )
    if not cepstra.size:
        raise audio.AudioError(path, "too short: not one frame")
    if not np.isfinite(cepstra).all():
        raise audio.AudioError(path, "its cepstra are not finite: samples far outside [-1, 1]?")
    return cepstra


def _content(path: Path) -> str | audio.AudioError:
    try:
        if path.is_dir():
            os.scandir(path).close()  # one that cannot be read says why
        if not path.is_file():
            return audio.AudioError(path, "no such file")
        return digests.of_file(path)
    except OSError as error:
        return audio.AudioError(path, f"cannot be read ({error.strerror})")


def _cepstra_name(recording_id: str, content: str, common: str) -> str:
    """The name of its cepstra: readable, and with a key of the content and of all that they depend
    on.
    """
    key = digests.of([recording_id, content, common])[:_KEY_DIGITS]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', recording_id)[:80]}-{key}.npy"


def _load(file: Path) -> np.ndarray:
    try:
        cepstra = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"{file.name}: {error}") from error
    if (
        cepstra.ndim != 2
        or cepstra.dtype != np.float32
        or cepstra.offset + cepstra.nbytes != file.stat().st_size
    ):
        raise StoreError(f"{file.name}: not a whole float32 (frames, coeffs) array")
    return cepstra


def _is_whole(file: Path) -> bool:
    try:
        _load(file)
    except StoreError:
        return False
    return True


def _npy_header(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    return file.getvalue()


def _store_json(
    settings: Mapping[str, Any],
    held: Iterable[tuple[Recording, Path, str]],
    failed: Sequence[tuple[str, str]],
) -> bytes:
    rows = []
    for recording, file, content in held:
        frames, coeffs = _load(file).shape
        as_json = {**vars(recording), "path": str(recording.path), "extra": dict(recording.extra)}
        row = {"recording": as_json, "content": content, "cepstra": file.name}
        rows.append({**row, "frames": frames, "coeffs": coeffs})
    stored = {
        "version": STORE_VERSION,
        "settings": dict(settings),
        "recordings": rows,
        "failed": failed,
    }
    return json.dumps(stored, indent=1).encode()


def _delete_others(folder: Path, names: set[str]) -> None:
    ours = re.compile(rf".*-[0-9a-f]{{{_KEY_DIGITS}}}\.npy(\.\d+\.tmp)?")
    for file in folder.iterdir():
        if file.name not in names and ours.fullmatch(file.name):
            file.unlink()


@contextlib.contextmanager
def _writing(directory: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"The feature store {directory} cannot be written: {error.strerror or error}"
        raise OSError(error.errno, message) from error
