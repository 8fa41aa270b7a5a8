import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile

from seqhash import audio, autoencoder, codes, corpus, decode, mfcc
from seqhash.codes import make_hasher
from seqhash.config import Config, override
from seqhash.index import catalogue, ingest
from tests.test_decode import workers_that

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ROOT = Path(__file__).parents[1]
RATE = 16_000
WORDS = 4


def counting_words(samples):
    """Codes that tell nothing but how many there are; rows are numbered, so that gaps show."""
    count = max(0, (len(samples) - 16_080) // 4000 + 1) if len(samples) > 16_080 else 0
    return np.tile(np.arange(count, dtype=np.uint32)[:, None], (1, WORDS))


def fake_hasher(hash_samples=counting_words):
    """As much of a Hasher as is needed, without jax and without compiling."""
    return SimpleNamespace(
        name="fake",
        digest="0" * 64,
        config=Config(),
        code_rate=4.0,
        sample_rate=RATE,
        words=WORDS,
        hop=4000,
        span=16_240,
        whole=False,
        shortest_seconds=1.00506,
        hash_many=lambda recordings: [hash_samples(samples) for samples in recordings],
    )


def write(path, seconds=2.0, *, seed=0, rate=RATE, **tags):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, time_ = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * time_) for f in rng.uniform(100, 2000, 4)) / 8
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(tones + 0.02 * rng.standard_normal(len(time_)))
    return path


def opened(path, hasher):
    return catalogue.open_index(path, identity=catalogue.Identity.of(hasher), create=True)


def add(store, hasher, items, workers=2, **options):
    return ingest.add_files(store, hasher, items, workers=workers, progress=False, **options)


@pytest.fixture(scope="module")
def hasher():
    config = override(Config(), {"model.hidden_size": 64})
    statistics = mfcc.Statistics(np.linspace(-2, 20, 13), np.linspace(4, 30, 13))
    return make_hasher(
        config, autoencoder.init_params(jax.random.key(0), config), statistics, name="small"
    )


def test_what_is_added_are_the_codes_of_the_files(tmp_path, hasher):
    files = [
        write(tmp_path / f"{i}.{suffix}", 2 + i, seed=i)
        for i, suffix in enumerate(["wav", "flac", "ogg"])
    ]
    files.append(write(tmp_path / "other_rate.wav", 3.0, seed=3, rate=22_050))
    with opened(tmp_path / "index", hasher) as store:
        assert add(store, hasher, [tmp_path])[:3] == (4, 0, [])
        rows = {Path(row.path): row for row in store.rows()}
        assert rows.keys() == set(files)
        for path, row in rows.items():
            samples = audio.read(path, sample_rate=RATE)
            np.testing.assert_array_equal(store.words_of([row.id])[0], hasher.hash_samples(samples))
            assert row.duration == len(samples) / RATE
            assert row.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_there_is_passed_over_before_it_is_decoded(tmp_path, monkeypatch):
    hasher = fake_hasher()
    write(tmp_path / "music" / "a.wav", seed=1)
    write(tmp_path / "music" / "b.wav", seed=2)
    (tmp_path / "music" / "copy.wav").write_bytes((tmp_path / "music" / "a.wav").read_bytes())
    with opened(tmp_path / "index", hasher) as store:
        assert add(store, hasher, [tmp_path / "music"])[:3] == (2, 1, [])
        monkeypatch.setattr(decode, "_Worker", lambda: pytest.fail("a process was started"))
        assert add(store, hasher, [tmp_path / "music"])[:3] == (0, 3, [])
        names = {Path(row.path).name for row in store.rows()}
        assert names in (
            {"a.wav", "b.wav"},
            {"copy.wav", "b.wav"},
        )  # of two equal files the first that is decoded


def test_bad_files_are_listed_with_the_reason_and_the_others_added(tmp_path):
    hasher, good = fake_hasher(), write(tmp_path / "good.wav", seed=1)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:40_000])
    text = tmp_path / "text.mp3"
    text.write_text("not music")
    short, gone = write(tmp_path / "short.wav", 0.5), tmp_path / "gone.wav"
    pipe, long = tmp_path / "pipe.wav", tmp_path / f"{'x' * 300}.wav"
    os.mkfifo(pipe)
    with opened(tmp_path / "index", hasher) as store:
        counts = add(store, hasher, [cut, text, short, gone, pipe, long, good], strict=True)
        assert (counts.added, counts.present) == (1, 0)
        reasons = dict(counts.failed)
        assert reasons.keys() == {str(path) for path in (cut, text, short, gone, pipe, long)}
        for path, reason in {
            cut: "cut: 39956 of 64000 bytes of samples are there",
            text: "not audio",
            short: "too short",
            gone: "no such file",
            pipe: "not a regular file",
            long: "File name too long",
        }.items():
            assert reason in reasons[str(path)]
        assert [row.path for row in store.rows()] == [str(good)]
        flaws = list[audio.Flaw]()  # and without strict it is used, and told
        assert add(store, hasher, [cut, good], report=flaws.append)[:3] == (1, 1, [])
        assert [(flaw.path, round(flaw.seconds, 1)) for flaw in flaws] == [(cut, 0.8)]
        assert store.rows()[-1].duration == pytest.approx(1.25, abs=0.01)


def test_the_index_says_which_channel_is_taken(tmp_path):
    hasher, left = fake_hasher(), 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    soundfile.write(tmp_path / "x.wav", np.stack([left, 0 * left], 1), RATE)
    identity = catalogue.Identity.of(hasher)
    for channel, failed in {"first": 0, "mix": 0, "2": 1}.items():
        index = tmp_path / channel
        opened = catalogue.open_index(index, identity=identity, create=True, channel=channel)
        with opened as store:
            counts = add(store, hasher, [tmp_path / "x.wav"], workers=1)
            assert (counts.added, len(counts.failed)) == (1 - failed, failed)


def test_manifest_columns_and_tags_become_fields_and_metadata(tmp_path):
    hasher = fake_hasher()
    write(tmp_path / "a.flac", seed=1, title="Tag", artist="Someone", album="Album")
    write(tmp_path / "b.flac", seed=2, title="Tag", artist="Someone")
    write(tmp_path / "c.wav", seed=3)
    (tmp_path / "m.csv").write_text(
        "path,recording_id,work_id,role,title,genre,artist,licence\n"
        "a.flac,,w,original,,,,\n"
        "b.flac,x7,w,cover,Name,folk,Another,CC0\n"
    )
    with opened(tmp_path / "index", hasher) as store:
        assert add(store, hasher, [tmp_path / "m.csv", tmp_path]).added == 3
        rows = {Path(row.path).name: row for row in store.rows()}
    assert [(r.title, r.artist, r.work) for _, r in sorted(rows.items())] == [
        ("Tag", "Someone", "w"),
        ("Name", "Another", "w"),
        ("", "", ""),
    ]
    assert rows["a.flac"].metadata == {"album": "Album", "role": "original"}
    assert rows["b.flac"].metadata == {
        "recording_id": "x7",
        "role": "cover",
        "genre": "folk",
        "licence": "CC0",
    }
    assert rows["c.wav"].metadata == {}


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff.flac")
    write(tmp_path / "a.flac", title="Tag").rename(path)
    with opened(tmp_path / "index", fake_hasher()) as store:
        assert add(store, fake_hasher(), [path])[:3] == (1, 0, [])
        assert [(row.path, row.title) for row in store.rows()] == [(str(path), "Tag")]


def test_a_broken_manifest_adds_nothing(tmp_path):
    (tmp_path / "m.csv").write_text("path\ngone.wav,more\n")
    good = write(tmp_path / "good.wav")
    with opened(tmp_path / "index", fake_hasher()) as store:
        with pytest.raises(corpus.ManifestError, match=r"m\.csv:2"):
            add(store, fake_hasher(), [good, tmp_path / "m.csv"])
        assert store.rows() == []


def test_a_file_that_a_manifest_misses_is_named_and_the_others_are_added(tmp_path):
    write(tmp_path / "good.wav")
    (tmp_path / "m.csv").write_text("path,title\ngone.wav,One\ngood.wav,Two\n")
    with opened(tmp_path / "index", fake_hasher()) as store:
        counts = add(store, fake_hasher(), [tmp_path / "m.csv"])
        assert counts[:3] == (1, 0, [(str(tmp_path / "gone.wav"), "no such file")])
        assert [row.title for row in store.rows()] == ["Two"]


def test_a_path_named_twice_is_one_recording(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    named = ["a.wav", path, tmp_path, tmp_path / "x" / ".." / "a.wav"]
    assert [r.path for r in ingest.gather(named).recordings] == [path]


@pytest.mark.parametrize("changes", [{}, {"segment.normalisation": "recording"}])
def test_codes_in_blocks_are_those_of_the_whole(monkeypatch, hasher, changes):
    monkeypatch.setattr(codes, "PIECE_SECONDS", 7 / 4)
    config = override(hasher.config, changes)
    hasher = make_hasher(config, hasher.params, hasher.statistics, name="small")
    rng = np.random.default_rng(0)
    piece = 6 * 4000 + 16_240  # samples of seven codes: 6 hops, and the 100 frames of one
    for count in (70_000,) if changes else (0, 16_081, piece, piece + 1, 70_000):
        samples = (
            0.1 * rng.standard_normal(count) * np.hanning(4096)[np.arange(count) % 4096]
        ).astype(np.float32)
        expected = hasher.hash_samples(samples)
        for blocks in (np.array_split(samples, 3), np.split(samples, np.arange(9999, count, 9999))):
            before, words = codes.hash_streams(hasher, [iter([samples[:20_000]]), iter(blocks)])
            np.testing.assert_array_equal(before, hasher.hash_samples(samples[:20_000]))
            assert words.shape == expected.shape
            wrong = np.bitwise_count(words ^ expected).sum()
            assert (
                wrong <= ("segment.normalisation" in changes) * 0.002 * 32 * words.size
            )  # other order of float32 sums
    assert len(expected) == 14  # of 70,000 samples: 436 frames


def test_a_long_recording_is_hashed_while_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "HELD", 1)
    monkeypatch.setattr(codes, "PIECES", 1)
    monkeypatch.setattr(codes, "PIECE_SECONDS", 25.0)
    pieces = []

    def hash_samples(samples):
        pieces.append(len(samples))
        return counting_words(samples)

    hasher = fake_hasher(hash_samples)
    long, short = (
        write(tmp_path / "long.flac", 250.0, seed=1),
        write(tmp_path / "short.flac", seed=2),
    )
    with opened(tmp_path / "index", hasher) as store:
        assert add(store, hasher, [long, short])[:3] == (2, 0, [])
        assert {Path(r.path).name: (r.codes, r.duration) for r in store.rows()} == {
            "long.flac": (996, 250.0),
            "short.flac": (4, 2.0),
        }
    assert max(pieces) == 99 * 4000 + 16_240


@pytest.mark.parametrize("most", [1, 3])
def test_decoding_stays_a_few_recordings_ahead(tmp_path, monkeypatch, most):
    files = [write(tmp_path / f"{i:02}.wav", 1.5, seed=i) for i in range(12)]
    monkeypatch.setattr(decode, "HELD", most)
    real, taken, hashed = ingest._jobs, 0, 0

    def jobs(*arguments):
        nonlocal taken
        for job in real(*arguments):
            taken += 1
            assert taken - hashed <= 2 * 2 + most
            yield job

    def slow(samples):
        nonlocal hashed
        time.sleep(0.03)
        hashed += 1
        return counting_words(samples)

    monkeypatch.setattr(ingest, "_jobs", jobs)
    with opened(tmp_path / "index", fake_hasher()) as store:
        assert add(store, fake_hasher(slow), files).added == hashed == 12


@pytest.mark.slow
def test_short_recordings_are_hashed_together_and_a_bad_one_costs_the_others_nothing(
    tmp_path, monkeypatch
):
    body = """
yield from real(path, **options)
if path.stem == "2":
    raise audio.AudioError(path, "cut")
"""
    workers_that(monkeypatch, body)
    files = [write(tmp_path / f"{i}.wav", 1.5, seed=i) for i in range(4)]
    together = []

    def hash_many(recordings):
        together.append(len(recordings))
        time.sleep(1.0)  # the others arrive
        return [counting_words(samples) for samples in recordings]

    hasher = fake_hasher()
    hasher.hash_many = hash_many
    with opened(tmp_path / "index", hasher) as store:
        counts = add(store, hasher, files, workers=4)
        assert counts[:3] == (3, 0, [(str(files[2]), "cut")])
        assert [row.codes for row in store.rows()] == [2, 2, 2]
        assert [row.path for row in store.rows()] == [str(files[i]) for i in (0, 1, 3)]
    assert max(together) > 1
    assert sum(together) == 4


def test_a_file_that_crashes_the_decoder_costs_itself_alone(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{i}.wav", seed=i) for i in range(5)]
    workers_that(
        monkeypatch, "if path.stem == '1': ctypes.string_at(0)\nyield from real(path, **options)"
    )
    with opened(tmp_path / "index", fake_hasher()) as store:
        assert add(store, fake_hasher(), files, workers=1)[:3] == (
            4,
            0,
            [(str(files[1]), "the process that decoded it ended (SIGSEGV)")],
        )


def test_a_disk_that_failed_is_tried_again(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(ingest, "_SETTLED_SECONDS", -1e9)
    with opened(tmp_path / "index", fake_hasher()) as store:
        with pytest.MonkeyPatch.context() as patch:
            workers_that(patch, "raise OSError(5, 'Input/output error')\nyield")
            failed = add(store, fake_hasher(), [path], workers=1).failed
            assert failed == [
                (str(path), "cannot be decoded (OSError: [Errno 5] Input/output error)")
            ]
        assert add(store, fake_hasher(), [path], workers=1).added == 1


def test_nothing_is_left_behind_when_hashing_fails(tmp_path):
    files = [write(tmp_path / f"{i}.wav", 1.5, seed=i) for i in range(8)]
    before = threading.active_count()

    def fail(samples):
        raise MemoryError("the device is full")

    with (
        opened(tmp_path / "index", fake_hasher()) as store,
        pytest.raises(MemoryError, match="device"),
    ):
        add(store, fake_hasher(fail), files)
    assert threading.active_count() == before


def test_a_file_that_changes_meanwhile_is_not_added(tmp_path):
    path = write(tmp_path / "a.wav")

    def changing(samples):
        with open(path, "ab") as file:
            file.write(b"more")
        return counting_words(samples)

    with opened(tmp_path / "index", fake_hasher()) as store:
        assert "changed" in add(store, fake_hasher(changing), [path]).failed[0][1]
        assert store.rows() == []


@pytest.mark.parametrize("changes", [{}, {"segment.frames": 1}])
def test_the_shortest_recording_has_one_code(changes):
    config = override(Config(), changes)
    samples = round(mfcc.shortest_seconds(config.segment.frames, config=config.mfcc) * RATE)
    found = [
        mfcc.segment_count(mfcc.frame_count(count, config.mfcc), config=config.segment)
        for count in (samples - 1, samples)
    ]
    assert found == [0, 1]


def test_workers_must_be_positive(tmp_path):
    with (
        opened(tmp_path / "index", fake_hasher()) as store,
        pytest.raises(ValueError, match="workers"),
    ):
        add(store, fake_hasher(), [], workers=0)


def test_worker_processes_import_no_jax():
    program = (
        "import sys, seqhash.decode, seqhash.index.ingest\n"
        "assert not {'jax', 'flax', 'sklearn'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def script(tmp_path, *, pause, guarded=True):
    """A program that adds tmp_path/music with a hasher of no work but a pause, as a process of its
    own.
    """
    body = f"""
import time
from types import SimpleNamespace
import numpy as np
from seqhash.index import catalogue, ingest
from tests.test_decode import workers_that
from seqhash.config import Config

def hash_many(recordings):
    time.sleep({pause} * len(recordings))
    return [np.ones((len(samples) // 4000, 4), np.uint32) for samples in recordings]

def main():
    hasher = SimpleNamespace(
        name="fake", digest="0" * 64, config=Config(), code_rate=4.0, sample_rate=16000,
        words=4, hop=4000, span=16240, whole=False, shortest_seconds=1.00506, hash_many=hash_many,
    )
    identity = catalogue.Identity.of(hasher)
    with catalogue.open_index({str(tmp_path / "index")!r}, identity=identity, create=True) as store:
        print("ready", flush=True)
        music = {str(tmp_path / "music")!r}
        print(ingest.add_files(store, hasher, [music], workers=2, progress=False)[:3])

{'if __name__ == "__main__":' if guarded else "if True:"}
    main()
"""
    path = tmp_path / "script.py"
    path.write_text(body)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, path],
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )


def test_workers_do_not_run_the_callers_script(tmp_path):
    write(tmp_path / "music" / "a.wav")
    out, err = script(tmp_path, pause=0, guarded=False).communicate(timeout=60)
    assert (out.count("ready"), err) == (1, "")
    assert "(1, 0, [])" in out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_a_good_index_and_no_processes_and_is_continued(tmp_path, number):
    for i in range(24):
        write(tmp_path / "music" / f"{i}.wav", 1.5, seed=i)
    identity = catalogue.Identity.of(fake_hasher())
    with script(tmp_path, pause=0.2) as process:
        process.stdout.readline()
        with catalogue.open_index(tmp_path / "index", readonly=True) as store:
            while not store.rows() and process.poll() is None:
                time.sleep(0.02)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.kill()
        _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert err.count("Traceback") == (
        number == signal.SIGINT
    )  # the processes that decode say nothing
    deadline = time.monotonic() + 10
    while living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(process.pid)
    with catalogue.open_index(tmp_path / "index", identity=identity) as store:
        assert store.verify() == []
        there = len(store.rows())
        assert 0 < there < 24
    done = script(tmp_path, pause=0)
    out, _ = done.communicate(timeout=60)
    assert f"({24 - there}, {there}, [])" in out


def living(session):
    """Whether a process of that session is still there (as a zombie it is not: nobody here can
    reap it).
    """
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


@pytest.mark.slow
def test_real_music(tmp_path, corpora, hasher):
    files = sorted((corpora / "music" / "audio").iterdir())[:2]
    with opened(tmp_path / "index", hasher) as store:
        assert add(store, hasher, files)[:3] == (2, 0, [])
        for row in store.rows():
            expected = hasher.hash_samples(audio.read(row.path, sample_rate=RATE))
            np.testing.assert_array_equal(store.words_of([row.id])[0], expected)
