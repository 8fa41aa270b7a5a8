"""The commands, run in this process, and a few as a user runs them."""

import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jsonschema
import numpy as np
import pytest
import soundfile

from seqhash import audio, cli, corpus, decode, tables
from seqhash.index import together
from seqhash.index.catalogue import Entry, open_index
from seqhash.index.identify import Survey
from tests.test_decode import workers_that
from tests.test_ingest import fake_hasher

ROOT = Path(__file__).parents[1]
RATE = 16_000


class Done(NamedTuple):
    status: int
    out: str
    err: str


PAPER = ["--hasher=paper-128"]
SCHEMA = json.loads((ROOT / "seqhash" / "output.schema.json").read_text())


def lines(what, out):
    """Lines of JSON, each as the schema says."""
    parsed = [json.loads(line) for line in out.splitlines()]
    schema = SCHEMA | {"anyOf": [{"$ref": f"#/$defs/{what}"}]}
    for line in parsed:
        jsonschema.validate(line, schema, jsonschema.Draft202012Validator)
    return parsed


def test_the_schema_is_one_and_its_page_names_every_key():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    page = (ROOT / "docs" / "json.md").read_text()
    for what, schema in SCHEMA["$defs"].items():
        fields = schema.get("items", schema).get("properties", {})
        assert all(f"`{key}`" in page for key in fields), what
        assert {*schema.get("required", ())} <= fields.keys()


@pytest.fixture
def run(capsys):
    """run("list", "--index=..."): what the command ended with."""

    def command(*arguments):
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return command


def tune(seed, seconds=6.0):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    notes = rng.integers(48, 84, round(4 * seconds))
    frequency = 440 * 2 ** ((notes[(4 * time).astype(int)] - 69) / 12)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    return 0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase) + 0.01 * rng.standard_normal(len(time))


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for seed, name in enumerate(["one.wav", "two.flac", "three.ogg"]):
        soundfile.write(folder / name, tune(seed), RATE)
    (folder / "list.csv").write_text("path,title,artist\none.wav,First,Ann\ntwo.flac,Second,\n")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, music):
    path = tmp_path_factory.mktemp("index") / "index"
    files = [str(music / "list.csv"), str(music)]
    assert cli.main(["add", f"--index={path}", "--hasher=paper-128", *files]) == 0
    return path


@pytest.fixture
def index(tmp_path, made):
    """A copy that a test may change."""
    return shutil.copy(made, tmp_path / "index")


def ids(run, index):
    rows = [json.loads(line) for line in run("list", f"--index={index}", "--json").out.splitlines()]
    return {Path(row["path"]).name: row["id"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is missing"),
        (["frobnicate"], "there is no command 'frobnicate'; the commands are add, remove, list"),
        (["--index=x"], "there is no command '--index=x'"),
        (["list"], "--index is missing"),
        (["add", "x.wav"], "--index is missing"),
        (["add", "--index=i"], "name at least one file, folder or manifest"),
        (["add", "--index=i", "--workers=0", "x"], "--workers"),
        (["add", "--index=i", "--worker=2", "x"], "Unknown command line flag 'worker'"),
        (["list", "--index=i", "--json=perhaps"], "perhaps"),
        (["list", "--index=gone"], "no such index"),
        (["list", "--index=i", "more"], "unexpected argument 'more'"),
        (["export", "--index=i"], "--to is missing"),
        (["export", "--index=i", "--to=x.zip"], ".faiss, .npz, .parquet"),
        (["import", "--index=i", "gone.npz"], "gone.npz"),
        (["merge", "--index=i"], "name at least one other index"),
        (["identify", "--index=i"], "name at least one file"),
        (["identify", "--index=i", "-", "-"], "read once"),
        (["identify", "--index=i", "--plot=p.png", "a", "b"], "one query"),
        (["identify", "--index=i", "--format=mp3", "a"], "s16le|f32le"),
        (["identify", "--index=i", "--rate=1", "-"], "[1000, 768000]"),
        (["identify", "--index=i", "--false_positive_rate=nan", "a"], "nan is not a number"),
        (["add", "--index=i", "--channel=left", "x"], "first, mix or a number from 1, got 'left'"),
        (["compare", "a"], "name two files"),
        (["compare", "a", "b", "--plot=p.svg"], ".png"),
        (["compare", "a", "b", "--hasher=nobody"], "no such hasher"),
        (["compare", "gone_a", "gone_b"], "gone_a: no such file"),
    ],
    ids=str,
)
def test_a_wrong_command_is_one_line_and_status_2(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.status == cli.EXIT_BAD_INPUT
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not any(tmp_path.iterdir())  # a command that fails leaves no empty index


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["in"], ["info"]),
        (["compact", "--"], ["--index=", "--help"]),
        (["identify", "--js"], ["--json"]),
        (["identify", "--index=music.index", "clip"], []),  # a file, by bash's default
    ],
)
def test_a_shell_completes_commands_and_flags(run, words, completed):
    script = run("completion").out
    asked = f"COMP_WORDS=(seqhash {' '.join(words)}); COMP_CWORD={len(words)}"
    ask = f"{script}\n{asked}\n_seqhash seqhash {words[-1]}\necho ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed, done.stderr


def test_help_lists_the_commands_and_their_flags(run):
    overview = run("--help")
    assert overview.status == 0
    lines = overview.out.splitlines()
    everyday = ["add", "remove", "list", "info", "merge", "verify", "compact", "export", "import"]
    assert [*cli.COMMANDS] == [*everyday, "identify", "compare", "completion"]
    for name in cli.COMMANDS:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1
        text = run(name, "--help").out
        assert text.startswith(f"usage: seqhash {name} ")
        assert text.splitlines()[1].startswith(f"example: seqhash {name} ")
        assert run("help", name).out == text
    flags = run("add", "--help").out
    assert all(
        flag in flags
        for flag in ("--index=INDEX", "--hasher=HASHER", "--workers=WORKERS", "--strict")
    )
    assert "semitone-32" in flags


def test_the_version_and_the_suffixes_are_told(run):
    version = importlib.metadata.version("seqhash")
    assert run("--version") == (0, f"seqhash {version}\n", "")
    assert all(suffix in run("add", "--help").out for suffix in corpus.SUFFIXES)


def test_a_name_that_begins_with_a_dash_and_a_wrong_value_are_told_plainly(
    run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert "A file whose" not in run("identify", "--index=i", "-dash.wav").err
    Path("-dash.wav").touch()
    done = run("identify", "--index=i", "-dash.wav")
    assert "A file whose name begins with a dash: ./-dash.wav." in done.err
    assert "('" not in run("list", "--index=i", "--json=yes").err
    Path("x.parquet").write_bytes(b"PAR1" + bytes(99))
    assert (
        "Parquet, which is only written; 'seqhash export --to=F"
        in run("import", "--index=i", "x.parquet").err
    )


def test_add_counts_what_it_did(run, tmp_path, music):
    (tmp_path / "bad.wav").write_text("no")
    first = run(
        "add", f"--index={tmp_path / 'i'}", music / "one.wav", tmp_path / "bad.wav", "--workers=1"
    )
    assert first.status == 0
    assert first.out == "added 1, already there 0, failed 1\n"
    assert first.err.splitlines()[0] == "new index, hasher semitone-32"
    assert first.err.splitlines()[1].startswith(f"failed {tmp_path / 'bad.wav'}: ")
    again = run(
        "add", f"--index={tmp_path / 'i'}", music / "one.wav", tmp_path / "bad.wav", "--strict"
    )
    assert (again.status, again.out) == (cli.EXIT_FAILED, "added 0, already there 1, failed 1\n")


def test_add_of_nothing_that_can_be_used_fails_and_leaves_no_index(run, tmp_path, music):
    bad, index = tmp_path / "bad\n.wav", tmp_path / "i"
    bad.write_text("no")
    done = run("add", f"--index={index}", bad)
    assert (done.status, done.out) == (cli.EXIT_FAILED, "added 0, already there 0, failed 1\n")
    assert done.err.splitlines()[-1].startswith(f"failed {tmp_path / 'bad .wav'}: ")
    assert not index.exists()
    run("add", f"--index={index}", music / "one.wav")
    assert run("add", f"--index={index}", bad).status == cli.EXIT_FAILED
    assert ids(run, index).keys() == {"one.wav"}


def test_an_add_that_was_stopped_while_it_made_its_index_goes_on(run, tmp_path, music, monkeypatch):
    monkeypatch.setattr(cli, "_load_hasher", lambda *_: fake_hasher())
    index = tmp_path / "i"
    index.touch()
    assert "run that again" in run("list", f"--index={index}").err
    done = run("add", f"--index={index}", music / "one.wav")
    assert (done.status, done.out) == (0, "added 1, already there 0, failed 0\n")


def test_list_shows_the_recordings(run, made, music):
    table = run("list", f"--index={made}").out.splitlines()
    assert table[0].split() == ["id", "length", "title", "artist", "path"]
    (line,) = [line for line in table if "one.wav" in line]
    assert line.split()[1:] == ["0:06.00", "First", "Ann", str(music / "one.wav")]
    rows = lines("list", run("list", f"--index={made}", "--json").out)
    assert {Path(row["path"]).name: row["title"] for row in rows} == {
        "one.wav": "First",
        "two.flac": "Second",
        "three.ogg": "",
    }
    assert {row["codes"] for row in rows} == {20}


def test_the_columns_of_a_table_are_straight_whatever_is_in_it(run, index):
    words = np.zeros((5, 4), np.uint32)
    with open_index(index) as opened:
        for digit, title in enumerate(("日本語 🎵", "x" * 5000, "e\u0301 \u202eab", "\x1b[31m")):
            opened.add([Entry("/p", str(digit) * 64, words, 1.0, title, title[:3], "", {})])
    first, *table = run("list", f"--index={index}").out.splitlines()
    assert all(tables.width(line[: line.index("/")]) == first.index("path") for line in table)
    assert max(map(len, table)) < 250
    assert "\x1b" not in "".join(table)
    assert "x" * 5000 in run("list", f"--index={index}", "--json").out


def test_an_error_moves_no_cursor(run):
    assert "\x1b" not in run("list", "--index=\x1b[2J").err


def test_info_and_verify(run, made):
    (info,) = lines("info", run("info", f"--index={made}", "--json").out)
    assert (info["recordings"], info["codes"], info["hasher"]["name"]) == (3, 60, "paper-128")
    assert "paper-128" in run("info", f"--index={made}").out
    assert run("verify", f"--index={made}") == (0, "0 problems\n", "")


@pytest.mark.slow
def test_info_says_what_the_index_can_answer(run, made):
    assert "seqhash info --answers" in run("info", f"--index={made}").out
    (info,) = lines("info", run("info", f"--index={made}", "--answers", "--json").out)
    answers = info["answers"]
    assert answers["false_positive_rate"] == 0.01
    assert list(answers["answered"]) == ["0.5", "1", "2", "3", "5"]  # of recordings of 6 s
    assert answers["answered"]["0.5"] == 0  # shorter than a segment
    assert 0 < max(answers["answered"].values()) <= 1
    text = run("info", f"--index={made}", "--answers").out
    shortest = answers["shortest_clip"]
    assert ("no length" if shortest is None else f"{shortest:g} s") + ", of which 95%" in text


def test_verify_tells_of_damage(run, index):
    data = bytearray(index.read_bytes())
    position = data.find(b"First")
    data[position : position + 5] = b"Worst"
    index.write_bytes(data)
    done = run("verify", f"--index={index}")
    assert done.status == cli.EXIT_NONE
    assert "one.wav" in done.out
    assert done.out.endswith("1 problems\n")
    removed = run("remove", f"--index={index}", "1")  # as the message says
    assert (removed.status, removed.out) == (0, "removed 1\n")
    assert run("verify", f"--index={index}").status == 0


def test_remove_by_id_and_by_path(run, index, music, monkeypatch):
    known = ids(run, index)
    # Digits of other scripts may be a file's name, and are no id.
    wrong = run("remove", f"--index={index}", known["one.wav"], "999", "\u0661", "gone.wav")
    assert wrong.status == cli.EXIT_BAD_INPUT
    assert "not in the index: 999, \u0661, gone.wav; nothing was removed" in wrong.err
    monkeypatch.chdir(music)
    assert run("remove", f"--index={index}", known["one.wav"], "two.flac").out == "removed 2\n"
    assert ids(run, index).keys() == {"three.ogg"}
    assert run("compact", f"--index={index}").status == 0


def test_remove_by_folder(run, index, music, tmp_path):
    (tmp_path / "more" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "more" / "deep" / "four.wav", tune(4), RATE)
    shutil.copy(music / "one.wav", tmp_path / "more" / "copy.wav")
    assert run("add", f"--index={index}", tmp_path / "more").out.startswith("added 1, already the")
    assert run("remove", f"--index={index}", tmp_path / "mor").status == cli.EXIT_BAD_INPUT
    assert run("remove", f"--index={index}", tmp_path / "more").out == "removed 1\n"
    assert ids(run, index).keys() == {"one.wav", "two.flac", "three.ogg"}
    done = run("remove", f"--index={index}", music)
    assert done.out == "removed 2, kept 1 that have a copy elsewhere\n"
    assert ids(run, index).keys() == {"copy.wav"}
    soundfile.write(tmp_path / "more" / "five.wav", tune(5), RATE)
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "more" / "five.wav", tmp_path / "one")
    run("add", f"--index={index}", tmp_path / "one", tmp_path / "more" / "five.wav")
    done = run("remove", f"--index={index}", tmp_path / "one")  # as of many, so of one
    assert done.out == "removed 0, kept 1 that have a copy elsewhere\n"
    assert run("remove", f"--index={index}", tmp_path / "more" / "five.wav").out == "removed 1\n"


def test_adding_again_starts_no_jax(index, music):
    program = (
        "import sys; from seqhash import cli\n"
        f"cli.main(['add', '--index={index}', '--hasher=paper-128', '{music}'])\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("Error")) == (0, 0)
    assert done.stdout == "added 0, already there 3, failed 0, skipped 1\n"


def test_export_import_and_merge(run, index, tmp_path):
    faiss = run("export", f"--index={index}", f"--to={tmp_path / 'x.faiss'}")
    assert faiss.status == 0
    assert (tmp_path / "x.faiss").stat().st_size == 60 * 16 + 4 + 4 + 4 + 8 + 1 + 4 + 8
    assert run("export", f"--index={index}", f"--to={tmp_path / 'x.npz'}").status == 0
    other = tmp_path / "other"
    assert run("import", f"--index={other}", tmp_path / "x.npz").out == "added 3, already there 0\n"
    assert ids(run, other).keys() == ids(run, index).keys()
    run("remove", f"--index={other}", ids(run, other)["one.wav"])
    assert run("merge", f"--index={other}", index).out == "added 1, already there 2\n"
    assert (
        run("merge", f"--index={tmp_path / 'third'}", other, index).out
        == "added 3, already there 3\n"
    )


@pytest.mark.slow
def test_compare(run, music, tmp_path):
    soundfile.write(tmp_path / "part.wav", tune(0)[32_000:80_000], RATE)
    done = run("compare", "--hasher=paper-128", music / "one.wav", tmp_path / "part.wav", "--json")
    (found,) = lines("compare", done.out)
    assert (found["a"], found["b"]) == (str(music / "one.wav"), str(tmp_path / "part.wav"))
    assert (found["start_a"], found["start_b"], found["codes"]) == (2.0, 0.0, 8)
    assert found["bit_error_rate"] < 0.02
    table = run(
        "compare",
        "--hasher=paper-128",
        music / "one.wav",
        tmp_path / "part.wav",
        f"--plot={tmp_path / 'p.png'}",
    )
    assert found["seconds"] == 2.75  # as the table says
    assert "0:02.00" in table.out
    assert "in 8 codes" in table.out
    assert found["verdict"] == "cannot tell"  # three seconds are too few for these codes
    assert table.out.splitlines()[-1].startswith("cannot tell: ")
    assert f"{found['deviations']:.1f} deviations" in table.out
    assert table.out.splitlines()[1].split()[1:] == [
        "0:02.00",
        "0:04.75",
    ]  # codes at 0, 0.25, ... 1.75 s, of 1 s each
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_crashes_its_decoder_is_told_in_one_line(run, music, monkeypatch):
    workers_that(monkeypatch, "ctypes.string_at(0)\nyield")
    done = run("compare", *PAPER, music / "one.wav", music / "two.flac")
    reason = f"{music / 'one.wav'}: the process that decoded it ended (SIGSEGV)"
    assert done == (cli.EXIT_BAD_INPUT, "", f"error: {reason}\n")


@pytest.mark.slow
def test_what_is_wrong_with_a_file_that_is_used_is_in_json(run, searcher, music, tmp_path):
    cut = tmp_path / "cut.wav"
    cut.write_bytes((music / "one.wav").read_bytes()[:-64_000])
    flaw = {"path": str(cut), "reason": "cut: 128000 of 192000 bytes of samples are there"}
    flaw |= {"start": 4.0, "seconds": 2.0}
    done = run("compare", *PAPER, "--json", music / "two.flac", cut)
    assert lines("compare", done.out)[0]["warnings"] == [flaw]
    assert done.err.count("warning") == 1

    def read(self, path, *, report, **_):  # as of several indexes
        report(audio.Flaw(cut, flaw["reason"], 4.0, 2.0))
        report(audio.Flaw(cut, flaw["reason"], 4.0, 2.0))
        return "quiet"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeSearcher, "read", read)
        done = run("identify", "--index=i", "--json", cut, "other.wav")
    assert [line["warnings"] for line in lines("identify", done.out)] == [[flaw], [flaw]]
    assert done.err.count("warning") == 2


def test_compare_says_which_file_is_too_short(run, music, tmp_path):
    soundfile.write(tmp_path / "short.wav", tune(0)[:15_000], RATE)
    done = run("compare", "--hasher=paper-128", music / "one.wav", tmp_path / "short.wav")
    reason = "too short: 0.938 s, at least 1.00506 s needed"
    assert done == (cli.EXIT_BAD_INPUT, "", f"error: {tmp_path / 'short.wav'}: {reason}\n")


# identify: the contract, with a search that answers as it is told.


class FakeMatch(NamedTuple):
    recording: int
    path: str
    title: str
    start: float
    end: float
    offset: float
    distance: int
    bit_error_rate: float
    score: float
    artist: str
    pitch: float
    tempo: float
    work: str = ""


FOUND = FakeMatch(
    2, "/music/two.flac", "Second", 0.25, 4.0, 61.5, 12, 0.0125, 8.5, "Someone", 0.0, 1.0
)


class FakeSearcher:
    """Answers by the names of files; notes what it is asked."""

    def __init__(self, asked, hasher):
        self.asked, self.hasher, self.channel, self.variants = asked, hasher, "first", False
        self.rows = [SimpleNamespace(id=i, digest=f"{i}") for i in range(3)]
        self.false_positive_rate = 0.01

    def identify(self, samples):
        self.asked.samples = samples
        return [FOUND._replace(start=0.0, end=len(samples) / RATE)]

    def read(self, path, **options):
        self.asked.reading = options
        if "bad" in path:
            raise cli.audio.AudioError(path, "not audio")
        return path

    def survey(self, asked, *, misses):
        if isinstance(asked, list):
            return Survey(self.identify(*asked), [], 0.0)
        if "quiet" in asked:
            return Survey([], [], 0.0, 0.25 if "short" in asked else None)
        return Survey([FOUND, FOUND._replace(recording=1, title="", score=3.0)], [], 0.0)

    def along(self, samples, recording, offset):
        return None


@pytest.fixture
def searcher(monkeypatch, tmp_path, made):
    """Stands in for a searcher of the index ``i`` here; notes what it is asked."""
    asked = SimpleNamespace(samples=None, options=None, channels={})

    def open_searcher(path, hasher, **options):
        asked.options, made = options, FakeSearcher(asked, hasher)
        made.channel = asked.channels.get(path, "first")
        return made

    monkeypatch.setattr(together, "open_searcher", open_searcher)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with open_index(made, readonly=True) as index:
        open_index("i", identity=index.identity, create=True).close()
    return asked


MATCH = {
    "recording": 2,
    "path": "/music/two.flac",
    "title": "Second",
    "artist": "Someone",
    "start": 0.25,
    "end": 4.0,
    "offset": 61.5,
    "distance": 12,
    "bit_error_rate": 0.0125,
    "score": 8.5,
    "pitch": 0.0,
    "tempo": 1.0,
    "work": "",
    "index": "i",
    "gone": True,
}


def test_a_match_that_was_played_otherwise_says_so(run, searcher):
    assert "played" not in run("identify", "--index=i", "some.wav").out
    shifted = FOUND._replace(pitch=-2.0, tempo=1.1)
    there = together.Found(FOUND, "i", False)
    shifted = there._replace(match=shifted)
    assert cli._match_cells(shifted)[-1] == "-2.0 semitones, +10% tempo"
    assert cli._match_cells(there)[-1] == ""
    assert cli._match_cells(there._replace(gone=True))[0] == (
        "Second (/music/two.flac), which is gone"
    )


def test_identify_prints_one_json_line_a_file(run, searcher):
    done = run("identify", "--index=i", "some.wav", "quiet.wav", "bad.wav", "--json")
    assert done.status == cli.EXIT_FAILED
    assert lines("identify", done.out) == [
        {
            "query": "some.wav",
            "matches": [MATCH, MATCH | {"recording": 1, "title": "", "score": 3.0}],
            "error": None,
            "warnings": [],
        },
        {"query": "quiet.wav", "matches": [], "error": None, "warnings": []},
        {"query": "bad.wav", "matches": [], "error": "not audio", "warnings": []},
    ]
    assert done.err == ""


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (["some.wav"], 0),
        (["quiet.wav"], 1),
        (["quiet.wav", "some.wav"], 0),
        (["quiet.wav", "quiet2.wav"], 1),
        (["some.wav", "bad.wav"], 3),
        (["bad.wav"], 3),
    ],
    ids=str,
)
def test_the_status_of_identify_tells_answers_from_none_and_failures(run, searcher, files, status):
    assert run("identify", "--index=i", *files).status == status
    assert run("identify", "--index=i", "--json", *files).status == status


def test_identify_as_a_table(run, searcher):
    done = run(
        "identify", "--index=i", "--false_positive_rate=0.01", "some.wav", "quiet.wav", "bad.wav"
    )
    lines = done.out.splitlines()
    assert lines[0] == "some.wav:"
    assert lines[1].split() == ["recording", "query", "offset", "bit", "error", "rate", "score"]
    assert lines[2].split() == [
        "Second",
        *["(/music/two.flac),", "which", "is", "gone"],
        "0:00.25-0:04.00",
        "1:01.50",
        "1.2%",
        "8.50",
    ]
    assert lines[3].split()[0] == "/music/two.flac,"
    assert lines[4:] == ["quiet.wav: no match"]
    assert done.err == "failed bad.wav: not audio\n"
    assert searcher.options == {"false_positive_rate": 0.01, "everywhere": False}


def test_a_clip_that_is_too_short_for_the_index_is_told_so(run, searcher):
    said = "no match; too short: of its own clips of this length an index answers 25%"
    assert run("identify", "--index=i", "short quiet.wav").out == f"short quiet.wav: {said}\n"
    (line,) = lines("identify", run("identify", "--index=i", "--json", "short quiet.wav").out)
    assert (line["matches"], line["reach"]) == ([], 0.25)


def test_a_file_name_does_not_break_a_line(run, searcher):
    assert run("identify", "--index=i", "quiet\n.wav").out == "quiet .wav: no match\n"
    assert run("identify", "--index=i", "bad\n.wav").err == "failed bad .wav: not audio\n"
    assert run("identify", "--index=i", "some\n.wav").out.splitlines()[0] == "some .wav:"


@pytest.mark.parametrize(("name", "dtype", "scale"), [("s16le", "<i2", 32768), ("f32le", "<f4", 1)])
def test_identify_reads_raw_samples(run, searcher, monkeypatch, name, dtype, scale):
    samples = np.array([0, 0.5, -1, 0.25] * 5000)
    data = (samples * scale).astype(dtype).tobytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    done = run("identify", "--index=i", *PAPER, "--json", f"--format={name}", "-")
    begins, ends = lines("identify-stream", done.out)
    assert (begins["query"], begins["event"], ends["event"]) == ("-", "begins", "ends")
    assert (begins["time"], begins["matches"]) == (1.25, [MATCH | {"start": 0.0, "end": 1.25}])
    np.testing.assert_array_equal(searcher.samples, samples.astype(np.float32))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    run("identify", "--index=i", *PAPER, f"--format={name}", "--rate=8000", "-")
    assert searcher.samples.shape == (40_000,)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    done = run("identify", "--index=i", *PAPER, "--json", f"--format={name}", "--channel=2", "-")
    assert done.status == cli.EXIT_FAILED
    assert "channel" in lines("identify", done.out)[0]["error"]
    for broken in (data[:1], b""):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(broken)))
        done = run("identify", "--index=i", *PAPER, "--json", f"--format={name}", "-")
        assert done.status == cli.EXIT_FAILED
        assert f"got {len(broken)} bytes" in lines("identify", done.out)[0]["error"]


def test_identify_takes_the_channel_of_the_index_unless_another_is_named(run, searcher):
    for flag, channel, strict in (([], "first", False), (["--channel=2", "--strict"], "2", True)):
        run("identify", "--index=i", *PAPER, *flag, "some.wav")
        assert searcher.reading.pop("report")
        assert isinstance(searcher.reading.pop("read").__self__, decode.Reader)
        assert searcher.reading == {"channel": channel, "strict": strict}


@pytest.mark.parametrize("more", [[], ["--plot=x.png"]])
def test_standard_input_is_asked_of_indexes_that_hear_alike(run, searcher, made, more):
    with open_index(made, readonly=True) as index:
        open_index("mixed", identity=index.identity, channel="mix", create=True).close()
    both = ["identify", "--index=i", "--index=mixed", *PAPER, *more, "-"]
    searcher.channels = {"mixed": "mix"}
    done = run(*both)
    assert done.status == cli.EXIT_BAD_INPUT
    assert "one sample rate and channel only" in done.err


def test_a_reader_of_a_stream_that_ends_early_is_no_failure(searcher, monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes(80_000))))
    monkeypatch.setattr(cli, "_print_event", broken)
    with pytest.raises(BrokenPipeError):
        cli._run(["identify", "--index=i", *PAPER, "--format=s16le", "-"])


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_identify_understands_a_header_on_standard_input(run, searcher, monkeypatch, form):
    file = io.BytesIO()
    soundfile.write(file, np.stack([tune(0), 0 * tune(0)], 1), 22_050, format=form)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.getvalue())))
    run("identify", "--index=i", *PAPER, f"--plot={form}.png", "-")
    assert len(searcher.samples) == pytest.approx(6 * RATE * RATE / 22_050, abs=1)


def test_damage_is_told_with_the_name_of_the_file_or_strictly_refused(run, made, tmp_path, music):
    path = tmp_path / "cut\nhere.wav"
    path.write_bytes((music / "one.wav").read_bytes()[:-64_000])
    index = shutil.copy(made, tmp_path / "index")
    text = f"{tmp_path}/cut here.wav: cut: 128000 of 192000 bytes of samples are there: 2.00 s lost"
    for flags, status, said in ((["--strict"], 3, "failed"), ([], 0, "warning")):
        done = run("add", f"--index={index}", *PAPER, *flags, path)
        assert (done.status, done.err.strip()) == (status, f"{said} {text} at 4.00 s")


def test_identify_draws_the_best_match(run, searcher, made, music, tmp_path, monkeypatch):
    found = FOUND._replace(recording=ids(run, made)["one.wav"], start=0.0, end=3.0, offset=2.1)
    monkeypatch.setattr(FakeSearcher, "survey", lambda *_, misses: Survey([found], [], 0.0))
    soundfile.write(tmp_path / "part.wav", tune(0)[33_600:81_600], RATE)
    assert (
        run(
            "identify", f"--index={made}", f"--plot={tmp_path / 'p.png'}", tmp_path / "part.wav"
        ).status
        == 0
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_an_answer_stands_without_its_picture(run, searcher, made, tmp_path):
    plot = tmp_path / "p.png"
    none = run("identify", f"--index={made}", f"--plot={plot}", "quiet.wav")
    assert (none.status, none.err) == (cli.EXIT_NONE, "no picture: no match\n")
    gone = run(
        "identify", f"--index={made}", f"--plot={plot}", "some.wav"
    )  # the search answers, but there is no file
    assert (gone.status, gone.err) == (0, "no picture: some.wav: no such file\n")
    assert not plot.exists()


def test_a_picture_that_cannot_be_written_is_refused_first(run, searcher, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for target in (
        tmp_path / "folder.png",
        tmp_path / "file" / "p.png",
        tmp_path / ("x" * 300 + ".png"),
    ):
        done = run("identify", "--index=i", f"--plot={target}", "some.wav")
        assert (done.status, done.out) == (cli.EXIT_BAD_INPUT, "")
        assert f"--plot: {target} cannot be written" in done.err
    assert searcher.options is None
    assert {path.name for path in tmp_path.iterdir()} == {"folder.png", "file", "here"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00.00"),
        (59.996, "1:00.00"),
        (61.5, "1:01.50"),
        (3599.999, "1:00:00.00"),
        (7322.25, "2:02:02.25"),
        (-1.5, "-0:01.50"),
        (-0.001, "0:00.00"),
    ],
)
def test_times(seconds, text):
    assert cli._time(seconds) == text


def test_ctrl_c_is_a_line_and_status_130(run, monkeypatch, music):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.ingest, "gather", interrupted)
    done = run("add", "--index=i", music)
    assert done.status == cli.EXIT_INTERRUPTED
    assert done.err == "interrupted\n"


def test_an_interrupted_add_says_how_many_were_added(run, monkeypatch, music, tmp_path):
    real = cli.ingest.add_files

    def interrupted(index, hasher, recordings, **options):
        real(index, hasher, recordings.recordings[:2], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.ingest, "add_files", interrupted)
    done = run("add", f"--index={tmp_path / 'i'}", music)
    assert done.status == cli.EXIT_INTERRUPTED
    assert "\ninterrupted; added 2; the index is whole" in done.err


def test_ctrl_c_ends_the_program_with_status_130():
    program = """
import sys
from seqhash import cli
def interrupted(paths): raise KeyboardInterrupt
cli.ingest.gather = interrupted
sys.argv = ["seqhash", "add", "--index=i", "x"]
sys.exit(cli.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (cli.EXIT_INTERRUPTED, 1)


# As a user runs it.


def command(*arguments, before=(), **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [*before, sys.executable, "-m", "seqhash.cli", *map(str, arguments)]
    return subprocess.run(program, env=environment, capture_output=True, timeout=120, **options)


def test_catalogue_commands_start_without_jax(made):
    program = (
        "import sys; from seqhash import cli\n"
        f"cli.main(['list', '--index={made}']); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True)


def test_a_reader_that_ends_early_is_no_traceback(made):
    program = f"{{ {sys.executable} -m seqhash.cli list --index={made}; echo $? >&2; }} | true"
    done = subprocess.run(program, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == f"{cli.EXIT_BROKEN_PIPE}\n"


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [("list --index={} >&-", "output"), ("identify --index={} - <&-", "input")],
)
def test_a_closed_stream_is_no_traceback(made, arguments, stream):
    program = f"{sys.executable} -m seqhash.cli {arguments.format(made)}"
    done = subprocess.run(program, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == cli.EXIT_BAD_INPUT
    assert done.stderr.count("\n") == 1
    assert f"standard {stream}" in done.stderr
    assert "closed" in done.stderr


@pytest.mark.slow
def test_add_and_identify_as_a_user_does(tmp_path, music):
    index = tmp_path / "index"
    added = command("add", f"--index={index}", music)
    assert (added.returncode, added.stdout) == (
        0,
        b"added 3, already there 0, failed 0, skipped 1\n",
    )
    assert b"skipped, not audio by their names: 1 .csv" in added.stderr
    samples = tune(1)[20_000:84_000]
    data = (samples * 32767).astype("<i2").tobytes()
    done = command("identify", f"--index={index}", "--json", "-", input=data)
    assert done.returncode == 0, done.stderr
    events = lines("identify-stream", done.stdout.decode())
    assert [event["event"] for event in events] == ["begins", "ends"]
    answer = events[-1]
    best = answer["matches"][0]
    assert best["path"] == str(music / "two.flac")
    assert best["offset"] - best["start"] == pytest.approx(20_000 / RATE, abs=0.26)
    assert answer["error"] is None


@pytest.mark.slow
def test_from_a_disk_that_is_only_read(made, music):
    """All but changes; root is read-only to nobody, so it gives up what lets it write all."""
    root = os.geteuid() == 0
    before = ["setpriv", "--bounding-set=-dac_override", "--"] if root else []
    if root and not shutil.which("setpriv"):
        pytest.skip("root without setpriv")
    with tempfile.TemporaryDirectory() as name:
        folder, index = Path(name), Path(name) / "index"
        shutil.copy(made, index)
        for file in ("one.wav", "two.flac"):
            shutil.copy(music / file, folder)
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)

        def run(what, *arguments):
            arguments = (what, f"--index={index}", *arguments)
            done = command(*arguments, before=before, cwd=folder, text=True)
            return Done(done.returncode, done.stdout, done.stderr)

        assert run("list").out.count("\n") == 4
        assert run("info").status == run("verify").status == 0
        answer = lines("identify", run("identify", "--json", "two.flac").out)[0]
        assert Path(answer["matches"][0]["path"]).name == "two.flac"
        for arguments in (["add", "one.wav"], ["remove", "1"], ["compact"]):
            done = run(*arguments)
            assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
            assert "index: cannot be written; give yourself write permission, or" in done.err
        done = run("add", "one.wav", f"--index={folder / 'new'}")
        assert "new: its folder cannot be written, and writing needs a file beside it" in done.err
        assert sorted(os.listdir(folder)) == ["index", "one.wav", "two.flac"]
        folder.chmod(0o755)


@pytest.mark.slow
def test_a_new_index_has_the_first_choice_and_an_old_one_keeps_its_hasher(
    run, tmp_path, music, index
):
    new = tmp_path / "new"
    assert run("add", f"--index={new}", music / "one.wav").err.startswith("new index, hasher semi")
    grown = run("add", f"--index={index}", music)
    assert (grown.status, grown.out) == (0, "added 0, already there 3, failed 0, skipped 1\n")
    for path, name in ((new, "semitone-32"), (index, "paper-128")):
        info = json.loads(run("info", f"--index={path}", "--json").out)
        assert info["hasher"]["name"] == name
        (answer,) = run("identify", f"--index={path}", "--json", music / "one.wav").out.splitlines()
        assert Path(json.loads(answer)["matches"][0]["path"]).name == "one.wav"
