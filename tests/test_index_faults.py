"""index.py when things go wrong: kills, full disks, two writers, readers meanwhile, files that are
no index.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seqhash.index import catalogue, exchange
from seqhash.index.catalogue import Entry, Identity, IndexFileError, delete_empty, open_index

ROOT = Path(__file__).parents[1]
IDENTITY = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)
KILLS = int(os.environ.get("SEQHASH_KILLS", "15"))  # of a writer, at random moments

# A writer: adds recordings first, first + 1, ... last - 1 in groups, says which after each commit.
# No jax: starts fast.
WRITER = """
import sys, time
import numpy as np
from seqhash.index.catalogue import Entry, Identity, open_index

def entry(i):  # as _entry
    words = np.random.default_rng(i).integers(0, 2**32, (i * 7919 % 2000, 4), np.uint32)
    metadata = {"n": str(i)}
    return Entry(f"/music/{i}.flac", f"{i:064x}", words, float(i), f"title {i}", metadata=metadata)

path, first, last, group, pause = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
if len(sys.argv) > 6:  # bytes that a file may have
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[6]),) * 2)
print("ready", flush=True)
sys.stdin.readline()
identity = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)
with open_index(path, identity=identity, create=True) as index:
    there = index.known(f"{i:064x}" for i in range(first, last))
    todo = [i for i in range(first, last) if f"{i:064x}" not in there]
    for start in range(0, len(todo), group):
        ids = todo[start : start + group]
        new = index.add([entry(i) for i in ids])
        print(*(i if added else -i for i, added in zip(ids, new)), flush=True)
        time.sleep(pause)
"""


def _entry(i: int) -> Entry:
    words = np.random.default_rng(i).integers(0, 2**32, (i * 7919 % 2000, 4), np.uint32)
    return Entry(
        f"/music/{i}.flac", f"{i:064x}", words, float(i), f"title {i}", metadata={"n": str(i)}
    )


def _make(path: Path, ids=()) -> Path:
    with open_index(path, identity=IDENTITY, create=True) as opened:
        opened.add(map(_entry, ids))
    return path


@contextlib.contextmanager
def _writer(
    path: Path, first: int, last: int, group: int, *, pause=0.0, limit: int | None = None
) -> Iterator[subprocess.Popen]:
    """A writer that waits for a line on its standard input; killed at the end if it still runs."""
    command = [
        sys.executable,
        "-c",
        WRITER,
        str(path),
        *map(str, (first, last, group, pause, *([limit] if limit else []))),
    ]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def _start(process: subprocess.Popen) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def _check(path: Path) -> set[int]:
    """The recordings that are there, after a look at every byte of them."""
    with open_index(path, identity=IDENTITY, readonly=True) as opened, opened.snapshot():
        assert opened.verify() == []
        rows, collection = opened.rows(), opened.load()
    numbers = [int(row.metadata["n"]) for row in rows]
    assert len(set(numbers)) == len(numbers)
    for row, n, start, end in zip(
        rows, numbers, collection.starts[:-1], collection.starts[1:], strict=True
    ):
        expected = _entry(n)
        assert (row.path, row.digest, row.title) == (expected.path, expected.digest, expected.title)
        np.testing.assert_array_equal(collection.words[start:end], expected.words)
    return set(numbers)


# Kills.


def _is_made(path: Path) -> bool:
    """Whether a writer came so far as to make the tables; opening undoes what was done of that."""
    if path.exists():
        with contextlib.suppress(IndexFileError), open_index(path, readonly=True):
            return True
        assert path.stat().st_size == 0
    return False


def kill_writers(
    path: Path, *, kills: int, seed: int, group: int = 3, longest: float = 0.1
) -> tuple[int, int]:
    """Kills writers at random moments, checking after each; then lets one end. Kills and hot
    journals seen.
    """
    random = np.random.default_rng(seed)
    reported: set[int] = set()
    last, hot = group * 12 * kills, 0  # more than they add
    for _ in range(kills):
        with _writer(path, 0, last, group) as process:
            _start(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0, longest))
            process.kill()
            output, errors = process.communicate()
        assert errors == ""
        numbers = [int(word) for line in output.split("\n")[:-1] for word in line.split()]
        assert all(n >= 0 for n in numbers), "what was known was added again"
        reported.update(numbers)
        hot += Path(f"{path}-journal").exists()
        if reported or _is_made(path):
            there = _check(path)
            assert reported <= there
            assert len(there - reported) in (0, group)  # committed, killed before it said so
            assert there == set(range(len(there)))  # groups are whole, and the order is kept
            assert len(there) % group == 0
            reported = there
    with _writer(path, 0, last, group) as process:
        output, errors = process.communicate("go\n", timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert [int(word) for word in output.split()] == list(
        range(len(reported), last)
    )  # goes on where it stopped
    assert _check(path) == set(range(last))
    return kills, hot


@pytest.mark.slow
def test_kills(tmp_path):
    kill_writers(tmp_path / "i", kills=KILLS, seed=11)


def _hot(path: Path, folder: Path) -> Path:
    """A copy as a kill in the middle of a transaction leaves it: changed pages in the file, old
    ones in the journal.
    """
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA cache_size = 1")
        db.execute("PRAGMA cache_spill = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE codes SET words = zeroblob(length(words))")
        db.execute("DELETE FROM recordings WHERE id > 2")
        folder.mkdir()
        for name in (path.name, f"{path.name}-journal"):
            shutil.copy(path.with_name(name), folder / name)
        db.execute("ROLLBACK")
    finally:
        db.close()
    return folder / path.name


@pytest.mark.parametrize("readonly", [False, True])
def test_a_half_written_transaction_is_undone(tmp_path, readonly):
    path = _make(tmp_path / "i", range(1, 9))
    copy = _hot(path, tmp_path / "copy")
    assert copy.read_bytes() != path.read_bytes()
    with open_index(copy, readonly=readonly) as opened:
        assert len(opened.rows()) == 8
    assert _check(copy) == set(range(1, 9))
    assert os.listdir(tmp_path / "copy") == ["i"]


@pytest.mark.parametrize("mode", ["delete", "wal"])  # WAL: someone has turned the file to it
def test_the_journal_is_a_file_that_is_synced(tmp_path, monkeypatch, mode):
    """A kill is seldom fast enough to tell, and a power cut cannot be had."""
    path = _make(tmp_path / "i", [1])
    db = sqlite3.connect(path)
    assert db.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
    db.close()
    insert, seen = catalogue._insert, []

    def watched(*arguments):
        new = insert(*arguments)
        seen.append(sorted(os.listdir(tmp_path)))
        return new

    monkeypatch.setattr(catalogue, "_insert", watched)
    with open_index(path) as opened:
        assert opened.add([_entry(2)]) == [True]
        assert opened._connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert seen == [["i", "i-journal"]]
    assert os.listdir(tmp_path) == ["i"]
    assert path.read_bytes()[18:20] == b"\1\1"  # not WAL


@pytest.mark.slow
def test_killed_while_it_was_made(tmp_path):
    """SQLite makes the file first, empty, and fills it in one transaction."""
    path = tmp_path / "i"
    path.touch()
    with pytest.raises(
        IndexFileError,
        match="i: empty, as an interrupted 'seqhash add' may leave it; run that again",
    ):
        open_index(path)
    _make(path, [1])
    assert _check(path) == {1}


def test_an_error_in_the_middle_of_a_group_adds_none_of_it(tmp_path, monkeypatch):
    """Whatever it is: Ctrl-C between two recordings."""
    path = _make(tmp_path / "i", [1])
    insert, calls = catalogue._insert, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return insert(*arguments)

    monkeypatch.setattr(catalogue, "_insert", interrupted)
    with open_index(path) as opened:
        with pytest.raises(KeyboardInterrupt):
            opened.add(map(_entry, range(2, 6)))
        assert len(opened.rows()) == 1
        assert opened.add([_entry(2)]) == [True]
    assert _check(path) == {1, 2}


def test_a_merge_goes_on(tmp_path, monkeypatch):
    ours, theirs = _make(tmp_path / "a"), _make(tmp_path / "b", range(10))
    monkeypatch.setattr(exchange, "GROUP", 3)
    with open_index(ours) as opened:
        add, calls = opened.add, []

        def interrupted(entries):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return add(entries)

        monkeypatch.setattr(opened, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            exchange.merge(opened, theirs)
        assert _check(ours) == set(range(6))
        assert exchange.merge(opened, theirs) == (4, 6)
    assert _check(ours) == set(range(10))


# A full disk.


def test_disk_full(tmp_path):
    """By a limit on the file's size, which writing meets in another process as it would the disk's
    end.
    """
    path = _make(tmp_path / "i", range(1, 5))
    size = path.stat().st_size

    with _writer(path, 0, 200, 3, limit=size + 200_000) as process:
        output, errors = process.communicate("go\n", timeout=60)
    reported = [int(word) for word in output.split()]
    assert process.returncode == 1
    assert (
        f"IndexFileError: {path}: reading or writing failed; what was added before is kept. "
        "If the disk" in errors
    )
    assert 0 < len(reported) < 100
    assert _check(path) == {*range(1, 5), *reported}
    with _writer(path, 0, 30, 3) as process:  # the same command again, with space
        process.communicate("go\n", timeout=60)
    assert _check(path) >= set(range(30))


def test_full_by_sqlite(tmp_path):
    path = _make(tmp_path / "i", range(1, 5))
    with open_index(path) as opened:
        opened._connection.execute("PRAGMA max_page_count = 40")
        with pytest.raises(
            IndexFileError, match="i: the disk is full; what was added before is kept"
        ):
            opened.add(map(_entry, range(5, 40)))
        assert len(opened.rows()) == 4
        opened._connection.execute("PRAGMA max_page_count = 4000000")
        assert opened.add([_entry(5)]) == [True]
    assert _check(path) == set(range(1, 6))


def test_no_space_for_an_export(tmp_path):
    """The file that was there stays, nothing half-written is left."""
    path = _make(tmp_path / "i", range(1, 9))
    (tmp_path / "x.npz").write_text("older")
    code = (
        "import sys, resource; from seqhash.index import exchange\n"
        "from seqhash.index.catalogue import open_index\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "exchange.export_npz(open_index(sys.argv[1], readonly=True), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "x.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (
        "x.npz: cannot be written (File too large); mend that, or name another file." in done.stderr
    )
    assert (tmp_path / "x.npz").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["i", "x.npz"]


# Several processes at once.


def test_two_writers(tmp_path):
    """One adds 0 .. 119, the other 60 .. 179: each recording once, by whoever came first."""
    path = tmp_path / "i"
    with _writer(path, 0, 120, 2) as one, _writer(path, 60, 180, 2) as other:
        _start(one)
        _start(other)
        outputs = [process.communicate(timeout=60) for process in (one, other)]
    assert [(one.returncode, other.returncode), *(errors for _, errors in outputs)] == [
        (0, 0),
        "",
        "",
    ]
    new = [
        int(word) for output, _ in outputs for word in output.split() if not word.startswith("-")
    ]
    assert sorted(new) == list(range(180))
    assert _check(path) == set(range(180))


def test_made_by_another_while_it_is_looked_at(tmp_path, monkeypatch):
    """What tells an empty file from a foreign one is read at one moment."""
    monkeypatch.setattr(catalogue, "BUSY_SECONDS", 0.05)
    path, pragma, tried = tmp_path / "i", catalogue._pragma, []

    def interrupted(db, name):
        value = pragma(db, name)
        if not tried:
            tried.append(name)
            with contextlib.suppress(IndexFileError):  # has to wait
                _make(path, [1])
        return value

    monkeypatch.setattr(catalogue, "_pragma", interrupted)
    _make(path, [2])
    assert tried
    assert _check(path) >= {2}


def test_a_reader_during_a_write(tmp_path):
    path = _make(tmp_path / "i")
    sizes = []
    with _writer(path, 0, 120, 3, pause=0.02) as process, open_index(path, readonly=True) as opened:
        _start(process)
        while process.poll() is None:
            sizes.append(len(_check(path)))
            assert (
                len(opened.load().ids) % 3 == 0
            )  # whole transactions, through a connection that stays open too
        process.communicate(timeout=60)
    assert all(size % 3 == 0 for size in sizes)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3  # it did read meanwhile


def test_a_writer_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "BUSY_SECONDS", 0.1)
    path = _make(tmp_path / "i", [1])
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with open_index(path) as opened:
            with pytest.raises(
                IndexFileError, match=r"i: another process has been using it for 0.1 s; wait"
            ):
                opened.add([_entry(2)])
            assert len(opened.rows()) == 1  # reading goes on
            other.execute("ROLLBACK")
            assert opened.add([_entry(2)]) == [True]
    finally:
        other.close()


def test_another_thread_is_told(tmp_path):
    messages = []
    with open_index(_make(tmp_path / "i", [1])) as opened:

        def use():
            try:
                opened.rows()
            except IndexFileError as error:
                messages.append(str(error))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert (
        "i: SQLite objects created in a thread can only be used in that same thread" in messages[0]
    )


# Files that are no index.


def _other_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recordings (id)")
    db.commit()
    db.close()


def _cut(path: Path, *, keep: float) -> None:
    _make(path, range(1, 9))
    os.truncate(path, round(path.stat().st_size * keep))


FOREIGN = {
    "text": (
        lambda path: path.write_text("Dear diary, " * 100),
        "not a seqhash index; name another file",
    ),
    "short": (lambda path: path.write_text("Hi!"), "not a seqhash index; name another file"),
    "wav": (
        lambda path: path.write_bytes(b"RIFF" + bytes(2_000)),
        "not a seqhash index; name another file",
    ),
    "database": (
        _other_database,
        "an SQLite database of something else, not a seqhash index; name another file",
    ),
    "cut short": (
        lambda path: _cut(path, keep=0.7),
        "damaged or cut short, or not to be read from its disk; run the",
    ),
    "cut to a page": (
        lambda path: _cut(path, keep=0.02),
        "damaged or cut short, or not to be read from its disk; run the",
    ),
    "folder": (lambda path: path.mkdir(), "a folder; name a file, such as .*i/music.index"),
    "pipe": (os.mkfifo, "not a regular file; name another one"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize(
    "arguments", [{}, {"readonly": True}, {"identity": IDENTITY, "create": True}]
)
def test_foreign_files_are_refused_and_kept(tmp_path, kind, arguments):
    make, reason = FOREIGN[kind]
    path = tmp_path / "i"
    make(path)
    content = path.read_bytes() if path.is_file() else b""
    with pytest.raises(IndexFileError, match=f"^{path}: {reason}"):
        open_index(path, **arguments)
    assert (path.read_bytes() if path.is_file() else b"") == content
    assert os.listdir(tmp_path) == ["i"]


def test_nothing_there(tmp_path):
    for path, create, reason in (
        (tmp_path / "i", False, "no such index; 'seqhash add' makes one"),
        (tmp_path / "folder" / "i", False, "no such index"),
        (tmp_path / "folder" / "i", True, "its folder is not there; make it first"),
        (
            _make(tmp_path / "file") / "i",
            True,
            "cannot be opened .*Not a directory.*; check the path",
        ),
        (tmp_path / ("x" * 300), True, "cannot be opened .*File name too long"),
        (tmp_path / "a\0b", True, "cannot be opened .*null"),
    ):
        with pytest.raises(IndexFileError, match=reason):
            open_index(path, identity=IDENTITY, create=create)
    assert os.listdir(tmp_path) == ["file"]


def test_cut_short_while_it_is_open(tmp_path):
    path = _make(tmp_path / "i", range(1, 30))
    with open_index(path) as opened:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(IndexFileError, match="i: damaged or cut short"):
            opened.load()
        assert any("damaged" in problem for problem in opened.verify())


# What cannot be written.


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A folder of a user who is not root, since for root nothing is read-only; this process is that
    user meanwhile.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65_534, 65_534)
            os.seteuid(65_534)
        try:
            if not catalogue._writable(folder):
                pytest.skip(f"{folder.parent} is closed to other users")
            yield folder
        finally:
            os.chmod(folder, 0o700)
            if root:
                os.seteuid(0)


def test_a_readonly_folder(guarded):
    path = _make(guarded / "i", range(1, 5))
    folder_of_hot = _hot(path, guarded / "hot").parent
    guarded.chmod(0o500)
    assert _check(path) == set(range(1, 5))  # opens it for reading only
    for arguments in ({}, {"identity": IDENTITY, "create": True}):
        with pytest.raises(
            IndexFileError,
            match="i: its folder cannot be written, and writing needs a file beside it",
        ):
            open_index(path, **arguments)
    with pytest.raises(IndexFileError, match="new: its folder cannot be written"):
        open_index(guarded / "new", identity=IDENTITY, create=True)
    with (
        open_index(path, readonly=True) as opened,
        pytest.raises(IndexFileError, match=r"x: cannot be written .Perm"),
    ):
        exchange.export_npz(opened, guarded / "x")
    folder_of_hot.chmod(0o500)
    with pytest.raises(
        IndexFileError, match=r"i: reading or writing failed; .* or the folder not writable"
    ):
        open_index(folder_of_hot / "i", readonly=True)
    folder_of_hot.chmod(0o700)
    assert _check(folder_of_hot / "i") == set(range(1, 5))


def test_a_folder_that_becomes_readonly(guarded):
    path = _make(guarded / "i", [1])
    with open_index(path) as opened:
        guarded.chmod(0o500)
        with pytest.raises(IndexFileError, match=r"i: it cannot be (written|opened), .*permission"):
            opened.add([_entry(2)])
        assert len(opened.rows()) == 1
        guarded.chmod(0o700)
        assert opened.add([_entry(2)]) == [True]


def test_a_readonly_file(guarded):
    path = _make(guarded / "i", [1])
    path.chmod(0o400)
    assert _check(path) == {1}
    with pytest.raises(
        IndexFileError, match="i: cannot be written; give yourself write permission"
    ):
        open_index(path)
    path.chmod(0o200)
    with pytest.raises(IndexFileError, match="i: it cannot be opened"):
        open_index(path, readonly=True)


def test_an_index_that_is_deleted_while_another_process_writes_is_said_so(tmp_path):
    path, entry = tmp_path / "i", Entry("/a", "0" * 64, np.zeros((3, 4), np.uint32), 1.0)
    with open_index(path, identity=IDENTITY, create=True) as index:
        delete_empty(path)
        with pytest.raises(IndexFileError, match="moved or deleted meanwhile; run the same"):
            index.add([entry])
    with open_index(path, identity=IDENTITY, create=True) as index:
        index.add([entry])
        delete_empty(path)
    assert path.exists()
