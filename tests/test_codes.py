import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqhash import autoencoder, codes, controls, mfcc
from seqhash import config as configs
from seqhash.config import Config, override
from tests.test_mfcc import music_like

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = override(Config(), {"model.hidden_size": 32})
STATISTICS = mfcc.Statistics(
    np.linspace(-3, 3, 13, dtype=np.float32), np.linspace(1, 4, 13, dtype=np.float32)
)


def make(config: Config = CONFIG, **options) -> codes.Hasher:
    params = autoencoder.init_params(jax.random.key(0), config)
    return codes.make_hasher(config, params, STATISTICS, name="test", **options)


@pytest.mark.slow
def test_many_recordings_have_the_words_of_each():
    hasher = make()
    recordings = [music_like(max(n, 4100))[:n] for n in (60_000, 0, 16_081, 100, 20_081)]
    expected = [hasher.hash_samples(samples) for samples in recordings]
    for got in (
        hasher.hash_many(recordings),
        hasher._hash_stacked(recordings),
    ):  # what a CPU does, and others
        assert [words.shape for words in got] == [words.shape for words in expected]
        wrong = sum(np.bitwise_count(a ^ b).sum() for a, b in zip(got, expected, strict=True))
        assert wrong <= 2  # bits: a state within float rounding of 0
    assert hasher.hash_many([]) == []
    with pytest.raises(ValueError, match="finite"):
        hasher._hash_stacked([np.full(20_000, np.nan, np.float32)])


def test_pack_is_numpy_packbits_little():
    bits = np.random.default_rng(0).random((7, 128)) < 0.5
    words = np.asarray(codes.pack(jnp.asarray(bits)))
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, np.packbits(bits, axis=-1, bitorder="little").view("<u4"))
    np.testing.assert_array_equal(codes.unpack(jnp.asarray(words)), bits)


def test_bit_order_by_hand():
    bits = np.zeros(64, bool)
    bits[[0, 5, 32, 63]] = True
    np.testing.assert_array_equal(
        codes.pack(jnp.asarray(bits)), np.array([1 + 32, 1 + 2**31], np.uint32)
    )


def test_pack_refuses_a_part_of_a_word():
    with pytest.raises(ValueError, match="multiple of 32, got 33"):
        codes.pack(jnp.zeros((2, 33), bool))


def test_threshold_is_strict():
    states = jnp.array([[-0.1, 0.0, 0.1]])
    np.testing.assert_array_equal(codes.threshold(states, jnp.zeros(3)), [[False, False, True]])


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 100, 16_080, 16_081, 20_081, 333_333])
def test_hash_samples_is_the_composition_of_the_steps(samples):
    signal = music_like(max(samples, 4100))[:samples]
    hasher = make()
    got = hasher.hash_samples(signal)
    frames = mfcc.frame_count(samples, CONFIG.mfcc)
    assert got.shape == (mfcc.segment_count(frames, config=CONFIG.segment), 1)
    assert got.dtype == np.uint32
    if not len(got):
        return
    cepstra = mfcc.mfcc(jnp.asarray(signal), config=CONFIG.mfcc)
    segments = mfcc.normalise(
        mfcc.cut_segments(cepstra, config=CONFIG.segment), STATISTICS, config=CONFIG.segment
    )
    encode = jax.jit(autoencoder.encode, static_argnames="config")
    states = np.asarray(encode(hasher.params, segments, config=CONFIG))
    # A state within float rounding of 0 may fall on either side when the batch has another shape.
    sure = np.abs(states) > 1e-5
    assert sure.mean() > 0.95
    bits = np.asarray(codes.unpack(jnp.asarray(got)))
    np.testing.assert_array_equal(bits[sure], (states > 0)[sure])
    np.testing.assert_array_equal(
        hasher.hash_cepstra(mfcc.stream([signal], config=CONFIG.mfcc)), got
    )
    np.testing.assert_allclose(hasher.states_of(np.asarray(cepstra)), states, atol=2e-5)


@pytest.mark.parametrize("kind", ["recording", "segment"])
def test_other_normalisations_give_the_same_from_samples_and_from_cepstra(kind):
    hasher = make(override(CONFIG, {"segment.normalisation": kind}))
    signal = music_like(70_000)
    got = hasher.hash_samples(signal)
    assert len(got) == 14
    np.testing.assert_array_equal(
        hasher.hash_cepstra(mfcc.stream([signal], config=CONFIG.mfcc)), got
    )
    # The bucket's padding must not leak into the statistics.
    assert (got != make().hash_samples(signal)).any()


def test_compiles_once_per_bucket_not_per_length():
    hasher = make(
        override(CONFIG, {"segment.clip": 4.0})
    )  # a config of its own, so that nothing is compiled yet
    before = codes._words_of_samples._cache_size()
    for samples in (40_000, 41_000, 55_555, 60_000):  # 249 to 374 frames: buckets of 256 and 512
        hasher.hash_samples(music_like(samples))
    assert codes._words_of_samples._cache_size() - before == 2


def test_medians_are_used_when_asked_for():
    medians = np.linspace(-0.2, 0.2, 32, dtype=np.float32)
    hasher = make(override(CONFIG, {"code.threshold": "median"}), medians=medians)
    cepstra = mfcc.stream([music_like(60_000)], config=CONFIG.mfcc)
    bits = np.asarray(codes.unpack(jnp.asarray(hasher.hash_cepstra(cepstra))))
    np.testing.assert_array_equal(bits, hasher.states_of(cepstra) > medians)
    with pytest.raises(ValueError, match="needs the medians"):
        make(override(CONFIG, {"code.threshold": "median"}))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.full(20_000, np.nan, np.float32), "finite"),
        (np.array([0.0, np.inf]), "finite"),
        (np.full(20_000, 1e300), r"beyond 1e\+12"),
        (np.full(20_000, 1e30, np.float32), r"beyond 1e\+12"),
        (np.zeros(20_000, np.int16), "int16"),
        (np.zeros((20_000, 2), np.float32), r"\(20000, 2\)"),
    ],
)
def test_samples_that_cannot_be_hashed_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        make().hash_samples(samples)


def test_digest_follows_everything_that_decides_a_bit():
    base = make()
    assert base.digest == make().digest
    others = [
        make(override(CONFIG, {"segment.hop": 20})),
        codes.make_hasher(
            CONFIG, base.params, mfcc.Statistics(STATISTICS.mean + 1, STATISTICS.std), name="test"
        ),
        codes.make_hasher(
            CONFIG, autoencoder.init_params(jax.random.key(1), CONFIG), STATISTICS, name="test"
        ),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 4
    # How it was trained, and what it is called, do not.
    renamed = codes.make_hasher(
        override(CONFIG, {"train.epochs": 3}), base.params, STATISTICS, name="other"
    )
    assert renamed.digest == base.digest


def filled_in(config: Config, **options) -> codes.Hasher:
    """A hasher whose parameters are numbers that no library draws."""
    params = options.pop("params", None) or jax.tree.map(
        lambda leaf: np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape) / leaf.size - 0.5,
        jax.eval_shape(lambda: autoencoder.init_params(jax.random.key(0), config)),
    )
    medians = np.linspace(-0.1, 0.1, 32, dtype=np.float32)
    return codes.make_hasher(config, params, STATISTICS, name="x", medians=medians, **options)


WRITTEN = {  # digests that version 0.1 gave: they stand in exported hashers and indexes
    "7f58db7cd1a8e17e95ebb01cd6d91ae6a2427bd49ff53e94d2f4f4897910a79e": {},
    "8b63e2d7aad8b85f704d3439f328f97e1ce02aaceb7bad286966b223d9b93ccc": {
        "mfcc.sample_rate": 8_000,
        "mfcc.high_hz": 4_000.0,
        "mfcc.preemphasis": 0.9,
    },
    "3720ec8a9d6e2bf19761fc3b19f1f819073d2a564d731bf2e180b3dee7a77b5a": {
        "segment.hop": 32,
        "segment.normalisation": "recording",
    },
    "87d0dc73ebdb6cd57f4ed5c8aaed0357b2e19fe477a5a2d6bee8fc162b76ba93": {
        "model.layers": 2,
        "model.decoder_input": "own",
        "model.dtype": "bfloat16",
    },
    "aea5d09a066d517e77c8b4bbc5a71e946b311e9e40d29e97a370f8e37f24283f": {
        "code.threshold": "median"
    },
}


@pytest.mark.parametrize("fields", ["of now", "of a later version"])
def test_digests_stay_what_they_were_whatever_fields_are_added(fields, request):
    if fields == "of a later version":
        request.getfixturevalue("later")
    for digest, changes in WRITTEN.items():
        config = override(configs.Config(), {"model.hidden_size": 32, **changes})
        assert filled_in(config).digest == digest
    projection = {
        "offset": np.zeros(1300, np.float32),
        "matrix": (np.arange(1300 * 64, dtype=np.float32) % 97 - 48).reshape(1300, 64),
    }
    config = override(configs.Config(), {"model.hidden_size": 64})
    assert filled_in(config, params=projection, encode=controls.project).digest == (
        "dc5499d712de42769f85f5ac533cd6c6f4ee2f73f7a0fde23d03b64fa42b32fe"
    )


def test_a_later_field_that_is_set_changes_the_digest(later):
    config = override(configs.Config(), {"model.hidden_size": 32, "ear.exponent": 1.0})
    assert filled_in(config).digest not in WRITTEN


def test_a_hasher_of_many_words():
    hasher = make(override(CONFIG, {"model.hidden_size": 256}))
    assert hasher.hash_samples(music_like(30_000)).shape == (4, 8)
    assert (hasher.code_rate, hasher.sample_rate) == (4.0, 16_000)


def test_encode_is_given_whole_batches_only():
    """Rows past a recording's end are computed and dropped: no shape depends on the recording."""
    shapes = set()

    def spy(params, segments, *, config):
        shapes.add(segments.shape)
        return segments[:, 0, :1] * jnp.ones((1, 32)) + params

    hasher = codes.make_hasher(
        CONFIG, np.zeros((1, 32), np.float32), STATISTICS, name="spy", encode=spy
    )
    for samples in (20_000, 90_000):
        hasher.hash_samples(music_like(samples))
    assert shapes == {(1, 100, 13), (codes.segment_chunk(CONFIG, platform="cpu"), 100, 13)}


@pytest.mark.slow
def test_weights_are_put_on_each_device_once(monkeypatch):
    hasher, given, place = make(), [], jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda tree: given.append(tree) or place(tree))
    expected = hasher.hash_samples(music_like(30_000))
    for device in jax.devices()[:2]:
        for _ in range(2):
            with jax.default_device(device):
                np.testing.assert_array_equal(hasher.hash_samples(music_like(30_000)), expected)
                assert hasher._weights[2].devices() == {device}
    assert len(given) == 3  # where no device is named, on the first, on the second


def test_a_traced_program_asks_nothing_of_the_machine(monkeypatch):
    hasher = make(override(CONFIG, {"segment.clip": 4.5}))  # nothing of it is compiled yet
    monkeypatch.setattr(jax, "default_backend", lambda: pytest.fail("the backend was asked for"))
    assert len(hasher.hash_many([music_like(30_000)])[0]) == 4
    with jax.default_device(jax.devices("cpu")[0]):
        assert hasher._platform == "cpu"


@pytest.mark.parametrize(
    ("hop", "shifts", "rate"),
    [(25, 5, 4.0), (10, 2, 10.0), (32, 4, 3.125), (50, 5, 2.0), (7, 1, 100 / 7), (31, 1, 100 / 31)],
)
def test_shifts_lie_evenly_in_a_hop(hop, shifts, rate):
    hasher = make(override(CONFIG, {"segment.hop": hop}))
    assert (hasher.shifts, hasher.hop, hasher.code_rate) == (shifts, 160 * hop, rate)
    signal = music_like(60_000)
    found = hasher.hash_shifts([signal[:1000], signal[1000:]])
    assert len(found) == shifts
    cepstra = mfcc.stream([signal], config=CONFIG.mfcc)
    for shift, words in enumerate(found):
        later = hasher.hash_cepstra(cepstra[shift * hop // shifts :])
        wrong = np.bitwise_count(words ^ later).sum()
        assert wrong <= 1  # a state within float rounding of 0


def test_shifts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="shifts must divide the hop of 25 frames, got 4"):
        make().hash_shifts([music_like(60_000)], shifts=4)
    with pytest.raises(ValueError, match="longer than 1 s, got 49 frames of 10 ms"):
        make().hash_shifts([music_like(8_000)])


@pytest.mark.slow
@pytest.mark.parametrize("over", ["corpus", "recording"])
def test_a_hasher_tells_what_follows_from_its_config(over):
    changes = {"mfcc.sample_rate": 22_050, "model.hidden_size": 96, "segment.normalisation": over}
    hasher = make(override(Config(), changes))
    assert (hasher.bits, hasher.words, hasher.sample_rate) == (96, 3, 22_050)
    assert hasher.segment_seconds == 100 * 160 / 22_050
    assert hasher.whole == (over == "recording")
    shortest = round(hasher.shortest_seconds * 22_050)
    signal = music_like(30_000)
    lengths = [len(hasher.hash_samples(signal[:count])) for count in (shortest - 1, shortest)]
    assert lengths == [0, 1]
    changed = signal.copy()
    changed[hasher.span + 1 :] += 0.01  # the first code does not hear it
    if not hasher.whole:
        np.testing.assert_array_equal(
            hasher.hash_samples(changed)[0], hasher.hash_samples(signal)[0]
        )
