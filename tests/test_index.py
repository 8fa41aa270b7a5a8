"""index.py and exchange.py: against lists in memory, SQLite's file format, FAISS, Parquet."""

import hashlib
import json
import re
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqhash.index import catalogue, exchange
from seqhash.index.catalogue import Entry, Identity, IndexFileError, open_index

ROOT = Path(__file__).parents[1]
IDENTITY = Identity("paper-128", "ab" * 32, 4.0, 4, 8_000)


def _entry(i: int, codes: int = 5, *, words: int = 4, **more) -> Entry:
    values = np.random.default_rng(i).integers(0, 2**32, (codes, words), np.uint32)
    digest = hashlib.sha256(f"{i}".encode()).hexdigest()
    return Entry(f"/music/{i}.flac", digest, values, codes / 4, **more)


def _make(path: Path, entries=(), *, identity: Identity = IDENTITY) -> Path:
    with open_index(path, identity=identity, create=True) as opened:
        opened.add(entries)
    return path


def _facts(row) -> tuple:
    return (
        row.path,
        row.digest,
        row.title,
        row.artist,
        row.work,
        row.duration,
        dict(row.metadata or {}),
    )


def _state(path: Path) -> tuple:
    """All that an index says of its recordings, as plain values."""
    with open_index(path, readonly=True) as opened:
        collection = opened.load()
        return opened.identity, opened.rows(), collection.words.tolist(), collection.starts.tolist()


def _sql(path: Path, *statements: str) -> list:
    """Statements by SQLite alone."""
    db = sqlite3.connect(path)
    try:
        results = [db.execute(statement).fetchall() for statement in statements]
        db.commit()
        return results
    finally:
        db.close()


# Adding and reading.


def test_needs_no_jax():
    code = (
        "import sys, seqhash.index.catalogue, seqhash.index.exchange; "
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    words=st.sampled_from([1, 4, 8]),
    groups=st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400), _TEXT, _TEXT), max_size=4),
        max_size=4,
    ),
)
def test_equals_a_list(tmp_path_factory, words, groups):
    """Any groups of recordings, some of them twice, some without codes."""
    path = tmp_path_factory.mktemp("index") / "i"
    identity = IDENTITY._replace(words=words)
    expected: dict[str, Entry] = {}
    with open_index(path, identity=identity, create=True) as opened:
        for group in groups:
            entries = [_entry(i, n, words=words, title=t, metadata={t: m}) for i, n, t, m in group]
            new = []
            for entry in entries:
                new.append(entry.digest not in expected)
                expected.setdefault(entry.digest, entry)
            assert opened.add(entries) == new
    everything = list(expected.values())
    with open_index(path, readonly=True) as opened:
        rows, collection = opened.rows(), opened.load()
        assert [_facts(row) for row in rows] == [_facts(entry) for entry in everything]
        assert [row.codes for row in rows] == [len(entry.words) for entry in everything]
        assert (
            collection.ids.tolist() == [row.id for row in rows] == sorted({row.id for row in rows})
        )
        blank = np.zeros((0, words), np.uint32)
        np.testing.assert_array_equal(
            collection.words, np.concatenate([blank, *(e.words for e in everything)])
        )
        assert (
            collection.starts.tolist()
            == np.cumsum([0, *(len(e.words) for e in everything)]).tolist()
        )
        assert (collection.words.dtype, collection.starts.dtype, collection.ids.dtype) == (
            np.uint32,
            np.int64,
            np.int64,
        )
        for found, entry in zip(opened.words_of(collection.ids), everything, strict=True):
            np.testing.assert_array_equal(found, entry.words)
        assert opened.known([*expected, "cd" * 32]) == set(expected)
        assert opened.verify() == []


def test_the_file_by_sqlite_alone(tmp_path):
    """What DESIGN promises to others: plain tables, little-endian words, CRC-32, a marked header,
    one file.
    """
    entry = _entry(1, 3, title="Air", artist="B", work="w", metadata={"genre": "folk"})
    path = _make(tmp_path / "i", [entry])
    assert [file.name for file in tmp_path.iterdir()] == ["i"]
    header = path.read_bytes()[
        :100
    ]  # sqlite.org/fileformat2.html: user_version at 60, application_id at 68, big-endian
    assert struct.unpack(">i", header[60:64]) == (3,)
    assert header[68:72] == b"sqhx"
    assert header[18:20] == b"\1\1"  # rollback journal, not WAL
    recordings, codes = _sql(path, "SELECT * FROM recordings", "SELECT * FROM codes")
    assert recordings[0][:9] == (
        1,
        entry.path,
        entry.digest,
        "Air",
        "B",
        "w",
        0.75,
        3,
        '{"genre": "folk"}',
    )
    blob = b"".join(struct.pack("<4I", *map(int, code)) for code in entry.words)
    assert codes == [(1, zlib.crc32(entry.digest.encode() + blob), blob)]


def test_a_path_need_not_be_unicode(tmp_path):
    name = b"/music/caf\xe9.flac".decode("utf-8", "surrogateescape")
    path = _make(tmp_path / "i", [_entry(1)._replace(path=name)])
    with open_index(path) as opened:
        assert opened.rows()[0].path == name
        assert opened.verify() == []


def test_many_a_file_name(tmp_path):
    for name in ("a b", "a?mode=memory", "a#b", "100%25", "größe", "'quoted\""):
        _make(tmp_path / name, [_entry(1)])
        assert (tmp_path / name).stat().st_size > 0
        with open_index(tmp_path / name) as opened:
            assert len(opened.rows()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"words": np.zeros((3, 4), np.int32)},
            "words must be uint32 .codes, 4., got int32 .3, 4.",
        ),
        ({"words": np.zeros((3, 2), np.uint32)}, "got uint32 .3, 2."),
        ({"words": np.zeros(4, np.uint32)}, "got uint32 .4,."),
        ({"digest": "AB" * 32}, "digest must be 64 hexadecimal digits, got 'AB"),
        ({"digest": "ab" * 32 + "\n"}, "digest must be"),
        ({"duration": float("nan")}, "duration must be finite and not negative, got nan"),
        ({"duration": -1.0}, "got -1.0"),
        ({"metadata": {"year": 1999}}, "metadata must be texts by name"),
        ({"title": "\ud800"}, "path, title, artist and work must be Unicode"),
    ],
)
def test_an_invalid_entry_adds_none(tmp_path, change, reason):
    with open_index(_make(tmp_path / "i"), identity=IDENTITY) as opened:
        with pytest.raises(ValueError, match=f"/music/2.flac.*{reason}"):
            opened.add([_entry(1), _entry(2)._replace(**change)])
        assert opened.rows() == []


def test_negative_zero_and_numpy_numbers(tmp_path):
    path = _make(
        tmp_path / "i",
        [_entry(1)._replace(duration=-0.0), _entry(2)._replace(duration=np.float32(0.5))],
    )
    with open_index(path) as opened:
        assert [row.duration for row in opened.rows()] == [0.0, 0.5]


def test_remove(tmp_path):
    with open_index(_make(tmp_path / "i", map(_entry, range(4)))) as opened:
        assert opened.remove([2, 4, 4, 99, -1, 2**70]) == 2
        assert [row.id for row in opened.rows()] == [1, 3]
        np.testing.assert_array_equal(
            opened.load().words, np.concatenate([_entry(0).words, _entry(2).words])
        )
        with pytest.raises(IndexFileError, match="there is no recording 4; 'seqhash list'"):
            opened.words_of([1, 4])
        assert opened.add([_entry(3), _entry(1)]) == [True, True]
        assert [row.id for row in opened.rows()] == [1, 3, 5, 6]  # an id is never given twice
        assert opened.verify() == []


def test_a_snapshot_is_of_one_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "BUSY_SECONDS", 0.05)
    path = _make(tmp_path / "i", [_entry(1)])
    with open_index(path) as opened, open_index(path) as other:
        with opened.snapshot():
            assert len(opened.rows()) == 1
            with pytest.raises(IndexFileError, match="i: another process"):  # a writer waits
                other.add([_entry(2)])
            with pytest.raises(IndexFileError, match="i: opened for reading only"):
                opened.add([_entry(2)])
            assert len(opened.load().ids) == 1
        assert other.add([_entry(2)]) == [True]
        assert len(opened.rows()) == 2


def test_info(tmp_path):
    path = _make(tmp_path / "i", [_entry(1, 7), _entry(2, 0)])
    with open_index(path, readonly=True) as opened:
        assert opened.info() == {
            "path": str(path),
            "schema": 3,
            "channel": "first",
            "hasher": {
                "name": "paper-128",
                "digest": "ab" * 32,
                "code_rate": 4.0,
                "words": 4,
                "sample_rate": 8_000,
            },
            "recordings": 2,
            "codes": 7,
            "duration": 1.75,
            "bytes": path.stat().st_size,
            "free": 0,
        }


def test_compact(tmp_path):
    path = _make(tmp_path / "i", [_entry(i, 2_000) for i in range(4)])
    full = path.stat().st_size
    with open_index(path) as opened:
        before = opened.load()
        opened.remove([1, 3])
        assert path.stat().st_size == full
        assert 2 * 32_000 <= opened.info()["free"] < full
        assert opened.compact() == (full, path.stat().st_size)
        assert path.stat().st_size <= full - 64_000
        after = opened.load()
        assert after.ids.tolist() == [2, 4]
        np.testing.assert_array_equal(after.words[:2_000], before.words[2_000:4_000])


def test_twenty_bytes_a_code(tmp_path):
    """Recordings of 4 minutes at 4 codes a second with long names; 16 of the 20 bytes are the
    words.
    """
    entries = [
        _entry(i, 960, title="t" * 40, artist="a" * 30)._replace(path="p" * 120 + f"{i}")
        for i in range(200)
    ]
    assert _make(tmp_path / "i", entries).stat().st_size < 20 * 960 * 200


def test_reading_only_and_closed(tmp_path):
    path = _make(tmp_path / "i", [_entry(1)])
    with open_index(path, readonly=True) as opened:
        for change in (lambda: opened.add([_entry(2)]), lambda: opened.remove([1]), opened.compact):
            with pytest.raises(
                IndexFileError, match="i: opened for reading only; open it for writing"
            ):
                change()
    with pytest.raises(IndexFileError, match="i: Cannot operate on a closed database"):
        opened.rows()
    assert len(_state(path)[1]) == 1


# Whose codes, which version.


def test_another_hasher_is_refused(tmp_path):
    path = _make(tmp_path / "i", [_entry(1)])
    other = Identity("mine", "cd" * 32, 8.0, 2, 16_000)
    with pytest.raises(IndexFileError) as error:
        open_index(path, identity=other)
    assert str(error.value) == (
        f"{path}: made with hasher 'paper-128' (digest abababababab, 128 bits, 4 codes/s), not "
        "with 'mine' (digest cdcdcdcdcdcd, 64 bits, 8 codes/s); their codes cannot be compared. "
        "Use the first one, or another index."
    )
    for change in (
        {"digest": "cd" * 32},
        {"code_rate": 5.0},
        {"words": 2},
        {"sample_rate": 16_000},
    ):
        for create in (False, True):
            with pytest.raises(IndexFileError, match="not with"):
                open_index(path, identity=IDENTITY._replace(**change), create=create)
    with open_index(
        path, identity=IDENTITY._replace(name="renamed")
    ) as opened:  # the same function
        assert opened.identity == IDENTITY


def test_creating_needs_an_identity_and_writing(tmp_path):
    for arguments in ({}, {"identity": IDENTITY, "readonly": True}):
        with pytest.raises(ValueError, match="an identity is needed, and writing"):
            open_index(tmp_path / "i", create=True, **arguments)
    assert not (tmp_path / "i").exists()


def test_creating_keeps_what_is_there(tmp_path):
    path = _make(tmp_path / "i", [_entry(1)])
    _make(path)
    assert len(_state(path)[1]) == 1


def test_a_newer_version_is_refused(tmp_path):
    path = _make(tmp_path / "i", [_entry(1)])
    _sql(path, "PRAGMA user_version = 4")
    content = path.read_bytes()
    for arguments in ({}, {"readonly": True}, {"identity": IDENTITY, "create": True}):
        with pytest.raises(
            IndexFileError,
            match=r"i: made by a newer seqhash \(schema 4, .* up to 3\); update seqhash",
        ):
            open_index(path, **arguments)
    assert path.read_bytes() == content


def test_an_older_version_is_read_as_it_is_and_migrated_when_it_is_written(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(catalogue, "STEPS", catalogue.STEPS[:1])
        path = _make(tmp_path / "i", [_entry(1)])
    content, before = path.read_bytes(), _state(path)
    with open_index(path, readonly=True) as opened:
        assert (opened.files(), opened.astray(), opened.verify()) == ({}, [], [])
        assert opened.places(1) == ["/music/1.flac"]
        assert opened.channel == "first"
    assert path.read_bytes() == content
    with open_index(path) as opened:
        assert opened.info()["schema"] == 3
        assert opened.add([_entry(2)], [catalogue.File("/x", "ab" * 32)]) == [True]
        assert opened.files() == {"/x": catalogue.File("/x", "ab" * 32)}
    assert _state(path)[1][:1] == before[1]


def test_the_channel_is_kept_and_another_one_refused(tmp_path):
    make = {"identity": IDENTITY, "create": True}
    with open_index(tmp_path / "mix", **make, channel="mix") as mixed:
        mixed.add([_entry(1)])
        exchange.export_npz(mixed, tmp_path / "mix.npz")
    with open_index(tmp_path / "mix", channel="mix") as opened:
        assert opened.channel == opened.info()["channel"] == "mix"
    with pytest.raises(IndexFileError, match="made of the mix channel of each file, not of first"):
        open_index(tmp_path / "mix", channel="first")
    assert exchange.npz_made_of(tmp_path / "mix.npz")[1] == "mix"
    with open_index(tmp_path / "first", **make) as first:
        with pytest.raises(IndexFileError, match="mix channel"):
            exchange.merge(first, tmp_path / "mix")
        with pytest.raises(IndexFileError, match="of the mix channel; the index's is first"):
            exchange.import_npz(first, tmp_path / "mix.npz")
    _sql(tmp_path / "mix", "UPDATE channel SET name = '2'")
    with pytest.raises(IndexFileError, match="does not say which channel"):
        open_index(tmp_path / "mix")


def test_a_failed_migration_changes_nothing(tmp_path, monkeypatch):
    path = _make(tmp_path / "i", [_entry(1)])
    step = (
        "ALTER TABLE recordings ADD COLUMN year TEXT",
        "ALTER TABLE nothing ADD COLUMN year TEXT",
    )
    monkeypatch.setattr(catalogue, "STEPS", (*catalogue.STEPS, step))
    with pytest.raises(IndexFileError, match=r"i: .*nothing"):
        open_index(path)
    monkeypatch.undo()
    assert len(_state(path)[1]) == 1


# Integrity.


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            "UPDATE recordings SET title = 'x' WHERE id = 2",
            "recording 2 .* catalogue line is not as it was written",
        ),
        (
            "UPDATE recordings SET codes = 4 WHERE id = 2",
            "recording 2 .* catalogue line is not as it was written",
        ),
        ("UPDATE recordings SET metadata = 'x' WHERE id = 2", "recording 2 .* catalogue line"),
        (
            "UPDATE codes SET words = zeroblob(80) WHERE recording = 2",
            "recording 2 .* words are not as they were",
        ),
        (
            "UPDATE codes SET words = zeroblob(64) WHERE recording = 2",
            "recording 2 .* not those of 5 codes",
        ),
        ("UPDATE codes SET words = 7 WHERE recording = 2", "recording 2 .* not those of 5 codes"),
        (
            "UPDATE codes SET checksum = checksum + 1 WHERE recording = 2",
            "recording 2 .* words are not as they were",
        ),
        ("DELETE FROM codes WHERE recording = 2", "recording 2 .* has no words"),
        (
            "UPDATE codes SET (words, checksum) = "
            "(SELECT words, checksum FROM codes WHERE recording = 1) "
            "WHERE recording = 2",
            "recording 2 .* words are not as they were",  # another recording's, whole
        ),
    ],
)
def test_damage_is_found(tmp_path, damage, problem):
    path = _make(tmp_path / "i", map(_entry, range(3)))
    _sql(path, damage)
    with open_index(path) as opened:
        (text,) = opened.verify()
        assert re.fullmatch(f"{path}: {problem}.*; remove and add it again.", text)
        with pytest.raises(IndexFileError, match=problem):
            opened.load()
        with pytest.raises(IndexFileError, match=problem):
            opened.words_of([1, 2])
        assert opened.remove([2]) == 1  # as the message says
        assert opened.add([_entry(1)]) == [True]
        assert opened.verify() == []


def test_words_of_no_recording_are_found(tmp_path):
    path = _make(tmp_path / "i", map(_entry, range(2)))
    _sql(path, "DELETE FROM recordings WHERE id = 2")  # foreign keys are off in a plain connection
    with open_index(path) as opened:
        assert opened.verify() == [f"{path}: row 2 of table codes belongs to no recording."]


def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    """Any single bit of the file: refused, reported by verify, or nothing that the index says has
    changed.
    """
    path = _make(
        tmp_path / "i", [_entry(i, 600, title="Air", metadata={"a": "b"}) for i in range(3)]
    )
    content, good = path.read_bytes(), _state(path)
    random = np.random.default_rng(7)
    everywhere = random.integers(0, len(content), 150)
    found = 0
    for byte in [*range(0, 100, 3), *everywhere]:  # the header, and everywhere
        flipped = bytearray(content)
        flipped[byte] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            with open_index(path, identity=IDENTITY) as opened:
                problems = opened.verify()
        except IndexFileError as error:
            problems = [str(error)]
        assert all(problem.startswith(f"{path}: ") for problem in problems)
        if problems:
            found += 1
        else:
            assert _state(path) == good, f"byte {byte}"
    assert found > 80  # the words alone are more than half of the file


# Merging, export, import.


def test_merge(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "GROUP", 2)
    ours = _make(tmp_path / "a", [_entry(1, 3, title="kept"), _entry(2)])
    theirs = _make(
        tmp_path / "b", [_entry(1, 3), *(_entry(i, i, metadata={"n": str(i)}) for i in range(3, 8))]
    )
    content = theirs.read_bytes()
    with open_index(ours, identity=IDENTITY) as opened:
        assert exchange.merge(opened, theirs) == (5, 1)
        assert exchange.merge(opened, theirs) == (0, 6)
        assert exchange.merge(opened, ours) == (0, 7)
        rows = opened.rows()
        assert [row.path for row in rows] == [f"/music/{i}.flac" for i in (1, 2, 3, 4, 5, 6, 7)]
        assert (rows[0].title, rows[3].metadata) == ("kept", {"n": "4"})
        expected = [_entry(1, 3), _entry(2), *(_entry(i, i) for i in range(3, 8))]
        np.testing.assert_array_equal(
            opened.load().words, np.concatenate([e.words for e in expected])
        )
    assert theirs.read_bytes() == content


def test_merge_refuses(tmp_path):
    ours = _make(tmp_path / "a", [_entry(1)])
    other = _make(
        tmp_path / "b", [_entry(2)], identity=IDENTITY._replace(name="other", digest="cd" * 32)
    )
    damaged = _make(tmp_path / "c", [_entry(2), _entry(3)])
    _sql(damaged, "UPDATE codes SET words = zeroblob(80) WHERE recording = 2")
    with open_index(ours) as opened:
        with pytest.raises(
            IndexFileError, match=r"b: made with hasher 'other' .*, not with 'paper-128'"
        ):
            exchange.merge(opened, other)
        with pytest.raises(IndexFileError, match=r"c: recording 2 .* damaged"):
            exchange.merge(opened, damaged)
        with pytest.raises(IndexFileError, match="d: no such index"):
            exchange.merge(opened, tmp_path / "d")
        assert len(opened.rows()) == 1


def _filled(tmp_path: Path) -> tuple[Path, list[Entry]]:
    entries = [
        _entry(0, 0),
        _entry(1, 70, title='Air, "in D"', artist="Größe", work="w1", metadata={"genre": "folk"}),
        _entry(2, 0),
        _entry(3, 30)._replace(path=b"/music/caf\xe9.flac".decode("utf-8", "surrogateescape")),
    ]
    return _make(tmp_path / "i", entries), entries


def test_export_faiss_by_bytes(tmp_path):
    path, entries = _filled(tmp_path)
    with open_index(path, readonly=True) as opened:
        ids = exchange.export_faiss(opened, tmp_path / "x.faiss")
    data = (tmp_path / "x.faiss").read_bytes()
    assert struct.unpack("<4siiqBiQ", data[:33]) == (b"IBxF", 128, 16, 100, 1, 1, 1600)
    assert data[33:] == b"".join(
        entry.words.tobytes() for entry in entries
    )  # this test's machine is little-endian
    assert ids == tmp_path / "x.faiss.csv"
    lines = ids.read_bytes().split(b"\n")
    assert lines[0] == b"row,codes,recording,path,digest,title,artist,work,duration"
    digest = entries[1].digest.encode()
    assert (
        lines[2] == b'0,70,2,/music/1.flac,%s,"Air, ""in D""",Gr\xc3\xb6\xc3\x9fe,w1,17.5' % digest
    )
    assert [line.split(b",")[:3] for line in lines[3:5]] == [
        [b"70", b"0", b"3"],
        [b"70", b"30", b"4"],
    ]
    assert b"caf\xe9" in lines[4]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["i", "x.faiss", "x.faiss.csv"]


def test_export_faiss_is_read_by_faiss(tmp_path):
    faiss = pytest.importorskip("faiss")
    path, entries = _filled(tmp_path)
    with open_index(path, readonly=True) as opened:
        exchange.export_faiss(opened, tmp_path / "x.faiss")
        found = faiss.read_index_binary(str(tmp_path / "x.faiss"))
        assert (type(found), found.ntotal, found.d) == (faiss.IndexBinaryFlat, 100, 128)
        query = entries[3].words[4:5] ^ np.array([[0, 1 << 9, 0, 0]], np.uint32)
        distances, rows = found.search(query.view(np.uint8), 1)
        assert (distances.tolist(), rows.tolist()) == ([[1]], [[74]])
        copy = tmp_path / "copy"
        faiss.write_index_binary(found, str(copy))
        assert copy.read_bytes() == (tmp_path / "x.faiss").read_bytes()


def test_npz_there_and_back(tmp_path):
    path, _ = _filled(tmp_path)
    with open_index(path, readonly=True) as opened:
        exchange.export_npz(opened, tmp_path / "x.npz")
    identity, _ = exchange.npz_made_of(tmp_path / "x.npz")
    assert identity == IDENTITY
    copy = _make(tmp_path / "j", identity=identity)
    with open_index(copy) as opened:
        assert exchange.import_npz(opened, tmp_path / "x.npz") == (4, 0)
        assert exchange.import_npz(opened, tmp_path / "x.npz") == (0, 4)
        assert opened.verify() == []
    assert _state(copy) == _state(path)


def test_an_empty_index_there_and_back(tmp_path):
    path = _make(tmp_path / "i")
    with open_index(path) as opened:
        exchange.export_npz(opened, tmp_path / "x.npz")
        assert exchange.import_npz(opened, tmp_path / "x.npz") == (0, 0)
        exchange.export_faiss(opened, tmp_path / "x.faiss")
    assert (tmp_path / "x.faiss").stat().st_size == 33


def _arrays() -> dict:
    return {
        "hasher": "paper-128",
        "hasher_digest": "ab" * 32,
        "code_rate": 4.0,
        "sample_rate": 8_000,
        "words": np.arange(20, dtype=np.uint32).reshape(5, 4),
        "starts": np.array([0, 2, 5]),
        "path": np.array(["a", "b"]),
    }


def test_import_of_the_required_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "GROUP", 1)
    np.savez_compressed(tmp_path / "x.npz", **_arrays())
    with open_index(_make(tmp_path / "i")) as opened:
        assert exchange.import_npz(opened, tmp_path / "x.npz") == (2, 0)
        rows = opened.rows()
        assert [(row.path, row.codes, row.duration, row.title, row.metadata) for row in rows] == [
            ("a", 2, 0.5, "", {}),
            ("b", 3, 0.75, "", {}),
        ]
        assert rows[0].digest == hashlib.sha256(struct.pack("<8I", *range(8))).hexdigest()
        assert opened.load().words.tolist() == np.arange(20).reshape(5, 4).tolist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"words": None}, "words missing"),
        ({"words": np.zeros((5, 4), np.int64)}, "words must be uint32"),
        ({"words": np.zeros(20, np.uint32)}, r"words must be \(rows, words\), got \(20,\)"),
        (
            {"words": np.zeros((5, 2), np.uint32)},
            "made with hasher 'paper-128' .*64 bits.*, not with 'paper-128'",
        ),
        ({"hasher_digest": "cd" * 32}, "made with hasher 'paper-128' .digest cdcdcdcdcdcd"),
        ({"code_rate": np.zeros(2)}, "the hasher's"),
        ({"starts": np.array([0, 2, 4])}, "starts must rise from 0 to the number of rows, 5"),
        ({"starts": np.array([0, 6, 5])}, "starts must rise"),
        ({"starts": np.array([1, 2, 5])}, "starts must rise"),
        ({"starts": np.array([0.0, 2.0, 5.0])}, "starts must be integers"),
        ({"starts": np.zeros(0, np.int64)}, "starts must be integers"),
        ({"starts": np.array(5)}, "starts must be integers"),
        ({"path": np.array(["a"])}, r"path must be texts \(2,\), got <U1 \(1,\)"),
        ({"title": np.array([1, 2])}, r"title must be texts \(2,\), got int64 \(2,\)"),
        ({"duration": np.array(["1", "2"])}, r"duration must be numbers \(2,\)"),
        ({"duration": np.array([1.0, np.inf])}, "b: duration must be finite"),
        ({"digest": np.array(["ab" * 32, "x"])}, "b: digest must be 64 hexadecimal digits"),
        ({"metadata": np.array(["{}", "{"])}, "cannot be imported: Expecting"),
        ({"metadata": np.array(["{}", '{"a": 1}'])}, "b: metadata must be texts by name"),
        ({"metadata": np.array(["{}", "7"])}, "cannot be imported"),
        (
            {"path": np.array(["a", None], object)},
            "not an npz file, or damaged",
        ),  # pickles are not read
    ],
)
def test_import_refuses(tmp_path, change, reason):
    arrays = {name: array for name, array in (_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with open_index(_make(tmp_path / "i")) as opened:
        with pytest.raises(IndexFileError, match=f"x.npz: .*{reason}"):
            exchange.import_npz(opened, tmp_path / "x.npz")
        assert opened.rows() == []


def test_import_refuses_other_files(tmp_path):
    np.savez(tmp_path / "whole.npz", **_arrays())
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "short.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:600])
    flipped = bytearray((tmp_path / "whole.npz").read_bytes())
    flipped[flipped.index(struct.pack("<4I", *range(4)))] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with open_index(_make(tmp_path / "i")) as opened:
        for name in (
            "array.npy",
            "text.npz",
            "empty.npz",
            "short.npz",
            "flipped.npz",
            "missing.npz",
            ".",
        ):
            with pytest.raises(IndexFileError, match=r": (not an npz file|cannot be read)"):
                exchange.import_npz(opened, tmp_path / name)
        assert opened.rows() == []


def test_export_parquet(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(exchange, "GROUP", 3)
    path, entries = _filled(tmp_path)
    with open_index(path, readonly=True) as opened:
        exchange.export_parquet(opened, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    rows = table.to_pylist()
    assert [row["words"] for row in rows] == [entry.words.tolist() for entry in entries]
    assert [row["id"] for row in rows] == [1, 2, 3, 4]
    assert [(row["title"], row["artist"], row["duration"]) for row in rows[:2]] == [
        ("", "", 0.0),
        ('Air, "in D"', "Größe", 17.5),
    ]
    assert json.loads(rows[1]["metadata"]) == {"genre": "folk"}
    assert rows[3]["path"] == "/music/caf\\xe9.flac"
    assert json.loads(table.schema.metadata[b"seqhash"]) == IDENTITY._asdict()
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == 2
    with open_index(_make(tmp_path / "j")) as opened:
        exchange.export_parquet(opened, tmp_path / "empty.parquet")
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        open_index(_make(tmp_path / "i")) as opened,
        pytest.raises(
            IndexFileError,
            match="x: Parquet needs pyarrow; 'pip install pyarrow', or export to npz",
        ),
    ):
        exchange.export_parquet(opened, tmp_path / "x")


def test_export_refuses_the_index_and_what_cannot_be_written(tmp_path):
    path = _make(tmp_path / "i", [_entry(1)])
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(path)
    content = path.read_bytes()
    with open_index(path, readonly=True) as opened:
        for export in (exchange.export_faiss, exchange.export_npz):
            for name in ("i", "link"):
                with pytest.raises(IndexFileError, match=f"{name}: is the index itself"):
                    export(opened, tmp_path / name)
            for name in ("folder", "missing/x", "i/x"):
                with pytest.raises(IndexFileError, match=f"{name}(.csv)?: cannot be written"):
                    export(opened, tmp_path / name)
    assert path.read_bytes() == content
    assert {file.name for file in tmp_path.iterdir()} <= {"i", "folder", "link"}


def test_a_part_of_a_collection():
    words = [_entry(i, codes).words for i, codes in enumerate((3, 1, 5))]
    collection = catalogue.Collection.of(words, [7, 8, 9])
    assert collection.starts.tolist() == [0, 3, 4, 9]
    assert catalogue.Collection.of(words).ids.tolist() == [0, 1, 2]
    part = collection.subset([0, 2])
    assert (part.starts.tolist(), part.ids.tolist()) == ([0, 3, 8], [7, 9])
    np.testing.assert_array_equal(part.words, np.concatenate([words[0], words[2]]))
