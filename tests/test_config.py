import dataclasses

import pytest

from seqhash import config as configs
from seqhash.config import Config, ModelConfig, from_flat_dict, override, to_flat_dict
from tests.later import LaterConfig


def test_the_paper_is_the_default():
    config = Config()
    assert (config.mfcc.sample_rate, config.mfcc.frame_length, config.mfcc.frame_step) == (
        16_000,
        400,
        160,
    )
    assert (config.mfcc.coeffs, config.mfcc.filters, config.mfcc.fft_length) == (13, 26, 512)
    assert (config.segment_seconds, config.code_rate, config.words) == (1.0, 4.0, 4)
    assert config.code.threshold == "zero"
    assert config.train.epochs == 40


def test_override_takes_values_and_text_alike():
    from_text = override(
        Config(),
        ["model.hidden_size=256", "train.learning_rate=1e-4", "segment.normalisation=none"],
    )
    from_values = override(
        Config(),
        {"model.hidden_size": 256, "train.learning_rate": 1e-4, "segment.normalisation": "none"},
    )
    assert from_text == from_values
    assert hash(from_text) == hash(from_values)  # legal as a static argument
    assert from_text.words == 8
    assert Config().words == 4


def test_a_config_survives_its_flat_dict():
    config = override(Config(), {"model.layers": 2, "mfcc.lifter": 0})
    assert from_flat_dict(to_flat_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["model.hiden_size=256"],
            "Unknown config field 'model.hiden_size'; the fields are: mfcc.sample_rate",
        ),
        (["hidden_size=256"], "Unknown config field"),
        (["model.hidden_size"], "name=value"),
        (["model.hidden_size=100"], "multiple of 32, got 100"),
        (["model.hidden_size=12.5"], "of type int, got '12.5'"),
        ({"model.hidden_size": 12.5}, "of type int, got 12.5"),
        ({"model.layers": True}, "of type int, got True"),
        (["model.decoder_input=everything"], "one of nothing, own, truth, got 'everything'"),
        (["mfcc.fft_length=256"], "at least mfcc.frame_length = 400, got 256"),
        (["mfcc.coeffs=27"], "1 to mfcc.filters = 26, got 27"),
        (["mfcc.high_hz=9000"], "8000"),
        (["train.batch_size=0"], "must be positive, got 0"),
        (["train.validation_fraction=1"], r"in \[0, 1\)"),
        (["model.truncation=-1"], "truncation must not be negative, got -1"),
        (["train.clip_norm=-0.5"], "clip_norm must not be negative, got -0.5"),
        (["train.learning_rate=nan"], "learning_rate must be finite, got nan"),
        ({"train.learning_rate": float("inf")}, "learning_rate must be finite, got inf"),
        (["train.final_fraction=2"], r"in \[0, 1\], got 2"),
    ],
)
def test_what_makes_no_sense_is_refused_with_expected_and_got(changes, message):
    with pytest.raises(ValueError, match=message):
        override(Config(), changes)


@pytest.mark.slow
def test_every_field_can_be_reached_by_override():
    for name, value in to_flat_dict(Config()).items():
        assert override(Config(), {name: value}) == Config()
        assert override(Config(), [f"{name}={value}"]) == Config()


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().layers = 2  # type: ignore[misc]


def test_identity_counts_a_later_field_only_where_it_is_set(later):
    was = configs.identity(Config())
    assert set(to_flat_dict(LaterConfig())) > set(to_flat_dict(Config()))
    assert was == configs._FIRST  # the first version's count, and no later one at its default
    assert configs.identity(LaterConfig()) == was
    changed = override(LaterConfig(), {"ear.exponent": 1.0, "mfcc.dither": 0.1})
    assert configs.identity(changed) == was | {"ear.exponent": 1.0, "mfcc.dither": 0.1}


def test_what_later_versions_add_has_its_default_in_what_was_written_before(later):
    assert from_flat_dict(to_flat_dict(Config())) == LaterConfig()
    assert configs.encoding_part(override(LaterConfig(), {"ear.exponent": 1.0})) != LaterConfig()


def test_a_field_that_is_gone_may_be_there_with_the_value_that_is_left():
    assert "mfcc.variant" not in to_flat_dict(Config())
    written = to_flat_dict(Config()) | {"mfcc.variant": "psf"}
    assert from_flat_dict(written) == Config()
    assert configs.identity(Config())["mfcc.variant"] == "psf"
    with pytest.raises(ValueError, match=r"mfcc\.variant can only be 'psf' .*got 'librosa'"):
        from_flat_dict(written | {"mfcc.variant": "librosa"})
    with pytest.raises(ValueError, match=r"Unknown config field 'mfcc\.shape'"):
        from_flat_dict(written | {"mfcc.shape": "psf"})


def test_the_first_versions_fields_are_counted_for_ever():
    assert configs.identity(Config()) == configs._FIRST
    changes = {"train.epochs": 3, "model.layers": 2}
    assert configs.identity(override(Config(), changes)) == configs._FIRST | changes
