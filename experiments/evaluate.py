r"""A trained model and a corpus of covers to the paper's table, with floors, intervals and
pictures.

    python -m experiments.evaluate --workdir=runs/mine --corpus=covers.csv

Without --corpus, the training corpus is evaluated, as the paper seems to do. Writes
WORKDIR/results.json and WORKDIR/figures/: mfcc.png (the paper's Fig. 3.3), pca.png (Fig. 4.1),
accuracy.png, bits.png.

    python -m experiments.evaluate --hasher=harmony-120 --corpus=covers.csv --workdir=runs/harmony

measures a hasher that is there already, of the package or in a folder, and needs no training. Of
one whose codes turn with the key, every window counts at the nearest of twelve rotations; beside
that stand the weighted and the oracle's accuracy, and the measures of whole recordings, and
pca.png. --degradation is what has happened to the covers (noise_0db with --noise, pitch_+12, ...).
--distractors are recordings of other works among the originals, thousands if need be: their codes
alone are held, and of all windows together only the nearest counts. Neither controls nor whole
recordings are measured among them. Beside 60 covers of 80 s, a thousand recordings of 40 s take ten
minutes of a core.

Expect 40 s to 1.5 minutes for 80 recordings on 2 cores, and for 20 works of real covers 10 % at 1
hash and 18 % at 9, for the trained model and for its floors alike (chance 5 %; docs/results.md).
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import soxr
from absl import flags

from seqhash import (
    audio,
    batches,
    checkpoint,
    controls,
    corpus,
    digests,
    evaluate,
    export,
    features,
    figures,
    metrics,
    mfcc,
    parallel,
)
from seqhash.codes import Hasher
from seqhash.cover_codes import CoverHasher
from seqhash.robustness import degrade
from seqhash.train import read_rows

from . import script

OCTAVE = "pitch_+12"  # all voices an octave higher
HASHED = 256  # distractors whose samples are held at a time: 300 MB

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of a trained run", required=True)
_CORPUS = flags.DEFINE_string(
    "corpus", None, "manifest with originals and covers; default: the training corpus"
)
_HASHER = flags.DEFINE_string(
    "hasher", None, "a hasher of the package or a folder, instead of the trained run's"
)
_DEGRADATION = flags.DEFINE_enum(
    "degradation", None, [*degrade.NAMES, OCTAVE], "what has happened to the covers; needs --hasher"
)
_NOISE = flags.DEFINE_string("noise", None, "noises of --degradation; default: synthesised")
_DISTRACTORS = flags.DEFINE_string(
    "distractors", None, "recordings of other works, added to the originals; needs --hasher"
)
_LENGTHS = flags.DEFINE_list(
    "lengths", [str(n) for n in metrics.PAPER_LENGTHS], "numbers of consecutive hashes"
)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "bootstrap draws", lower_bound=1)


def main() -> int:
    """Evaluates; returns the exit status."""
    parallel.use_all_cores()
    workdir = Path(_WORKDIR.value)
    if _HASHER.value is None and (_DEGRADATION.value or _DISTRACTORS.value):
        raise ValueError("--degradation and --distractors need --hasher.")
    if _NOISE.value and not _DEGRADATION.value:
        raise ValueError("--noise needs --degradation.")
    if _HASHER.value is not None:
        return _evaluate_hasher(_HASHER.value, workdir)
    trained = checkpoint.load_trained(workdir / "checkpoints")
    training_store = features.open_store(workdir / "features")
    features.require(training_store, trained.config)
    if trained.corpus not in batches.digests_of(training_store, config=trained.config):
        raise ValueError(
            f"{workdir / 'features'}: holds other recordings than the model was trained on; "
            "run prepare with the training corpus again "
            "(and name another one to evaluate by --corpus)."
        )
    store = _evaluation_store(workdir, training_store, trained.config)
    script.require_covers(store)
    lengths = script.whole_numbers("lengths", _LENGTHS.value)

    hashers = {
        kind: checkpoint.hasher_of(trained, name=f"trained, threshold {kind}", threshold=kind)
        for kind in ("zero", "median")
    }
    codes = {kind: evaluate.hash_corpus(hasher, store.cepstra) for kind, hasher in hashers.items()}
    systems = {
        kind: evaluate.measure([coded], store.recordings, lengths=lengths)
        for kind, coded in codes.items()
    }
    main_kind = trained.config.code.threshold
    other_kind = "median" if main_kind == "zero" else "zero"
    others = {hashers[other_kind].name: systems[other_kind]} | evaluate.floor_systems(
        trained.config,
        trained.statistics,
        training_store.cepstra,
        store.recordings,
        store.cepstra,
        lengths=lengths,
    )
    result = evaluate.report(
        systems[main_kind],
        others,
        store.recordings,
        config=trained.config,
        resamples=_RESAMPLES.value,
    )
    result["hasher"] = hashers[main_kind].digest
    result["training"] = _training(workdir, trained, training_store, store)
    command = script.command("evaluate")
    script.write_json(workdir / "results.json", {"command": command} | result)
    print(evaluate.table(result, name=hashers[main_kind].name))
    print(evaluate.split_table(result))
    print("Accuracy in %, any tie is wrong (the paper's rule), 95 % interval over covers.")
    print(f"Setting: {result['training']['setting']}.")
    if trained.epoch < trained.config.train.epochs:
        print(f"epoch {trained.epoch} of {trained.config.train.epochs}: not finished")
    print(evaluate.verdict(result))
    _draw(workdir, result, hashers[main_kind], store, codes[main_kind])
    print(f"Pictures: {workdir / 'figures'}; numbers: {workdir / 'results.json'}")
    return 0


def _evaluate_hasher(name: str, workdir: Path) -> int:
    """Evaluates a hasher that is there already; returns the exit status."""
    if _CORPUS.value is None:
        raise ValueError("--hasher needs --corpus, a manifest with originals and covers.")
    hasher = export.load_hasher(name)
    lengths = script.whole_numbers("lengths", _LENGTHS.value)
    recordings = corpus.recordings(_CORPUS.value)
    corpus.require_covers(recordings)
    evaluate.splits([recording for recording in recordings if recording.role == "cover"])
    others = () if _DISTRACTORS.value is None else corpus.recordings(_DISTRACTORS.value)
    workdir.mkdir(parents=True, exist_ok=True)
    kept, samples, failed = script.read_samples(recordings, hasher)
    script.report_failures(failed)
    script.report_lost(kept)
    known = evaluate.roles(kept)
    corpus.require_covers([kept[i] for i in (*known.originals, *known.covers)])
    if _DEGRADATION.value is not None:
        samples = _degraded(samples, known.covers, hasher.sample_rate)
    distractors = _hashed(others, hasher)
    if isinstance(hasher, CoverHasher):
        result = _turned(hasher, kept, samples, distractors, lengths=lengths)
    else:
        result = _plain(hasher, kept, samples, distractors, lengths=lengths)
    result["hasher"] = hasher.digest
    result["heard"] = {
        "degradation": _DEGRADATION.value or "clean",
        "distractors": len(distractors),
    }
    command = script.command("evaluate")
    script.write_json(workdir / "results.json", {"command": command} | result)
    print(evaluate.table(result, name=hasher.name))
    print(evaluate.split_table(result, name=hasher.name))
    if isinstance(hasher, CoverHasher):
        print(evaluate.keys_table(result))
    print("Accuracy in %, any tie is wrong (the paper's rule), 95 % interval over covers.")
    print(evaluate.verdict(result))
    print(f"Numbers: {workdir / 'results.json'}")
    return 0


def _turned(
    hasher: CoverHasher,
    recordings: Sequence[corpus.Recording],
    samples: Sequence[np.ndarray],
    distractors: Sequence[np.ndarray],
    *,
    lengths: Sequence[int],
) -> dict[str, Any]:
    """The report of a hasher whose codes turn with the key, beside a random kernel; draws the
    states of the covers.
    """
    control = controls.random_harmony(jax.random.key(0), hasher.config)
    frames = [hasher.frames_of([one]) for one in samples]
    states = [hasher.states_of(one) for one in frames]
    asked = [i for i in evaluate.roles(recordings).covers if len(states[i])]
    drawn = Path(_WORKDIR.value) / "figures" / "pca.png"
    _draw_states([states[i] for i in asked], [recordings[i] for i in asked], drawn)
    return evaluate.report_keys(
        states,
        [control.states_of(one) for one in frames],
        recordings,
        lengths=lengths,
        config=hasher.config,
        resamples=_RESAMPLES.value,
        distractors=distractors,
    )


def _plain(
    hasher: Hasher,
    recordings: Sequence[corpus.Recording],
    samples: Sequence[np.ndarray],
    distractors: Sequence[np.ndarray],
    *,
    lengths: Sequence[int],
) -> dict[str, Any]:
    """The report of any other hasher; of one of bands, beside controls that did not learn."""
    unlearned = {}
    if hasher.config.encoder.front_end == "bands" and not distractors:
        unlearned["unlearned"] = controls.difference(hasher.config)
        unlearned["random kernel"] = controls.random_kernel(jax.random.key(0), hasher.config)
    system, *measured = (
        evaluate.measure(
            [one.hash_many(samples)], recordings, lengths=lengths, distractors=distractors
        )
        for one in (hasher, *unlearned.values())
    )
    return evaluate.report(
        system,
        dict(zip(unlearned, measured, strict=True)),
        recordings,
        config=hasher.config,
        resamples=_RESAMPLES.value,
        distractors=len(distractors),
    )


def _hashed(recordings: Sequence[corpus.Recording], hasher: Hasher) -> list[np.ndarray]:
    """Words of all that can be read, uint32 (codes, words) each; the samples of a few are held."""
    words: list[np.ndarray] = []
    for first in range(0, len(recordings), HASHED):
        _, samples, failed = script.read_samples(recordings[first : first + HASHED], hasher)
        script.report_failures(failed)
        words += hasher.hash_many(samples)
    return words


def _draw_states(states: list[np.ndarray], recordings: list[corpus.Recording], path: Path) -> None:
    """The first two components of the states of recordings, by work, and by genre if there are
    several.
    """
    sizes = [len(one) for one in states]
    genres = np.repeat([one.genre for one in recordings], sizes)
    figures.pca_figure(
        np.concatenate(states),
        np.repeat([one.work for one in recordings], sizes),
        path,
        titles={one.work: one.title for one in recordings if one.title},
        genres=genres if len(set(genres)) > 1 else None,
    )


def _degraded(samples: list[np.ndarray], covers: list[int], rate: int) -> list[np.ndarray]:
    """The covers as --degradation leaves them, by a generator of each; all else as it is."""
    noises = None
    if _NOISE.value is not None:
        files = corpus.recordings(_NOISE.value)
        noises = [audio.read(one.path, sample_rate=degrade.SAMPLE_RATE) for one in files]
    applied = {name: one.apply for name, one in degrade.registry(noises).items()}
    applied[OCTAVE] = functools.partial(degrade.pitch, semitones=12)
    apply = applied[_DEGRADATION.value or "clean"]

    def degraded(i: int) -> np.ndarray:
        played = soxr.resample(samples[i], rate, degrade.SAMPLE_RATE)
        return soxr.resample(apply(np.random.default_rng(i), played), degrade.SAMPLE_RATE, rate)

    return [degraded(i) if i in covers else one for i, one in enumerate(samples)]


def _evaluation_store(workdir: Path, training_store: features.Store, config) -> features.Store:
    """The features of the evaluated corpus: the training corpus's own where it is the same."""
    recordings = (
        training_store.recordings if _CORPUS.value is None else corpus.recordings(_CORPUS.value)
    )
    evaluate.splits(
        [recording for recording in recordings if recording.role == "cover"]
    )  # an error now
    if _CORPUS.value is None:
        return training_store
    failed = {path for path, _ in training_store.failed}
    usable = tuple(recording for recording in recordings if str(recording.path) not in failed)
    # The names may stand for other audio by now.
    if usable == training_store.recordings and (
        digests.of_files([recording.path for recording in usable])
        == digests.of_store(training_store)
    ):
        return training_store
    corpus.require_covers(recordings)
    report = features.prepare_for(
        config, recordings, workdir / "evaluation", report=script.report_flaw
    )
    script.report_failures(report.failed)
    return features.open_store(workdir / "evaluation")


def _training(
    workdir: Path, trained, training_store: features.Store, store: features.Store
) -> dict:
    """How the model was trained, and whether on what it is evaluated on."""
    seen = set(digests.of_store(training_store))
    shared = sum(content in seen for content in digests.of_store(store))
    settings = {
        0: "trained only on other recordings",
        len(store.recordings): "trained on the recordings evaluated",
    }
    rows = [
        row for row in read_rows(workdir) if row["epoch"] <= trained.epoch
    ]  # a kill may leave later ones
    return {
        "setting": settings.get(
            shared, f"trained on {shared} of the {len(store.recordings)} recordings evaluated"
        ),
        "recordings": len(training_store.recordings),
        "epoch": trained.epoch,
        "step": trained.step,
        "loss": {
            str(row["epoch"]): row["train_loss"]
            for row in rows
            if row["epoch"] in (0, 1, trained.epoch)
        },
        "epochs": rows,
    }


def _draw(
    workdir: Path, result: dict, hasher, store: features.Store, codes: list[np.ndarray]
) -> None:
    folder = workdir / "figures"
    originals, covers, _ = evaluate.roles(store.recordings)
    first = store.recordings[originals[0]]
    frames = np.asarray(store.cepstra[originals[0]][: hasher.config.segment.frames])
    shown = mfcc.normalise(frames, hasher.statistics, config=hasher.config.segment)
    figures.mfcc_figure(
        np.asarray(shown), folder / "mfcc.png", title=f"First second of {first.title or first.id}"
    )
    states = [hasher.states_of(np.asarray(store.cepstra[i])) for i in covers]
    _draw_states(states, [store.recordings[i] for i in covers], folder / "pca.png")
    rows = {"trained": result, **result["floors"]}
    table = {
        name: {
            int(n): (a["value"], a["low"], a["high"]) for n, a in values["cover_accuracy"].items()
        }
        for name, values in rows.items()
        if name != "chance"
    }
    figures.accuracy_figure(table, folder / "accuracy.png", chance=1 / len(originals))
    figures.bits_figure(metrics.bit_means(codes), folder / "bits.png")


if __name__ == "__main__":
    script.run(main)
