"""Every degradation is measured for what its name claims: SNR, decay, bands, bit rate, delay,
speed, pitch, losses.
"""

import io
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import scipy.signal
import soundfile

from seqhash.robustness import degrade

RATE = degrade.SAMPLE_RATE
NAMES = """
clean white_noise_0db white_noise_-5db noise_10db noise_5db mix_6db room echo mp3_32k vorbis_25k
opus_16k gsm telephone telephone_ulaw via_11k resample_8k equalise compress gain_-20db clip_10%
gaps_20% speed_+4% speed_-2% speed_-10% speed_+10% tempo_-10% tempo_+10% pitch_+1 pitch_-1 pitch_+2
pitch_-2 bar
"""
RANDOM = ("noise", "mix", "room", "gaps", "equalise", "bar", "car", "hall", "radio")


@pytest.fixture(scope="module")
def table():
    return degrade.registry()


@pytest.fixture(scope="module")
def music():
    return degrade.synthetic_music(7, count=2, seconds=3.0)[1]


def generator(seed=0):
    return np.random.default_rng(seed)


def tone(hertz, seconds=2.0, amplitude=0.3):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )


def white(seed=1, seconds=4.0, amplitude=0.1):
    return (amplitude * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(
        np.float32
    )


def decibels(a, b):
    """Power of a over that of b."""
    return 10 * np.log10(
        np.mean(np.square(a, dtype=np.float64)) / np.mean(np.square(b, dtype=np.float64))
    )


def lag(reference, late):
    """Samples by which the second signal comes after the first."""
    product = scipy.signal.correlate(
        late.astype(np.float64), reference.astype(np.float64), method="fft"
    )
    return int(np.argmax(np.abs(product))) - (len(reference) - 1)


def strongest(samples):
    """Frequency of the strongest partial in the middle half, Hz, by a parabola over the log
    spectrum.
    """
    middle = samples[len(samples) // 4 : 3 * len(samples) // 4]
    level = np.log(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) + 1e-12)
    at = int(np.argmax(level))
    left, mid, right = level[at - 1 : at + 2]
    return (at + 0.5 * (left - right) / (left - 2 * mid + right)) * RATE / len(middle)


def response(before, after, hertz):
    """dB that power at each frequency was changed by (Welch)."""
    spectra = [scipy.signal.welch(signal, RATE, nperseg=4096) for signal in (before, after)]
    return 10 * np.log10(np.interp(hertz, *spectra[1]) / np.interp(hertz, *spectra[0]))


# What holds for all.


def test_the_registry_has_the_names_of_the_report_and_its_keys_are_the_names(table):
    assert set(table) >= set(NAMES.split())
    assert all(entry.name == name for name, entry in table.items())
    assert table["noise_5db"].strength == 5
    assert table["mp3_32k"].strength == 32
    assert table["bar"].strength == 3
    with pytest.raises(AttributeError):
        table["bar"].name = "pub"


def test_all_keep_the_input_the_type_the_range_and_the_length_they_promise(table, music):
    held = music.copy()
    music.flags.writeable = False
    for name, entry in table.items():
        out = entry.apply(generator(), music)
        assert out.dtype == np.float32, name
        assert np.isfinite(out).all(), name
        assert np.abs(out).max() <= 1, name
        assert abs(len(out) - len(music) / entry.time_scale) <= 1, name
        assert not np.shares_memory(out, music), name
        assert out.flags.writeable, name
        assert name == "clean" or len(out) != len(music) or not np.array_equal(out, music), name
    assert np.array_equal(music, held)
    assert np.array_equal(table["clean"].apply(generator(), music), music)


def test_all_are_functions_of_the_seed(table, music):
    short = music[: RATE // 2]
    for name, entry in table.items():
        first, again, other = (entry.apply(generator(seed), short) for seed in (3, 3, 4))
        assert np.array_equal(first, again), name
        assert np.array_equal(first, other) != any(word in name for word in RANDOM), name


@pytest.mark.parametrize("count", [0, 1, 2, 50, 1000])
def test_all_take_very_short_clips(table, count):
    samples = white(seconds=1.0, amplitude=0.3)[:count]
    for name, entry in table.items():
        out = entry.apply(generator(), samples)
        assert len(out) == pytest.approx(count / entry.time_scale, abs=1.0 if count else 0.0), name
        assert out.dtype == np.float32, name
        assert np.isfinite(out).all(), name


def test_silence_stays_silence(table):
    for name, entry in table.items():
        out = entry.apply(generator(), np.zeros(5000, np.float32))
        assert abs(len(out) - 5000 / entry.time_scale) <= 1, name
        assert not out.any(), name


def test_a_loud_clip_is_scaled_and_not_clipped(table):
    """At full scale everything overshoots; clipping would leave runs of samples at the limit."""
    loud = white(amplitude=1.0, seconds=1.0)
    loud /= np.abs(loud).max()
    for name, entry in table.items():
        out = entry.apply(generator(), loud)
        assert np.abs(out).max() <= 1, name
        if not name.startswith("clip"):
            assert np.sum(np.abs(out) >= 0.999 * np.abs(out).max()) <= 3, name


@pytest.mark.parametrize("bad", [np.zeros((2, 100)), np.array([0.0, np.nan]), np.array([np.inf])])
def test_what_is_not_mono_and_finite_is_refused(table, bad):
    for name in ("clean", "noise_5db", "room", "gsm", "speed_+4%", "tempo_-10%", "gaps_20%", "bar"):
        with pytest.raises(ValueError, match=r"one-dimensional|finite"):
            table[name].apply(generator(), bad)


def test_the_registry_pickles_for_workers(table, music):
    sent = pickle.loads(pickle.dumps(table))
    for name in ("noise_0db", "bar", "opus_16k"):
        assert np.array_equal(
            sent[name].apply(generator(), music), table[name].apply(generator(), music)
        )


@pytest.mark.parametrize(
    "noises", [[], [np.zeros(10)], [np.ones((2, 2))], [np.array([1.0, np.nan])]]
)
def test_bad_sources_are_refused(noises):
    room, other = [np.array([1.0])], [np.ones(9)]
    with pytest.raises(ValueError, match=r"noises must be sounds|one-dimensional|finite"):
        degrade.registry(noises, room, other)


def test_it_needs_no_jax_and_loads_librosa_and_scipy_late():
    late = "{'jax', 'librosa', 'scipy.signal'}"
    code = f"import sys, seqhash.robustness.degrade; sys.exit(bool({late} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Additions.


def test_noise_is_at_its_snr(table, music):
    for name, entry in table.items():
        if entry.family in ("white noise", "noise", "mix"):
            quiet = 0.02 * music  # far from full scale, so that nothing is scaled
            added = entry.apply(generator(5), quiet).astype(np.float64) - quiet
            assert decibels(quiet, added) == pytest.approx(entry.strength, abs=0.1), name


def test_scaling_to_full_scale_keeps_the_snr(table, music):
    quiet = 0.02 * music
    loud = music / np.abs(music).max()
    small = table["noise_-5db"].apply(generator(5), quiet)
    large = table["noise_-5db"].apply(generator(5), loud)
    assert np.abs(large).max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(large, small / np.abs(small).max(), atol=1e-6)


def test_white_noise_is_flat(table):
    quiet = tone(1000.0, 4.0, 1e-3)
    added = table["white_noise_-5db"].apply(generator(), quiet) - quiet
    _, power = scipy.signal.welch(added, RATE, nperseg=256)
    assert np.ptp(10 * np.log10(power[2:-2])) < 2.5


def test_a_stretch_of_the_noise_is_added_and_another_seed_takes_another(music):
    source = white(9, seconds=8.0)
    starts = []
    for seed in range(4):
        added = (
            degrade.noise(generator(seed), 0.02 * music, noises=[source], snr=0.0) - 0.02 * music
        )
        at = int(np.argmax(scipy.signal.correlate(source, added, mode="valid", method="fft")))
        assert np.corrcoef(source[at : at + len(added)], added)[0, 1] > 0.9999
        starts.append(at)
    assert len(set(starts)) == 4


def test_a_short_noise_is_repeated(music):
    source = white(9, seconds=0.1)
    added = degrade.noise(generator(), 0.02 * music, noises=[source], snr=0.0) - 0.02 * music
    np.testing.assert_allclose(
        added[len(source) : 2 * len(source)], added[: len(source)], atol=1e-7
    )


def test_the_silent_part_of_a_noise_is_not_amplified():
    source = np.concatenate([1e-5 * white(seconds=9.5), white(2, seconds=0.5)])
    clip = tone(440.0, 0.2)
    for seed in range(40):
        added = degrade.noise(generator(seed), clip, noises=[source], snr=20.0) - clip
        at = int(
            np.argmax(np.abs(scipy.signal.correlate(source, added, mode="valid", method="fft")))
        )
        assert at + len(clip) > 4 * RATE  # reaches into the half second that is heard


def test_a_noise_of_one_click_still_gives_its_snr():
    source = np.zeros(20 * RATE, np.float32)
    source[12345] = 1
    clip = tone(440.0, 0.05, 0.01)
    added = degrade.noise(generator(), clip, noises=[source], snr=10.0) - clip
    assert decibels(clip, added) == pytest.approx(10, abs=0.1)


# Rooms, echo, filters.


def test_a_room_is_a_convolution_with_the_direct_sound_in_place(music):
    rooms = degrade.synthetic_rooms(3, count=2)
    wet = [degrade.room(generator(seed), music, rooms=rooms) for seed in range(6)]
    oracles = []
    for impulse in rooms:
        full = scipy.signal.fftconvolve(music.astype(np.float64), impulse)
        oracles.append(
            full[32 : 32 + len(music)]
        )  # the pulse is 2 ms = 32 samples into the response
    found = set()
    for out in wet:
        assert decibels(out, music) == pytest.approx(0, abs=0.01)
        likeness = [np.corrcoef(out, oracle)[0, 1] for oracle in oracles]
        assert max(likeness) > 0.999999
        found.add(int(np.argmax(likeness)))
    assert found == {0, 1}


def test_a_room_does_not_move_a_click():
    click = np.zeros(RATE, np.float32)
    click[5000] = 0.5
    for impulse in degrade.synthetic_rooms(1):
        assert int(np.argmax(np.abs(degrade.room(generator(), click, rooms=[impulse])))) == 5000


def test_the_direct_sound_is_found_before_a_louder_reflection():
    impulse = np.zeros(2000)
    impulse[[100, 101, 900]] = 0.4, 0.7, -1.0
    assert degrade.direct_sound(impulse) == 101
    assert degrade.direct_sound(-impulse) == 101


@pytest.mark.parametrize(("rt60", "ratio"), [(0.3, 0.0), (0.8, 6.0), (1.2, -3.0)])
def test_a_synthetic_room_decays_as_told(rt60, ratio):
    impulse = degrade.synthetic_room(generator(), rt60=rt60, direct_db=ratio).astype(np.float64)
    direct = impulse[:72]
    tail = impulse[72:]
    assert 10 * np.log10(np.sum(direct**2) / np.sum(tail**2)) == pytest.approx(ratio, abs=0.1)
    left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder
    begin, end = np.argmax(left < -5), np.argmax(left < -25)
    assert 3 * (end - begin) / RATE == pytest.approx(rt60, rel=0.1)


@pytest.mark.parametrize(("delay", "level"), [(0.25, -3.0), (0.1, -12.0)])
def test_an_echo_comes_after_its_delay_at_its_level(delay, level):
    clip = white(amplitude=0.05)
    out = degrade.echo(generator(), clip, delay=delay, level=level).astype(np.float64)
    right = scipy.signal.correlate(out, out, method="fft")[len(out) - 1 :] / np.sum(out**2)
    late = 100 + int(np.argmax(right[100:]))
    assert late == round(delay * RATE)
    g = 10 ** (level / 20)
    assert right[late] == pytest.approx(g / (1 + g * g), abs=0.03)


def test_the_equaliser_has_the_bands_that_it_draws():
    clip = white(seconds=20.0)
    for seed in range(3):
        centres, gains = degrade.equaliser(generator(seed), decibels=12.0)
        assert np.abs(gains).max() <= 12
        assert np.ptp(gains) > 6
        out = degrade.equalise(generator(seed), clip, decibels=12.0)
        assert decibels(out, clip) == pytest.approx(0, abs=0.01)
        assert lag(clip, out) == 0
        changed = response(clip, out, centres[2:-1])
        np.testing.assert_allclose(
            changed - changed.mean(), gains[2:-1] - gains[2:-1].mean(), atol=1.0
        )


def test_the_telephone_keeps_300_to_3400_hz(table):
    clip = white(seconds=20.0)
    out = table["telephone"].apply(generator(), clip)
    np.testing.assert_allclose(
        response(clip, out, np.array([350, 500, 1000, 2000, 3000, 3300])), 0, atol=0.5
    )
    assert response(clip, out, np.array([100, 200, 250, 3500, 3900, 5000])).max() < -50
    assert response(clip, out, np.array([300, 3400])) == pytest.approx(-6, abs=1.5)
    assert lag(clip, out) == 0


def test_mu_law_adds_its_quantisation_noise_and_no_more(table, music):
    """Eight bits of mu-law give 38 dB from speech level upwards, and linear eight bits would give
    less.
    """
    plain, coded = (
        table[name].apply(generator(), music) for name in ("telephone", "telephone_ulaw")
    )
    assert 34 < decibels(plain, coded - plain) < 41


@pytest.mark.parametrize(
    ("name", "kept", "lost"),
    [("via_11k", 5000, 6000), ("resample_8k", 3600, 4400), ("resample_4k", 1800, 2200)],
)
def test_resampling_limits_the_band(table, name, kept, lost):
    clip = white(seconds=20.0)
    out = table[name].apply(generator(), clip)
    assert np.abs(response(clip, out, np.array([200, kept / 2, kept]))).max() < 0.5
    assert response(clip, out, np.array([lost, 1.3 * lost])).max() < -60
    assert lag(clip, out) == 0


# Level and loss.


def test_gain_is_in_decibels(table, music):
    assert decibels(table["gain_-20db"].apply(generator(), music), music) == pytest.approx(
        -20, abs=1e-4
    )
    louder = degrade.gain(generator(), music, decibels=40.0)
    np.testing.assert_allclose(louder, music / np.abs(music).max(), atol=1e-6)


@pytest.mark.parametrize("percent", [10, 30])
def test_clipping_cuts_its_share_and_leaves_the_rest(table, percent):
    clip = white()
    out = table[f"clip_{percent}%"].apply(generator(), clip)
    changed = out != clip
    assert changed.mean() == pytest.approx(percent / 100, abs=1e-4)
    assert np.unique(np.abs(out[changed])).size == 1
    assert np.abs(clip[changed]).min() > np.abs(out).max()


@pytest.mark.parametrize("ratio", [2.0, 8.0])
def test_compression_takes_its_ratio_off_what_is_over_the_threshold(ratio):
    """A tone in steps of 12 dB; the softest step is below the threshold, the two others above
    it.
    """
    steps = [tone(1000.0, 1.0, amplitude) for amplitude in (0.01, 0.1, 0.1 * 10 ** (12 / 20))]
    clip = np.concatenate(steps)
    out = degrade.compress(generator(), clip, threshold=-15.0, ratio=ratio)
    soft, middle, loud = (
        out[round((at + 0.6) * RATE) : round((at + 0.9) * RATE)] for at in range(3)
    )
    assert decibels(loud, middle) == pytest.approx(12 / ratio, abs=0.1)
    threshold = decibels(clip, np.ones(1)) - 15
    levels = [decibels(step, np.ones(1)) for step in steps]
    expected = (levels[1] - threshold) / ratio + threshold - levels[0]
    assert decibels(middle, soft) == pytest.approx(expected, abs=0.1)
    assert decibels(out, clip) == pytest.approx(0, abs=0.01)


def test_compression_does_not_depend_on_the_level(music):
    one, ten = (
        degrade.compress(generator(), g * music, threshold=-12.0, ratio=4.0) for g in (0.05, 0.5)
    )
    np.testing.assert_allclose(10 * one, ten, atol=1e-5)


@pytest.mark.parametrize("percent", [20, 50])
def test_gaps_lose_exactly_their_share_in_runs_of_a_tenth_of_a_second(table, percent):
    clip = np.full(10 * RATE, 0.5, np.float32)
    out = table[f"gaps_{percent}%"].apply(generator(2), clip)
    gone = out == 0
    assert gone.sum() == percent * len(clip) // 100
    assert np.array_equal(out[~gone], clip[~gone])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.astype(int), [0]])))
    runs = edges[1::2] - edges[::2]
    assert len(runs) > 5
    assert runs.min() == RATE // 10
    assert not (runs % (RATE // 10)).any()  # neighbours may touch


# Codecs.


@pytest.mark.parametrize("name", degrade.CODECS)
def test_a_codec_has_the_bit_rate_of_its_name(name, music):
    """From the sizes of whole files of two lengths, so that headers do not count."""
    codec = degrade.CODECS[name]
    clip = scipy.signal.resample_poly(np.tile(music, 2), 1, RATE // codec.rate).astype(np.float32)
    short, long = (len(degrade.encode(np.tile(clip, n), codec)) for n in (1, 2))
    measured = 8 * (long - short) / 1000 / (len(clip) / codec.rate)
    assert measured == pytest.approx(codec.kilobits, rel=0.25 if codec.subtype == "VORBIS" else 0.1)
    assert name == "gsm" or name.endswith(f"_{codec.kilobits}k")


@pytest.mark.parametrize("name", degrade.CODECS)
def test_a_codec_keeps_time_and_loses_something(name, music):
    out = degrade.transcode(generator(), music, codec=degrade.CODECS[name])
    assert abs(lag(music, out)) <= 1
    for part in (
        slice(0, RATE),
        slice(-RATE, None),
    ):  # the end is there too, after a delay has been taken out
        assert np.corrcoef(music[part], out[part])[0, 1] > 0.8
    assert 5 < decibels(music, out - music) < 40 or name == "opus_8k"


@pytest.mark.parametrize("name", ["gsm", "opus_8k"])
def test_what_overshoots_in_a_codec_is_not_clipped(name):
    """16 bits would cut it off at full scale; a tone at 0.7 has room for it, and comes out in the
    same form.
    """
    sent = [tone(150.0, 1.0, amplitude) for amplitude in (1.0, 0.7)]
    loud, safe = (degrade.transcode(generator(), clip, codec=degrade.CODECS[name]) for clip in sent)
    np.testing.assert_allclose(loud / np.abs(loud).max(), safe / np.abs(safe).max(), atol=0.05)


def test_the_level_of_codecs_is_as_stated(table, music):
    assert decibels(table["mp3_32k"].apply(generator(), music), music) == pytest.approx(
        -0.45, abs=0.1
    )
    assert decibels(table["vorbis_25k"].apply(generator(), music), music) == pytest.approx(
        0, abs=0.2
    )
    assert decibels(table["gsm"].apply(generator(), music), music) == pytest.approx(-0.7, abs=0.4)


def test_a_codec_that_comes_late_is_known(music):
    """Decoded by itself at 8 kbit/s, MP3 is late and longer; that is what is undone."""
    codec = degrade.CODECS["mp3_8k"]
    decoded, _ = soundfile.read(io.BytesIO(degrade.encode(music, codec)), dtype="float32")
    late = lag(music, decoded)
    assert late > 500
    out = degrade.transcode(generator(), music, codec=codec)
    assert abs(late + lag(decoded, out)) <= 1


def test_gsm_and_telephone_have_nothing_above_4_khz(table, music):
    for name in ("gsm", "telephone_ulaw"):
        out = table[name].apply(generator(), white(seconds=4.0))
        frequencies, power = scipy.signal.welch(out, RATE, nperseg=1024)
        assert 10 * np.log10(power[frequencies > 4300].max() / power.max()) < -50


def test_a_codec_that_is_not_there_is_named(music):
    with pytest.raises(ValueError, match="cannot write WAV OPUS"):
        degrade.transcode(generator(), music, codec=degrade.Codec("WAV", "OPUS", RATE, 16))


# Time and pitch.


def bursts(seconds=10):
    """A quarter of a second of noise in the middle of every second."""
    out = np.zeros(seconds * RATE)
    for second in range(seconds):
        out[second * RATE + 6000 : second * RATE + 10000] = np.hanning(4000) * white(second, 0.25)
    return out.astype(np.float32)


def centres(samples, scale):
    """Where the energy of each reference second lies, in reference seconds."""
    energy, times = np.square(samples, dtype=np.float64), scale * np.arange(len(samples)) / RATE
    parts = [(times >= second) & (times < second + 1) for second in range(10)]
    return np.array([np.sum((energy * times)[part]) / np.sum(energy[part]) for part in parts])


CHANGES = {  # how many times as fast, and by how many semitones
    **{
        f"speed_{n:+}%": (1 + n / 100, 12 * np.log2(1 + n / 100))
        for n in (-10, -4, -2, 2, 4, 5, 10)
    },
    **{f"tempo_{n:+}%": (1 + n / 100, 0.0) for n in (-10, -5, 5, 10)},
    **{f"pitch_{n:+}": (1.0, n) for n in (-2, -1, 1, 2)},
    "upload": (1.05, 1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_time_and_pitch_change_as_named(table, name):
    factor, semitones = CHANGES[name]
    assert table[name].time_scale == pytest.approx(factor)
    out = table[name].apply(generator(), tone(1000.0))
    assert len(out) == pytest.approx(2 * RATE / factor, abs=1)
    assert strongest(out) == pytest.approx(1000 * 2 ** (semitones / 12), rel=1e-3)
    found = centres(table[name].apply(generator(), bursts()), factor)
    tolerance = (
        1e-3 if "speed" in name else 0.05
    )  # the phase vocoder smears; 1 % wrong would be 95 ms at last
    np.testing.assert_allclose(found, centres(bursts(), 1.0), atol=tolerance)
    assert np.mean(found - centres(bursts(), 1.0)) == pytest.approx(0, abs=0.02)


def test_time_scale_is_one_for_all_others(table):
    assert all(table[name].time_scale == 1 for name in table.keys() - CHANGES)


def test_speed_tempo_and_pitch_keep_the_level(table, music):
    for name, entry in table.items():
        if entry.family in ("speed", "tempo", "pitch"):
            assert decibels(entry.apply(generator(), music), music) == pytest.approx(0, abs=0.1), (
                name
            )


# Chains.


def test_a_chain_applies_its_parts_in_order(table, music):
    made = degrade.chain(table["gain_-20db"], table["clip_30%"], table["speed_+4%"])
    by_hand = music
    for name in ("gain_-20db", "clip_30%", "speed_+4%"):
        by_hand = table[name].apply(generator(), by_hand)
    assert np.array_equal(made.apply(generator(), music), by_hand)
    assert made.name == "gain_-20db+clip_30%+speed_+4%"
    assert made.family == "chain"
    assert made.time_scale == pytest.approx(1.04)
    twice = degrade.chain(made, table["tempo_-10%"], name="twice")
    assert (twice.name, twice.time_scale) == ("twice", pytest.approx(1.04 * 0.9))
    with pytest.raises(ValueError, match="at least one"):
        degrade.chain()


def test_what_a_part_draws_does_not_move_the_next(table, music):
    drawing = degrade.Degradation(
        "faint", "white noise", 200, partial(degrade.white_noise, snr=200.0)
    )
    one, other = (degrade.chain(first, table["gaps_20%"]) for first in (table["clean"], drawing))
    np.testing.assert_allclose(
        one.apply(generator(), music), other.apply(generator(), music), atol=1e-6
    )


def test_the_bar_is_reverberant_noisy_and_a_telephone(table):
    clip = white(seconds=10.0)
    out = table["bar"].apply(generator(), clip)
    assert response(clip, out, np.array([100, 200, 3600, 5000])).max() < -40
    assert abs(lag(clip, out)) <= 1
    assert 0.1 < abs(np.corrcoef(clip, out)[0, 1]) < 0.8


# Sources.


def test_synthetic_sources_are_functions_of_the_seed_and_unlike_each_other():
    tunes = partial(degrade.synthetic_music, seconds=1.0)
    for make in (degrade.synthetic_noises, degrade.synthetic_rooms, tunes):
        first, again, other = (make(seed) for seed in (0, 0, 1))
        assert len(first) >= 4
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        assert all(part.dtype == np.float32 and np.isfinite(part).all() for part in first)
    for part in degrade.synthetic_noises(0) + tunes(0):
        assert decibels(part, np.full(1, 0.1)) == pytest.approx(0, abs=0.01)


def test_pink_and_brown_noise_fall_by_three_and_six_decibels_an_octave():
    pink, brown = degrade.synthetic_noises(0, seconds=30.0)[:2]
    for signal, slope in ((pink, 3.0), (brown, 6.0)):
        frequencies, power = scipy.signal.welch(signal, RATE, nperseg=4096)
        kept = (frequencies > 100) & (frequencies < 6000)
        fitted = np.polyfit(np.log2(frequencies[kept]), 10 * np.log10(power[kept]), 1)[0]
        assert fitted == pytest.approx(-slope, abs=0.2)


def test_measured_noises_and_rooms_do_as_well(corpora, music):
    noises = [
        soundfile.read(path, dtype="float32")[0]
        for path in sorted((corpora / "noise/audio").iterdir())[1::12]
    ]
    rooms = [
        soundfile.read(path, dtype="float32")[0]
        for path in sorted((corpora / "rooms/audio").iterdir())[1::2]
    ]
    table = degrade.registry(noises, rooms, [music])
    quiet = 0.01 * music
    for seed in range(8):
        added = table["noise_0db"].apply(generator(seed), quiet).astype(np.float64) - quiet
        assert decibels(quiet, added) == pytest.approx(0, abs=0.1)
    clip = white(amplitude=0.1)
    for impulse in rooms:
        direct, strongest_path = degrade.direct_sound(impulse), int(np.argmax(np.abs(impulse)))
        assert direct <= 0.004 * RATE  # they start 2 ms before it, or less
        assert (
            lag(clip, degrade.room(generator(), clip, rooms=[impulse])) == strongest_path - direct
        )
