"""Several indexes asked as one, by searchers that answer as they are told."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from seqhash.index import catalogue, together
from seqhash.index.identify import Match, Survey

IDENTITY = catalogue.Identity("fake", "ab" * 32, 4.0, 1, 8_000)


def entry(path, digest):
    return catalogue.Entry(str(path), f"{digest:064x}", np.zeros((4, 1), np.uint32), 1.0)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Two indexes: one recording of each own, and one that both have."""
    (tmp_path / "there.wav").touch()
    for name, entries in {
        "a": [entry(tmp_path / "gone.wav", 1), entry(tmp_path / "other.wav", 2)],
        "b": [entry(tmp_path / "elsewhere.wav", 1), entry(tmp_path / "gone_too.wav", 3)],
    }.items():
        with catalogue.open_index(tmp_path / name, identity=IDENTITY, create=True) as index:
            index.add(entries, [catalogue.File(str(tmp_path / "there.wav"), f"{1:064x}")])

    def open_searcher(path, hasher, *, false_positive_rate, everywhere):
        with catalogue.open_index(path, readonly=True) as index:
            rows = index.rows()
        return SimpleNamespace(rows=rows, false_positive_rate=false_positive_rate, path=path)

    monkeypatch.setattr(together, "open_searcher", open_searcher)
    paths = [str(tmp_path / name) for name in ("a", "b", "a")]
    return together.open_together(
        paths, lambda path: SimpleNamespace(digest="x"), false_positive_rate=0.01
    )


def test_several_indexes_answer_as_seldom_as_one_and_name_what_is_there(opened, tmp_path):
    assert [s.false_positive_rate for s in opened.searchers.values()] == [0.005, 0.005]
    assert {s.false_positive_rate for s in opened.at_rate(0.1).searchers.values()} == {0.05}
    assert [s.false_positive_rate for s in opened.searchers.values()] == [0.005, 0.005]

    def question(searcher):
        scores = [5.0, 3.0] if searcher.path.endswith("a") else [6.0, 4.0]
        rows = zip(searcher.rows, scores, strict=True)
        found = [Match(row.id, row.path, "", 0, 1, 0, 0, 0.0, score) for row, score in rows]
        return Survey(found, found[1:], 2.3)

    answer = opened.ask(question)
    lower = math.log10(2)
    facts = [found.facts() for found in answer.matches]
    assert [(f["index"][-1], f["path"], f["gone"]) for f in facts] == [
        ("b", str(tmp_path / "there.wav"), False),
        ("b", str(tmp_path / "gone_too.wav"), True),
        ("a", str(tmp_path / "other.wav"), True),
    ]
    assert [f["score"] for f in facts] == pytest.approx([6 - lower, 4 - lower, 3 - lower])
    assert len(answer.misses) == 2
    assert answer.needed == pytest.approx(2.3 - lower)
