r"""What the package can do before anything is trained: recordings found again, and covers.

    python -m experiments.show --workdir=runs/demo     # the first stage of make demo

The originals of the songbook (or of another manifest, --corpus) go into two indexes: one of
semitone-32, which finds recordings, and one of harmony-120, which finds works. Clips of the
originals are asked as they are and degraded; and of every cover it is asked which original is the
nearest to it. What is printed after a dollar is what a user types, and runs as it stands there; the
table asks the same by ``seqhash.open_searcher``.

Writes WORKDIR/show: the indexes, the clips of the commands, show.json and found.png. What is in
show.json is not asked again, so a killed run goes on by the same command.

Expect 40 s on 2 cores, all clips found, and nine of ten covers.
"""

import csv
import io
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from absl import flags
from matplotlib.figure import Figure

from seqhash import (
    audio,
    cli,
    corpus,
    cover_codes,
    digests,
    evaluate,
    export,
    files,
    metrics,
    songbook,
    style,
    tables,
)
from seqhash.codes import Hasher
from seqhash.index import compare
from seqhash.index.identify import Match, Searcher, open_searcher
from seqhash.robustness import degrade

from . import script

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "folder of the run")
_CORPUS = flags.DEFINE_string(
    "corpus", None, "manifest of originals and covers (.csv); default: the built-in songbook"
)
_CLIPS = flags.DEFINE_integer("clips", 40, "clips asked of each kind", lower_bound=1)

RECORDINGS, WORKS = "semitone-32", "harmony-120"  # hashers
SECONDS = 3.0  # of a clip
KINDS = {  # of clips: degradations of the robustness report, in words
    "a clip as it is": "clean",
    "in noise as loud as it is": "noise_0db",
    "through a telephone": "telephone",
    "two semitones higher": "pitch_+2",
    "played 10 % faster": "speed_+10%",
    "in a noisy bar, by telephone": "bar",
}
SHOWN = {"in noise as loud as it is": "noisy.wav", "two semitones higher": "higher.wav"}  # clips
COVER, COVERS = "a cover", "a cover, its nearest original"
TRIED = 10  # covers, for one in another key that a command shows
RATE = degrade.SAMPLE_RATE

Answers = dict[str, list[dict[str, Any]]]  # to queries of a kind


class Clip(NamedTuple):
    """Part of an original, degraded."""

    samples: np.ndarray  # float32 (samples,) at RATE
    work: str
    place: float  # s of the original that sound at its start


class Shown(NamedTuple):
    """A line of the picture."""

    what: str
    code_rate: float
    here: compare.Comparison
    elsewhere: compare.Comparison


def main() -> int:
    """Shows; returns the exit status."""
    folder = Path(_WORKDIR.value) / "show"
    recordings = corpus.recordings(_CORPUS.value or songbook.write(folder.parent / "songbook"))
    corpus.require_covers(recordings)
    known = evaluate.roles(recordings)
    originals, covers = ([recordings[i] for i in some] for some in (known.originals, known.covers))
    folder.mkdir(parents=True, exist_ok=True)
    listed = _write_manifest(folder / "originals.csv", originals)
    indexes = {name: folder / f"{name}.index" for name in (RECORDINGS, WORKS)}
    print(f"\n{RECORDINGS} finds recordings: here {SECONDS:g} s in noise, and transposed.\n")
    _seqhash("add", f"--index={indexes[RECORDINGS]}", str(listed))
    sounds = [audio.read(original.path, sample_rate=RATE) for original in originals]
    clips = {kind: list(_clips(originals, sounds, entry)) for kind, entry in _kinds().items()}
    asked = {kind: folder / name for kind, name in SHOWN.items()}
    for kind, path in asked.items():
        soundfile.write(path, clips[kind][0].samples, RATE)
    _seqhash("identify", f"--index={indexes[RECORDINGS]}", *map(str, asked.values()))
    print(f"\n{WORKS} finds works, whoever plays them, in any key.\n")
    _seqhash("add", f"--index={indexes[WORKS]}", f"--hasher={WORKS}", str(listed))
    searchers = {name: open_searcher(p, export.load_hasher(name)) for name, p in indexes.items()}

    path = folder / "show.json"
    answers = _kept(path, made_of := _made_of(searchers, recordings))
    for kind, some in clips.items():
        if kind not in answers:
            answers[kind] = [_answer(searchers[RECORDINGS], clip) for clip in some]
            _keep(path, made_of, answers)
    if COVERS not in answers:
        answers[COVERS] = _nearest(searchers[WORKS].hasher, originals, covers)
        _keep(path, made_of, answers)
    found = _first_found(searchers[WORKS], covers, answers[COVERS])
    if found is not None:
        asked[COVER] = found.path
        _seqhash("identify", f"--index={indexes[WORKS]}", str(found.path))

    print(f"\nAll together: {_CLIPS.value} clips of each kind, {len(covers)} covers.\n")
    print(tables.text(table(answers), left=2))
    print(
        "\nA clip is right where the answer is its recording; a cover, where of all originals its"
        "\nown is the nearest in any of twelve keys. Both indexes keep 64 bytes a second of music."
    )
    shown = [
        line
        for kind, one in asked.items()
        for line in _shown(kind, one, searchers[WORKS if kind == COVER else RECORDINGS])
    ]
    if shown:
        print(f"Picture: {style.save(_draw(shown), folder / 'found.png')}")
    print(f"Answers: {path}")
    return 0


def _write_manifest(path: Path, recordings: Sequence[corpus.Recording]) -> Path:
    """A manifest of some of a corpus's recordings."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["path", "work_id", "role", "title"])
    rows.writerows([one.path, one.work, one.role, one.title] for one in recordings)
    with files.replacing(path) as file:
        file.write(text.getvalue().encode())
    return path


def _seqhash(*arguments: str) -> None:
    """Prints and runs a command; ValueError where it cannot do what it is asked for."""
    print("$", shlex.join(["seqhash", *arguments]), flush=True)
    status = cli.main(arguments)
    if status == cli.EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if status > cli.EXIT_NONE:
        raise ValueError(f"seqhash {arguments[0]} ended with status {status}.")


def _kinds() -> dict[str, degrade.Degradation]:
    known = degrade.registry()
    return {kind: known[name] for kind, name in KINDS.items()}


def _clips(
    originals: Sequence[corpus.Recording],
    sounds: Sequence[np.ndarray],
    entry: degrade.Degradation,
) -> Iterator[Clip]:
    """Degraded clips of the originals in turn, at places that are the same for all degradations."""
    count = round(SECONDS * entry.time_scale * RATE)
    for i in range(_CLIPS.value):
        rng, which = np.random.default_rng(i), i % len(originals)
        begin = int(rng.integers(max(1, len(sounds[which]) - count)))
        heard = entry.apply(rng, sounds[which][begin : begin + count])
        yield Clip(heard, originals[which].work, begin / RATE)


def _made_of(searchers: Mapping[str, Searcher], recordings: Sequence[corpus.Recording]) -> str:
    """What all answers depend on."""
    contents = digests.of_files([recording.path for recording in recordings])
    return digests.of([[one.hasher.digest for one in searchers.values()], contents, _CLIPS.value])


def _kept(path: Path, made_of: str) -> Answers:
    """The answers of a run that was made of the same."""
    if path.exists() and (before := files.read_json(path)).get("made_of") == made_of:
        return dict(before["answers"])
    return {}


def _keep(path: Path, made_of: str, answers: Answers) -> None:
    command = script.command("show")
    about = {"command": command, "versions": evaluate.versions(), "made_of": made_of}
    script.write_json(path, about | {"answers": answers})


def _best(searcher: Searcher, samples: np.ndarray) -> tuple[str, Match] | None:
    """The work of the best match and the match, of samples at the hasher's rate."""
    matches = searcher.identify(samples)
    works = {row.id: row.work for row in searcher.rows}
    return (works[matches[0].recording], matches[0]) if matches else None


def _answer(searcher: Searcher, clip: Clip) -> dict[str, Any]:
    """What is said to a clip: its work, that of the answer or None, and where that lies."""
    found = _best(searcher, soxr.resample(clip.samples, RATE, searcher.hasher.sample_rate))
    if found is None:
        return {"work": clip.work, "answer": None}
    work, match = found
    off = match.offset - match.start * match.tempo - clip.place
    return {"work": clip.work, "answer": work, "score": match.score, "offset_error": off}


def _nearest(
    hasher: Hasher,
    originals: Sequence[corpus.Recording],
    covers: Sequence[corpus.Recording],
) -> list[dict[str, Any]]:
    """Which original is most alike to each cover, all of the one against all of the other."""
    assert isinstance(hasher, cover_codes.CoverHasher)

    def states(recording: corpus.Recording) -> np.ndarray:
        samples = audio.read(recording.path, sample_rate=hasher.sample_rate)
        return hasher.states_of(hasher.frames_of([samples]))

    alike = metrics.alikeness(
        [cover_codes.asked(states(cover), weighted=True) for cover in covers],
        [cover_codes.words_of(states(original)) for original in originals],
        length=evaluate.RANKED_CODES,
    )
    return [
        {"work": cover.work, "answer": originals[row.argmax()].work, "alike": float(row.max())}
        for cover, row in zip(covers, alike, strict=True)
    ]


def _first_found(
    searcher: Searcher, covers: Sequence[corpus.Recording], answers: Sequence[Mapping[str, Any]]
) -> corpus.Recording | None:
    """A cover in another key whose original ``identify`` names: the likeliest of all, of a few."""
    order = sorted(range(len(covers)), key=lambda i: -answers[i]["alike"])
    for i in order[:TRIED]:
        samples = audio.read(covers[i].path, sample_rate=searcher.hasher.sample_rate)
        found = _best(searcher, samples)
        if found and found[0] == covers[i].work and found[1].pitch:
            return covers[i]
    return None


def table(answers: Answers) -> list[list[str]]:
    """What was asked, and how often the answer was right, wrong or none."""
    lines = [["query", "hasher", "right, %", "wrong, %", "no match, %", "place off by"]]
    for kind in (*KINDS, COVERS):
        given = answers[kind]
        right = [one for one in given if one["answer"] == one["work"]]
        silent = sum(one["answer"] is None for one in given)
        counts = (len(right), len(given) - len(right) - silent, silent)
        shares = [f"{100 * count / len(given):.0f}" for count in counts]
        off = [abs(one["offset_error"]) for one in right if "offset_error" in one]
        away = f"{1000 * statistics.median(off):.0f} ms" if off else ""
        lines.append([kind, WORKS if kind == COVERS else RECORDINGS, *shares, away])
    return lines


def _shown(kind: str, path: Path, searcher: Searcher) -> Iterator[Shown]:
    """A query beside the recording that it is found in, if it is."""
    hasher = searcher.hasher
    samples = audio.read(path, sample_rate=hasher.sample_rate)
    found = _best(searcher, samples)
    if found is None:
        return
    match = found[1]
    held = searcher.collection
    place = int(np.searchsorted(held.ids, match.recording))
    words = held.words[slice(*held.starts[place : place + 2])]
    key = f", {match.pitch:+.0f} semitones" if match.pitch else ""
    what = "a cover" if kind == COVER else f"{SECONDS:g} s" + (" in noise" if not key else "")
    places = [
        compare.beside(samples, there, match, hasher=hasher)
        for there in (words, np.roll(words, len(words) // 2, axis=0))
    ]
    yield Shown(what + key, hasher.code_rate, *places)


def _draw(shown: Sequence[Shown]) -> Figure:
    """The bits that differ, black: where queries are found, and half the recording away."""
    figure = Figure(figsize=(9.0, 0.4 + 2.2 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False, sharey="row")
    for query, row in zip(shown, panels, strict=True):
        titles = (f"{query.what}, where it is found", "the same, elsewhere in the song")
        for axes, title, one in zip(row, titles, (query.here, query.elsewhere), strict=True):
            codes, bits = one.differences.shape
            axes.imshow(
                one.differences.T,
                aspect="auto",
                origin="lower",
                interpolation="nearest",
                cmap="binary",
                vmin=0,
                vmax=1,
                extent=(one.start_a, one.start_a + codes / query.code_rate, 0, bits),
            )
            axes.set_title(f"{title}: {one.bit_error_rate:.0%} of bits differ", fontsize="medium")
        row[0].set_ylabel("bit")
    for axes in panels[-1]:
        axes.set_xlabel("time in the query (s)")
    return figure


if __name__ == "__main__":
    script.run(main)
