import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from seqhash import digests
from seqhash.corpus import Recording
from seqhash.features import Store


def recording(number: int, work: str = "", role: str = "") -> Recording:
    return Recording(f"r{number}", Path(f"/a/r{number}.wav"), work, role, "", "", {})


def test_files_are_digested_and_one_that_cannot_be_read_is_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    found = digests.of_files([tmp_path / "a", tmp_path / "gone", tmp_path])
    assert found == [hashlib.sha256(b"abc").hexdigest(), "", ""]


def test_a_corpus_is_its_content_and_who_covers_whom():
    recordings = [recording(0, "w", "original"), recording(1, "w", "cover"), recording(2)]
    contents = ["aa", "bb", "cc"]
    digest = digests.of_corpus(recordings, contents)
    renamed = [
        dataclasses.replace(r, id=f"b{r.id}", path=Path("/b"), title="x", work=f"b{r.work}")
        for r in recordings[:2]
    ]
    renamed.append(dataclasses.replace(recordings[2], id="a2", path=Path("/c")))
    assert digests.of_corpus(renamed, contents) == digest
    assert digests.of_corpus(recordings, ["aa", "bb", "dd"]) != digest
    assert digests.of_corpus(recordings, ["bb", "aa", "cc"]) != digest
    swapped = [recording(0, "w", "cover"), recording(1, "w", "original"), recording(2)]
    assert digests.of_corpus(swapped, contents) != digest
    apart = [recording(0, "w", "original"), recording(1, "v", "cover"), recording(2)]
    assert digests.of_corpus(apart, contents) != digest


def test_a_store_made_by_hand_is_known_by_its_frames():
    rng = np.random.default_rng(0)
    cepstra = tuple(rng.standard_normal((n, 2)).astype(np.float32) for n in (3, 0, 5))
    store = Store(tuple(map(recording, range(3))), cepstra, {}, ())
    expected = [hashlib.sha256(frames.tobytes()).hexdigest() for frames in cepstra]
    assert digests.of_store(store) == expected
    assert digests.of_store(store._replace(contents=("aa", "bb", "cc"))) == ["aa", "bb", "cc"]
