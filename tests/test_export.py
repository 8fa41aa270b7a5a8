import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from seqhash import autoencoder, codes, export, mfcc, reference, songbook
from seqhash.config import Config, override
from tests.later import LaterConfig
from tests.test_mfcc import music_like

pytestmark = pytest.mark.usefixtures("compiled_quickly")

STATISTICS = mfcc.Statistics(
    np.array([-2, *np.linspace(-20, 20, 12)], np.float32),
    np.array([4, *np.linspace(10, 30, 12)], np.float32),
)


def exported(tmp_path, **changes):
    config = override(Config(), {"model.hidden_size": 64, **changes})
    params = autoencoder.init_params(jax.random.key(0), config)
    medians = np.linspace(-0.1, 0.1, 64, dtype=np.float32)
    hasher = codes.make_hasher(config, params, STATISTICS, name="mine", medians=medians)
    return hasher, export.export_hasher(hasher, tmp_path / "mine", card="# mine\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.layers": 2},
        {"code.threshold": "median"},
        {"segment.normalisation": "recording"},
        {"segment.normalisation": "segment"},
        {"segment.normalisation": "none", "mfcc.lifter": 0},
    ],
    ids=str,
)
def test_an_exported_hasher_gives_the_same_bits_in_jax_and_in_numpy_alone(tmp_path, changes):
    hasher, directory = exported(tmp_path, **changes)
    signal = music_like(100_000)
    expected = hasher.hash_samples(signal)
    assert expected.shape == (21, 2)
    loaded = export.load_hasher(directory)
    assert (loaded.name, loaded.digest, loaded.config) == ("mine", hasher.digest, hasher.config)
    np.testing.assert_array_equal(loaded.hash_samples(signal), expected)
    np.testing.assert_array_equal(reference.hash_samples(directory, signal), expected)


def test_the_reference_needs_no_jax(tmp_path):
    _, directory = exported(tmp_path)
    program = (
        "import sys, numpy as np; from seqhash import reference;"
        f"words = reference.hash_samples({str(directory)!r}, np.sin(np.arange(20000) / 9));"
        "assert words.shape == (1, 2) and 'jax' not in sys.modules and 'flax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["semitone-32", "harmony-120"])
def test_the_packaged_hashers_need_no_flax(name):
    program = (
        "import sys, numpy as np, seqhash.cli, seqhash.index.together; from seqhash import export;"
        f"words = export.load_hasher({name!r}).hash_samples(np.sin(np.arange(20_000.0) / 9));"
        "assert len(words) and 'flax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_short_recordings_have_no_codes_in_the_reference_either(tmp_path):
    hasher, directory = exported(tmp_path)
    for samples in (0, 100, 16_080):
        short = music_like(5000)[:samples] if samples < 5000 else music_like(samples)
        assert (
            hasher.hash_samples(short).shape
            == reference.hash_samples(directory, short).shape
            == (0, 2)
        )


def test_a_later_version_with_more_fields_loads_what_was_exported(later, tmp_path):
    hasher = export.load_hasher("paper-128")
    assert isinstance(hasher.config, LaterConfig)
    assert hasher.hash_samples(music_like(20_000)).shape == (1, 4)
    exported_again = export.export_hasher(hasher, tmp_path / "again", card="")
    assert export.load_hasher(exported_again).digest == hasher.digest


def test_no_samples_have_no_code_where_a_frame_is_a_segment_either(tmp_path):
    hasher, directory = exported(tmp_path, **{"segment.frames": 1})
    for samples, count in ((0, 0), (1, 1)):
        signal = music_like(5000)[:samples]
        assert hasher.hash_samples(signal).shape == (count, 2)
        assert reference.hash_samples(directory, signal).shape == (count, 2)


@pytest.mark.slow
def test_exporting_again_replaces(tmp_path):
    _, directory = exported(tmp_path)
    hasher, _ = exported(tmp_path, **{"model.layers": 2})
    assert export.load_hasher(directory).digest == hasher.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    assert (directory / "README.md").read_text() == "# mine\n"


def test_exporting_again_keeps_what_else_is_in_the_folder(tmp_path):
    _, directory = exported(tmp_path)
    (directory / "notes").mkdir()
    (directory / "notes" / "thesis.txt").write_text("years of work")
    exported(tmp_path)
    assert (directory / "notes" / "thesis.txt").read_text() == "years of work"


def test_an_export_that_a_kill_has_stopped_leaves_a_hasher_that_loads(tmp_path):
    hasher, directory = exported(tmp_path)
    directory.rename(tmp_path / ".mine.replaced")  # the moment between the old one and the new one
    assert export.load_hasher(directory).digest == hasher.digest
    other, _ = exported(tmp_path, **{"model.layers": 2})
    assert export.load_hasher(directory).digest == other.digest
    assert list(tmp_path.iterdir()) == [directory]


def test_an_export_that_fails_leaves_the_old_hasher(tmp_path, monkeypatch):
    hasher, directory = exported(tmp_path)
    monkeypatch.setattr(export, "to_flat_dict", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exported(tmp_path, **{"model.layers": 2})
    assert export.load_hasher(directory).digest == hasher.digest
    assert list(tmp_path.iterdir()) == [directory]


def test_what_is_no_hasher_is_refused_by_name(tmp_path):
    with pytest.raises(export.HasherError, match="no-such: no such hasher; the package has"):
        export.load_hasher("no-such")
    _, directory = exported(tmp_path)
    description = json.loads((directory / "hasher.json").read_text())
    (directory / "hasher.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(export.HasherError, match="format 99, this version reads 1"):
        export.load_hasher(directory)
    (directory / "hasher.json").write_text(json.dumps(description | {"digest": "0" * 64}))
    with pytest.raises(export.HasherError, match="not those that were exported"):
        export.load_hasher(directory)
    (directory / "hasher.json").write_text("{")
    with pytest.raises(export.HasherError, match="damaged"):
        export.load_hasher(directory)
    (directory / "hasher.json").write_text(json.dumps(description))
    (directory / "weights.npz").write_bytes((directory / "weights.npz").read_bytes()[:1000])
    with pytest.raises(export.HasherError, match="damaged"):
        export.load_hasher(directory)


def test_what_is_no_packaged_kind_is_not_exported(tmp_path):
    hasher = codes.make_hasher(
        override(Config(), {"model.hidden_size": 32}),
        np.zeros((1, 32), np.float32),
        STATISTICS,
        name="floor",
        encode=lambda params, segments, config: segments[:, 0, :1] + params,
    )
    with pytest.raises(
        ValueError, match="Only hashers of the autoencoder, of bands and of harmony"
    ):
        export.export_hasher(hasher, tmp_path / "x", card="")


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else than a hasher"):
        exported(tmp_path)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_the_package_carries_the_papers_hasher():
    hasher = export.load_hasher("paper-128")
    directory = export.find_hasher("paper-128")
    assert (hasher.name, hasher.code_rate, hasher.config.words) == ("paper-128", 4.0, 4)
    assert sum(file.stat().st_size for file in directory.iterdir()) < 500_000
    card = (directory / "README.md").read_text()
    assert hasher.digest in card
    assert "untrained LSTM" in card
    assert "    python -m experiments.reproduce --workdir=runs/demo\n" in card
    samples = songbook.render("greensleeves", "cov1", seed=0)[:160_000]
    words = hasher.hash_samples(samples)
    assert words.shape == (36, 4)
    np.testing.assert_array_equal(reference.hash_samples(directory, samples), words)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").mean()
    assert 0.3 < bits < 0.7
