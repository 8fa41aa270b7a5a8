import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from sklearn.decomposition import PCA

from experiments import script
from seqhash import batches, controls, corpus, evaluate, features, metrics, mfcc
from seqhash.config import Config, override
from seqhash.corpus import Recording
from seqhash.features import Store

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = override(Config(), {"model.hidden_size": 32, "segment.frames": 20, "segment.hop": 10})
STATISTICS = mfcc.Statistics(np.zeros(13, np.float32), np.ones(13, np.float32))


def corpus_of_walks(works: int = 4) -> Store:
    """Each work is a random walk; cov1 is it with a little noise, cov2 another walk altogether."""
    rng = np.random.default_rng(0)
    rows, cepstra = [], []
    for work in range(works):
        walk = np.cumsum(rng.standard_normal((300, 13)), axis=0).astype(np.float32)
        walk = (walk - walk.mean(axis=0)) / walk.std(axis=0)
        other = np.cumsum(rng.standard_normal((300, 13)), axis=0).astype(np.float32)
        versions = {
            "orig": walk,
            "cov1": walk + 0.01 * rng.standard_normal(walk.shape).astype(np.float32),
            "cov2": other,
        }
        for name, values in versions.items():
            role, key = (
                ("original", "0") if name == "orig" else ("cover", "0" if name == "cov1" else "5")
            )
            path = Path(f"w{work}_{name}.wav")
            genre = "country" if work < 2 else "classical"
            rows.append(
                Recording(
                    path.stem, path, f"w{work}", role, f"Work {work}", genre, {"key_shift": key}
                )
            )
            cepstra.append(values)
    return Store(tuple(rows), tuple(cepstra), {}, ())


@pytest.fixture(scope="module")
def result():
    store = corpus_of_walks()
    hasher = controls.untrained(jax.random.key(0), CONFIG, STATISTICS)
    system = evaluate.measure(
        [evaluate.hash_corpus(hasher, store.cepstra)], store.recordings, lengths=(1, 9)
    )
    others = evaluate.floor_systems(
        CONFIG, STATISTICS, store.cepstra, store.recordings, store.cepstra, lengths=(1, 9)
    )
    return evaluate.report(system, others, store.recordings, config=CONFIG, resamples=100)


@pytest.mark.slow
def test_covers_that_are_copies_are_found_and_splits_tell_them_apart(result):
    accuracy = result["cover_accuracy"]["9"]
    assert accuracy["splits"]["same key"]["value"] > 0.9  # cov1, nearly a copy
    assert accuracy["splits"]["other key"]["value"] < 0.6  # cov2, unrelated
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert set(accuracy["splits"]) == {"genre classical", "genre country", "same key", "other key"}
    assert accuracy["windows"] == 8 * (29 - 9 + 1)


@pytest.mark.slow
def test_floors_are_there_and_chance_is_chance(result):
    assert set(result["floors"]) == {
        "chance",
        "untrained LSTM",
        "random projection",
        "PCA-sign",
        "random codes",
    }
    assert result["floors"]["chance"]["cover_accuracy"]["1"]["value"] == 0.25
    assert result["floors"]["random codes"]["cover_accuracy"]["1"]["lenient"] < 0.45
    assert (
        len(result["floors"]["untrained LSTM"]["cover_accuracy"]["1"]["by_seed"])
        == evaluate.FLOOR_SEEDS
    )
    assert result["corpus"] == {"recordings": 12, "originals": 4, "covers": 8, "works_left_out": []}


def test_gain_is_the_difference_of_the_accuracies(result):
    for name, gain in result["gain"].items():
        for n, difference in gain.items():
            ours, theirs = (
                source["cover_accuracy"][n]["value"] for source in (result, result["floors"][name])
            )
            assert np.isclose(difference["value"], ours - theirs, atol=1e-9)
            assert difference["low"] <= difference["value"] <= difference["high"]


def test_table_and_verdict_read_as_sentences(result):
    lines = evaluate.table(result, name="mine").splitlines()
    assert len({line.count("|") for line in lines}) == 1  # a rectangle
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in lines
    }
    assert cells["paper, its own corpus"][:2] == ["10.42", "20.28"]
    accuracy = result["cover_accuracy"]["1"]
    assert cells["mine"][0].startswith(
        f"{100 * accuracy['value']:.2f} [{100 * accuracy['low']:.1f}, "
    )
    assert cells["chance"][:2] == ["25.00", "25.00"]
    splits = evaluate.split_table(result, name="mine").splitlines()
    assert len(splits) == 2 + 4 * 3
    assert any(line.startswith("| same key: mine") for line in splits)


def test_verdict_needs_five_works(result):
    assert {gain["works"] for gains in result["gain"].values() for gain in gains.values()} == {4}
    assert evaluate.verdict(result).count("too few works to say") == 4
    for works, value, word in (
        (5, 0.1, "better"),
        (5, -0.1, "worse"),
        (5, 0.0, "no different"),
        (4, 0.1, "too few"),
    ):
        gain = {"1": {"value": value, "low": value - 0.01, "high": value + 0.01, "works": works}}
        assert word in evaluate.verdict(
            {"gain": {"untrained LSTM": gain, "random projection": gain}}
        )


def test_epoch_metrics_with_and_without_roles():
    store = corpus_of_walks()
    hasher = controls.untrained(jax.random.key(0), CONFIG, STATISTICS)
    row = evaluate.epoch_metrics(hasher, store.recordings, store.cepstra)
    assert row["unique_rate"] + row["collision_rate"] == 1.0
    codes = evaluate.hash_corpus(hasher, store.cepstra)
    covers, originals = (
        [i for i, r in enumerate(store.recordings) if r.role == role]
        for role in ("cover", "original")
    )
    expected = metrics.cover_accuracy(
        [codes[i] for i in covers],
        [store.recordings[i].work for i in covers],
        [codes[i] for i in originals],
        [store.recordings[i].work for i in originals],
        lengths=(1, 9),
    )
    assert row["accuracy"] == {n: values.value for n, values in expected.items()}
    plain = [Recording(r.id, r.path, "", "", "", "", {}) for r in store.recordings]
    assert "accuracy" not in evaluate.epoch_metrics(hasher, plain, store.cepstra)


def test_covers_whose_original_could_not_be_read_are_left_out(capsys):
    whole = corpus_of_walks()
    keep = [i for i, recording in enumerate(whole.recordings) if recording.id != "w1_orig"]
    store = whole._replace(
        recordings=tuple(whole.recordings[i] for i in keep),
        cepstra=tuple(whole.cepstra[i] for i in keep),
    )
    hasher = controls.untrained(jax.random.key(0), CONFIG, STATISTICS)
    codes = evaluate.hash_corpus(hasher, store.cepstra)
    system = evaluate.measure([codes], store.recordings, lengths=(1, 9))
    assert system.tallies[1].windows.shape == (6,)
    result = evaluate.report(
        system, {"same": system}, store.recordings, config=CONFIG, resamples=10
    )
    assert result["corpus"] == {
        "recordings": 11,
        "originals": 3,
        "covers": 6,
        "works_left_out": ["w1"],
    }
    assert (
        evaluate.epoch_metrics(hasher, store.recordings, store.cepstra)["accuracy"]
        == system.by_seed[0]
    )
    script.require_covers(store)
    assert capsys.readouterr().err == "work w1 is left out: its original could not be read\n"
    covers = Store(*(tuple(part[i] for i in (1, 2)) for part in whole[:2]), {}, ())
    assert "accuracy" not in evaluate.epoch_metrics(hasher, covers.recordings, covers.cepstra)
    with pytest.raises(corpus.ManifestError, match="no recording has the role cover"):
        script.require_covers(covers)


def test_pca_sign_is_scikit_learns():
    store = corpus_of_walks()
    hasher = controls.pca_sign(store.cepstra, CONFIG, STATISTICS)
    segments = np.concatenate(
        [
            np.stack([np.clip(one[i : i + 20], -5, 5) for i in range(0, 281, 10)])
            for one in store.cepstra
        ]
    ).reshape(-1, 260)
    components = PCA(32, svd_solver="full").fit_transform(segments)
    states = np.concatenate([hasher.states_of(one) for one in store.cepstra])
    np.testing.assert_allclose(
        np.abs(states), np.abs(components), atol=2e-2
    )  # a component's sign is free


def test_random_projection_keeps_angles():
    """The share of differing bits is the angle over pi (Charikar 2002)."""
    config = override(CONFIG, {"model.hidden_size": 4096})
    hasher = controls.random_projection(jax.random.key(0), config, STATISTICS)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 260))
    b = a + 0.5 * b
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    states = [np.asarray(hasher.states_of(v.reshape(20, 13).astype(np.float32)))[0] for v in (a, b)]
    assert np.isclose(((states[0] > 0) != (states[1] > 0)).mean(), angle / np.pi, atol=0.03)


def test_floors_of_a_trained_run_use_its_normalisation():
    config = override(CONFIG, {"segment.normalisation": "recording", "train.batch_size": 8})
    store = corpus_of_walks()
    dataset = batches.make_dataset(store, config=config)
    hasher = controls.pca_sign(store.cepstra, config, dataset.statistics)
    shifted = store.cepstra[0] * 3 + 10  # undone by the recording's own statistics
    np.testing.assert_allclose(
        hasher.states_of(shifted), hasher.states_of(store.cepstra[0]), atol=1e-3
    )


def with_key_shift(shift: str) -> Recording:
    return Recording("c1", Path("c1.wav"), "w", "cover", "", "", {"key_shift": shift})


@pytest.mark.parametrize("shift", ["up a bit", "nan"])
def test_a_key_shift_that_is_no_number_is_named(shift):
    with pytest.raises(ValueError, match=f"c1: key_shift must be a number, got '{shift}'"):
        evaluate.splits([with_key_shift("0"), with_key_shift(shift)])


def test_keys_are_split_over_the_covers_that_tell():
    masks = evaluate.splits([with_key_shift(shift) for shift in ("0", "", "-12", "5", " ")])
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "same key": [True, False, True, False, False],
        "other key": [False, False, False, True, False],
    }


def test_a_recording_of_one_code_is_prepared_and_one_that_lacks_10_ms_is_not(tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(16_081)
    for name, signal in {"one": samples, "nearly": samples[1:], "none": samples[170:]}.items():
        soundfile.write(tmp_path / f"{name}.wav", signal, 16_000)
    report = features.prepare_for(
        Config(), corpus.recordings(tmp_path), tmp_path / "features", workers=1
    )
    assert [Path(path).name for path, _ in report.failed] == ["none.wav"]
    assert "too short" in report.failed[0][1]


def states_of_walks() -> tuple[list[np.ndarray], list[Recording]]:
    """Each work is a random ring of states; cov1 is it in its own key, cov2 five semitones higher,
    cov3 another altogether, of which the manifest does not say the key.
    """
    rng, states, rows = np.random.default_rng(0), [], []
    for work in range(6):
        own = rng.standard_normal((60, 120)).astype(np.float32)
        near = own + 0.3 * rng.standard_normal(own.shape).astype(np.float32)
        versions = [
            ("orig", own, "0"),
            ("cov1", near, "0"),
            ("cov2", np.roll(near, 5 * 10, axis=1), "-7"),
            ("cov3", rng.standard_normal((50, 120)).astype(np.float32), ""),
        ]
        for name, values, key in versions:
            path, role = Path(f"w{work}_{name}.wav"), "original" if name == "orig" else "cover"
            extra = {"key_shift": key}
            rows.append(Recording(path.stem, path, f"w{work}", role, "", "", extra))
            states.append(values)
    return states, rows


@pytest.mark.slow
def test_covers_in_other_keys():
    """What turns is found wherever it was turned to; the oracle asks those whose key is known."""
    states, recordings = states_of_walks()
    control = [np.roll(one, 1, axis=0)[:, ::-1].copy() for one in states]
    found = evaluate.report_keys(
        states, control, recordings, lengths=(1, 9), config=CONFIG, resamples=50
    )
    plain, weighted = found["cover_accuracy"]["9"], found["cover_accuracy_weighted"]["9"]
    oracle = found["cover_accuracy_oracle"]["9"]
    assert plain["splits"]["same key"]["value"] == plain["splits"]["other key"]["value"] == 1
    assert weighted["splits"]["other key"]["value"] == 1
    assert 0.6 < plain["value"] < 0.85
    assert oracle["value"] == 1
    assert oracle["windows"] == 12 * 52
    assert found["map"]["recordings"] == 24
    assert 0.4 < found["map"]["value"] < 0.9  # two of three versions are found, one at random
    assert found["mr1"]["low"] <= found["mr1"]["value"] <= found["mr1"]["high"]
    assert found["cover_accuracy"]["1"]["work_low"] <= found["cover_accuracy"]["1"]["value"]
    assert "random kernel" in found["floors"]
    assert "Trained minus random kernel" in evaluate.verdict(found)
    assert "true key known" in evaluate.keys_table(found)
    unknown = [dataclasses.replace(r, extra={}) for r in recordings]
    without = evaluate.report_keys(
        states, control, unknown, lengths=(9,), config=CONFIG, resamples=5
    )
    assert "cover_accuracy_oracle" not in without
