"""What recordings are known by: their content. Ids, paths and titles are for people.

Other audio under the same names is another corpus, and a copy under other names is the same one.
The content of a recording is the SHA-256 of its file, so a copy with other tags, or coded anew, is
another recording.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from seqhash.corpus import Recording
    from seqhash.features import Store

THREADS = 4  # that read files; digesting leaves other threads alone


def of(value: Any) -> str:
    """SHA-256 of a JSON value, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, hexadecimal; OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_files(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """``of_file`` of each; empty for one that cannot be read."""

    def one(path: str | os.PathLike[str]) -> str:
        try:
            return of_file(path)
        except OSError:
            return ""

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, paths))


def of_store(store: "Store") -> list[str]:
    """Content of each recording of a feature store; in one that no ``prepare`` made, its frames
    stand for it.
    """
    if store.contents:
        return list(store.contents)
    return [
        hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest() for frames in store.cepstra
    ]


def of_corpus(recordings: "Sequence[Recording]", contents: Sequence[str]) -> str:
    """Of what is measured on a corpus: the contents in order, which share a work, and the roles."""
    works = np.unique([r.work or r.id for r in recordings], return_inverse=True)[1]
    roles = [r.role for r in recordings]
    return of([list(contents), works.tolist(), roles])
