"""Recordings follow their files: a collection, changed in every way that people change one."""

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from seqhash import corpus
from seqhash.index import catalogue, follow, ingest
from tests.test_ingest import add, fake_hasher, write

RATE = 16_000


class Collection(NamedTuple):
    """A folder of four recordings, and what adds them and asks."""

    folder: Path
    index: Path

    def add(self, *items, **options):
        """What ``add_files`` says: it is another process's."""
        identity = catalogue.Identity.of(telling())
        with catalogue.open_index(self.index, identity=identity, create=True) as store:
            return add(store, telling, items or [self.folder], **options)

    def there(self):
        """(id, title) by name."""
        with catalogue.open_index(self.index, readonly=True) as store:
            assert store.verify() == []
            rows = store.rows()
        assert len({row.path for row in rows}) == len(rows)  # one entry a file
        return {Path(row.path).name: (row.id, row.title) for row in rows}


def telling():
    """A hasher whose codes tell one sound from another."""

    def words(samples):
        blocks = samples[: len(samples) // 4000 * 4000].reshape(-1, 4000)
        return np.tile((1e6 * np.abs(blocks).sum(axis=1)).astype(np.uint32)[:, None], (1, 4))

    return fake_hasher(words)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    collection = Collection(tmp_path_factory.mktemp("music"), tmp_path_factory.mktemp("i") / "i")
    for i in range(4):
        write(collection.folder / f"{i}.flac", 2.0, seed=i, title=f"Song {i}")
    assert collection.add()[:3] == (4, 0, [])
    return collection


@pytest.fixture
def music(made, tmp_path):
    """A copy that a test may change, at another place: every file has moved."""
    shutil.copytree(made.folder, tmp_path / "music")
    return Collection(tmp_path / "music", Path(shutil.copy(made.index, tmp_path / "i")))


def alone(music):
    """Has the index know of the copy alone."""
    music.add()
    with catalogue.open_index(music.index) as store:
        for row in store.rows():
            store.move({row.id: str(music.folder / Path(row.path).name)}, {}, (), [row.path])
    return music


def stopped_before_it_follows(music):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.follow, "follow", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            music.add()


def test_a_file_that_is_moved_retagged_or_both_keeps_its_entry(music):
    before = alone(music).there()
    (music.folder / "deep").mkdir()
    (music.folder / "0.flac").rename(music.folder / "deep" / "moved.flac")
    write(music.folder / "1.flac", 2.0, seed=1, title="Other")
    (music.folder / "2.flac").unlink()
    write(music.folder / "both.flac", 2.0, seed=2, title="Both")
    counts = music.add()
    assert counts[:3] == (0, 2, [])
    names = [[Path(path).name for path in paths] for paths in counts.followed]
    assert [sorted(paths) for paths in names] == [["0.flac"], ["1.flac", "2.flac"], [], []]
    assert music.there() == {
        "moved.flac": before["0.flac"],
        "1.flac": (before["1.flac"][0], "Other"),
        "both.flac": (before["2.flac"][0], "Both"),
        "3.flac": before["3.flac"],
    }
    assert music.add()[1:] == (4, [], ([], [], [], []))


def test_an_add_that_is_stopped_before_it_follows_loses_no_entry(music):
    before = alone(music).there()
    write(music.folder / "1.flac", 2.0, seed=1, title="Other")
    stopped_before_it_follows(music)
    assert music.add() == (0, 4, [], ([], [str(music.folder / "1.flac")], [], []))
    assert music.there() == before | {"1.flac": (before["1.flac"][0], "Other")}


def test_a_file_that_is_retagged_again_after_a_stopped_add_keeps_its_entry(music):
    before = alone(music).there()
    write(music.folder / "1.flac", 2.0, seed=1, title="Other")
    stopped_before_it_follows(music)
    write(music.folder / "2b.flac", 2.0, seed=1, title="Another")
    (music.folder / "1.flac").unlink()
    music.add()
    assert music.there() == {name: before[name] for name in ("0.flac", "2.flac", "3.flac")} | {
        "2b.flac": (before["1.flac"][0], "Another")
    }


def test_a_copy_takes_the_place_of_a_file_that_is_gone(music):
    before = music.there()
    assert music.add()[1:] == (4, [], ([], [], [], []))  # copies, elsewhere than those added
    assert music.there() == before
    alone(music)
    shutil.copy(music.folder / "0.flac", music.folder / "copy.flac")
    assert music.add()[1:] == (5, [], ([], [], [], []))
    (music.folder / "0.flac").unlink()
    assert music.add().followed == ([str(music.folder / "0.flac")], [], [], [])
    assert music.there()["copy.flac"] == before["0.flac"]


def test_swapped_names_and_a_new_file_under_an_old_name(music):
    before = alone(music).there()
    (music.folder / "0.flac").rename(music.folder / "x.flac")
    (music.folder / "1.flac").rename(music.folder / "0.flac")
    (music.folder / "x.flac").rename(music.folder / "1.flac")
    (music.folder / "2.flac").rename(music.folder / "old.flac")
    write(music.folder / "2.flac", 2.0, seed=8, title="New")
    write(music.folder / "3.flac", 2.5, seed=9, title="Newer")
    counts = music.add()
    assert counts[:3] == (2, 3, [])
    assert [Path(path).name for path in counts.followed.replaced] == ["3.flac"]
    after = music.there()
    assert (after["0.flac"], after["1.flac"]) == (before["1.flac"], before["0.flac"])
    assert after["old.flac"] == before["2.flac"]
    assert {after[name][1] for name in ("2.flac", "3.flac")} == {"New", "Newer"}
    assert len(after) == 5


def test_what_is_gone_is_told_and_pruned_where_it_was_looked_for(music):
    before = alone(music).there()
    (music.folder / "0.flac").unlink()
    (music.folder / "1.flac").unlink()
    assert len(music.add().followed.gone) == 2
    assert music.there() == before
    elsewhere = write(music.folder.parent / "elsewhere" / "e.flac", seed=7)
    assert music.add(elsewhere.parent, prune=True).followed.gone == []
    counts = music.add(prune=True)
    assert sorted(Path(path).name for path in counts.followed.gone) == ["0.flac", "1.flac"]
    assert music.there().keys() == {"2.flac", "3.flac", "e.flac"}
    for name in ("2.flac", "3.flac"):  # as of a disk that is not there: nothing is removed
        (music.folder / name).unlink()
    with pytest.raises(corpus.ManifestError, match="no audio files below it"):
        music.add(prune=True)
    assert music.add(music.folder, elsewhere, prune=True)[:3] == (0, 1, [])
    assert len(music.there()) == 3


def test_a_file_that_cannot_be_looked_at_is_not_gone(music, monkeypatch):
    alone(music)
    hidden = str(music.folder / "0.flac")
    stat = os.stat

    def refused(path, *arguments, **options):
        if str(path) == hidden:
            raise PermissionError(13, "Permission denied", hidden)
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert not follow.is_gone(hidden)
    assert follow.is_gone(hidden + ".not")
    assert follow.is_gone(hidden + "/not")


def test_what_lay_in_a_folder_that_is_not_there_stays(music):
    """As of a disk that is unplugged, whose mount point goes with it."""
    alone(music)
    away = music.folder.rename(music.folder.with_name("away"))
    counts = music.add(prune=True)
    assert (len(counts.failed), counts.followed.gone) == (1, [])
    away.rename(music.folder)
    (music.folder / "0.flac").unlink()
    counts = music.add(music.folder / "0.flac", prune=True)  # a file that is named is gone
    assert counts.followed.gone == [str(music.folder / "0.flac")]
    assert music.there().keys() == {"1.flac", "2.flac", "3.flac"}


def test_a_disk_that_answers_now_and_then_loses_nothing(music, monkeypatch):
    """What was moved is not pruned where its old path could not be looked at just then."""
    alone(music)
    (music.folder / "0.flac").rename(music.folder / "moved.flac")
    real, failed = os.stat, []

    def once(path, *arguments, **options):
        if str(path) == str(music.folder / "0.flac") and not failed:
            failed.append(path)
            raise OSError(5, "Input/output error", path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", once)
    music.add(prune=True)
    assert failed
    assert len(music.there()) == 4
    assert music.add(prune=True).followed.moved == [str(music.folder / "0.flac")]


def test_two_entries_of_one_path_that_an_older_version_left_become_one(music):
    alone(music)
    with catalogue.open_index(music.index) as store:
        row = store.rows()[0]
        (words,) = store.words_of([row.id])
        entry = catalogue.Entry(row.path, "ab" * 32, words[:3], 1.0, title="Old")
        assert store.add([entry]) == [True]
    (music.folder / "0.flac").touch()  # so that it is looked at
    assert len(music.add().followed.replaced) == 1
    assert len(music.there()) == 4


def test_nothing_new_is_looked_at_twice_and_no_hasher_is_loaded(music, monkeypatch):
    alone(music)
    (music.folder / "text.mp3").write_text("not music")
    for path in music.folder.iterdir():
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(ingest, "_SETTLED_SECONDS", 0.0)  # files are seconds old here
    reason = music.add().failed[0][1]
    monkeypatch.setattr(ingest, "_digest", lambda path: pytest.fail(f"{path} was read"))
    identity = catalogue.Identity.of(telling())
    with catalogue.open_index(music.index, identity=identity) as store:
        counts = add(store, lambda: pytest.fail("the hasher was loaded"), [music.folder])
    assert counts[:3] == (0, 4, [(str(music.folder / "text.mp3"), reason)])


def test_what_could_not_be_read_is_tried_again_by_another_reader(music, monkeypatch):
    alone(music)
    (music.folder / "text.mp3").write_text("not music")
    assert len(music.add().failed) == 1
    monkeypatch.setattr(ingest, "reader", lambda **_: "one that reads more")
    asked = []
    monkeypatch.setattr(ingest, "_hash", lambda _, jobs, *rest: asked.extend(jobs))
    music.add()
    assert [job.recording.path.name for job in asked] == ["text.mp3"]


def test_a_file_that_changes_under_the_same_size_and_time_is_seen(music):
    path = alone(music).folder / "0.flac"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[data.index(b"Song 0") + 5] = ord("7")
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert music.add().followed.retagged == [str(path)]
    assert music.there()["0.flac"][1] == "Song 7"


def test_a_clock_that_is_set_back_loses_nothing(music, monkeypatch):
    """Files of a time to come, and a year's step back between two adds."""
    alone(music)
    now, future = time.time(), time.time() + 1e7
    for path in music.folder.iterdir():
        os.utime(path, (future, future))
    assert music.add()[1:] == (4, [], ([], [], [], []))
    monkeypatch.setattr(ingest.time, "time", lambda: now - 3e7)
    before = music.there()
    write(music.folder / "1.flac", 2.0, seed=1, title="Sonh 1")  # of the same size
    write(music.folder / "2.flac", 2.0, seed=8)
    (music.folder / "3.flac").rename(music.folder / "moved.flac")
    write(music.folder / "new.flac", 2.0, seed=9)
    for path in music.folder.iterdir():
        os.utime(path, (future, future))
    counts = music.add()
    assert (counts.added, counts.failed) == (2, [])
    names = [[Path(path).name for path in paths] for paths in counts.followed]
    assert names == [["3.flac"], ["1.flac"], ["2.flac"], []]
    after = music.there()
    assert after["1.flac"] == (before["1.flac"][0], "Sonh 1")
    assert (after["0.flac"], after["moved.flac"]) == (before["0.flac"], before["3.flac"])
    assert len(after) == 5
    assert music.add()[1:] == (5, [], ([], [], [], []))


def test_what_another_process_removes_meanwhile_is_left_out(music):
    alone(music)
    with catalogue.open_index(music.index) as store:
        one, two, three, four = (row.id for row in store.rows())
        store.remove([one, two])
        store.move({one: "/x", three: "/y"}, {two: four, four: one}, [two])
        assert {row.id: row.path for row in store.rows()}[three] == "/y"
        assert store.verify() == []
        assert len(store.rows()) == 2
