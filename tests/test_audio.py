"""audio.py against soundfile, soxr, scipy and hand-written bytes; bad files are made by really
damaging good ones.
"""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from scipy.io import wavfile

from seqhash import audio

RATE = 44_100
FORMATS = {  # suffix -> soundfile's format and subtype
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def _noise(seconds: float, rate: int = RATE, channels: int = 2) -> np.ndarray:
    return 0.2 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))


def _write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str | float) -> Path:
    form, subtype = FORMATS[path.suffix[1:]]
    soundfile.write(path, samples, rate, **{"format": form, "subtype": subtype, **options})
    return path


def _good(folder: Path, suffix: str) -> Path:
    return _write(folder / f"good.{suffix}", _noise(3, 48_000), 48_000)


def _reason(path: Path, **options: Any) -> str:
    with pytest.raises(audio.AudioError) as caught:
        audio.read(path, sample_rate=16_000, **options)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


@pytest.mark.parametrize("suffix", FORMATS)
def test_read_is_soundfile_then_soxr(tmp_path, suffix):
    path = _good(tmp_path, suffix)
    whole, rate = soundfile.read(path, dtype="float32", always_2d=True)
    expected = soxr.resample(whole[:, 0], rate, 16_000, quality="HQ")
    samples = audio.read(path, sample_rate=16_000)
    assert samples.dtype == np.float32
    # The stream and the whole go through the same filter; mpg123 rounds otherwise after a seek.
    assert np.abs(samples - expected).max() <= (1e-6 if suffix == "mp3" else 0)
    assert len(samples) == 48_000


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000])
def test_a_sine_keeps_its_frequency_length_and_amplitude(tmp_path, rate):
    count = 2 * rate + 123
    time = np.arange(count) / rate
    path = _write(
        tmp_path / "sine.wav", 0.5 * np.sin(2 * np.pi * 1000 * time), rate, subtype="FLOAT"
    )
    samples = audio.read(path, sample_rate=16_000)
    assert abs(len(samples) - count * 16_000 / rate) <= 0.5
    middle = slice(2_000, -2_000)  # the ends feel that the sine starts and stops
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(samples)) / 16_000)
    assert np.abs(samples - expected)[middle].max() < 1e-4  # HQ is 20 bits; measured 2e-6 to 5e-6


def test_the_first_channel_is_taken_not_the_mean(tmp_path):
    left = _noise(1, channels=1)[:, 0]
    path = _write(tmp_path / "two.wav", np.stack([left, -left, 0 * left], axis=1))
    alone = _write(tmp_path / "one.wav", left)
    np.testing.assert_array_equal(
        audio.read(path, sample_rate=8_000), audio.read(alone, sample_rate=8_000)
    )


@pytest.mark.parametrize("block_seconds", [0.01, 0.5, 1.7, 1000.0])
def test_samples_do_not_depend_on_the_block_size(tmp_path, block_seconds):
    path = _write(tmp_path / "x.flac", _noise(5, channels=1))
    parts = list(audio.blocks(path, sample_rate=16_000, block_seconds=block_seconds))
    np.testing.assert_array_equal(np.concatenate(parts), audio.read(path, sample_rate=16_000))
    assert {len(part) for part in parts[:-1]} <= {round(block_seconds * 16_000)}
    assert 0 < len(parts[-1]) <= round(block_seconds * 16_000)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.uint8, [0, 64, 128, 255], [-1, -0.5, 0, 127 / 128]),
        (np.int16, [-(2**15), 1, 0, 2**15 - 1], [-1, 2**-15, 0, 1 - 2**-15]),
        (np.int32, [-(2**31), 2**8, 0, 2**30], [-1, 2**-23, 0, 0.5]),
        (np.float32, [-1.5, 1e-9, 0, 0.25], [-1.5, 1e-9, 0, 0.25]),
        (np.float64, [-1.5, 1e-9, 0, 0.25], [-1.5, 1e-9, 0, 0.25]),
    ],
)
def test_sample_formats_by_hand(tmp_path, dtype, values, expected):
    wavfile.write(tmp_path / "x.wav", 16_000, np.array(values, dtype))
    np.testing.assert_array_equal(
        audio.read(tmp_path / "x.wav", sample_rate=16_000), np.array(expected, np.float32)
    )


def test_24_bits_by_hand(tmp_path):
    values = [-(2**23), 1, 0, 2**23 - 1]
    body = b"".join(value.to_bytes(3, "little", signed=True) for value in values)
    fmt = b"".join(
        n.to_bytes(size, "little")
        for n, size in [(1, 2), (1, 2), (16_000, 4), (48_000, 4), (3, 2), (24, 2)]
    )
    chunks = (
        b"WAVEfmt "
        + (16).to_bytes(4, "little")
        + fmt
        + b"data"
        + len(body).to_bytes(4, "little")
        + body
    )
    (tmp_path / "x.wav").write_bytes(b"RIFF" + len(chunks).to_bytes(4, "little") + chunks)
    samples = audio.read(tmp_path / "x.wav", sample_rate=16_000)
    np.testing.assert_array_equal(samples, np.array(values) / 2**23)


def test_ogg_with_something_after_its_last_page(tmp_path):
    path = _good(tmp_path, "ogg")
    expected = audio.read(path, sample_rate=16_000)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    np.testing.assert_array_equal(audio.read(path, sample_rate=16_000), expected)


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257)])
def test_mp3_with_id3_tags(tmp_path, tag):
    path = _good(tmp_path, "mp3")
    expected = audio.read(path, sample_rate=16_000)
    path.write_bytes(tag + path.read_bytes() + b"TAG" + bytes(125))
    np.testing.assert_array_equal(audio.read(path, sample_rate=16_000), expected)


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257)])
def test_flac_that_is_called_mp3(tmp_path, tag):
    path = _good(tmp_path, "flac")
    expected = audio.read(path, sample_rate=16_000)
    (tmp_path / "x.mp3").write_bytes(tag + path.read_bytes())
    np.testing.assert_array_equal(audio.read(tmp_path / "x.mp3", sample_rate=16_000), expected)


@pytest.mark.parametrize("suffix", [*FORMATS, "raw", "txt"])
def test_not_audio(tmp_path, capfd, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(200_000))
    assert "not audio" in _reason(path)
    path.write_text("These are words.\n" * 1000)
    assert "not audio" in _reason(path)
    path.write_bytes(b"")
    assert _reason(path) == "an empty file (0 bytes)"
    assert capfd.readouterr().err == ""  # mpg123 would write there


def test_wav_with_a_chunk_of_odd_length_before_its_data(tmp_path):
    path = _write(tmp_path / "x.wav", _noise(1, 16_000, 1), 16_000)
    expected = audio.read(path, sample_rate=16_000)
    data = path.read_bytes()
    at = data.index(b"data")
    path.write_bytes(data[:at] + b"note\x05\0\0\0hello\0" + data[at:])
    np.testing.assert_array_equal(audio.read(path, sample_rate=16_000), expected)
    path.write_bytes(path.read_bytes()[:-2])
    reason = "cut: 31998 of 32000 bytes of samples are there: 0.00 s lost at 1.00 s"
    assert _reason(path, strict=True) == reason


def test_riff_that_is_no_wav_and_wav_without_data(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF\x64\0\0\0AVI LIST" + bytes(100))
    assert _reason(tmp_path / "x.wav").startswith("AVI that libsndfile does not read")
    (tmp_path / "y.wav").write_bytes(b"RIFF\x04\0\0\0WAVE")
    assert "not read" in _reason(tmp_path / "y.wav")


def test_not_a_file(tmp_path):
    assert _reason(tmp_path / "missing.wav") == "no such file"
    assert _reason(tmp_path) == "a folder, not a file"
    os.mkfifo(tmp_path / "pipe.wav")
    assert (
        _reason(tmp_path / "pipe.wav") == "not a regular file"
    )  # and did not wait for someone to write


def test_silence_nan_and_infinity(tmp_path):
    samples = _noise(2, channels=1)[:, 0]
    assert "digital silence" in _reason(_write(tmp_path / "zeros.flac", 0 * samples))
    for value in (np.nan, np.inf, -np.inf):
        broken = samples.copy()
        broken[-1] = value
        assert "NaN or infinite" in _reason(_write(tmp_path / "x.wav", broken, subtype="FLOAT"))
    assert "NaN or infinite" in _reason(
        _write(tmp_path / "x.wav", samples * 1e300, subtype="DOUBLE")
    )
    assert "beyond 1e+12" in _reason(_write(tmp_path / "x.wav", samples * 1e30, subtype="FLOAT"))


def test_a_constant_is_silence(tmp_path):
    samples = np.full(RATE, 0.4)
    assert "silence: every sample of the first channel is 0.4" in _reason(
        _write(tmp_path / "x.wav", samples)
    )
    soundfile.write(tmp_path / "alaw.wav", 0 * samples, RATE, subtype="ALAW")  # it has no 0
    assert "digital silence" in _reason(tmp_path / "alaw.wav")
    pair = np.stack([samples, np.sin(np.arange(RATE) / 9)], axis=1)
    assert "another has sound" in _reason(_write(tmp_path / "pair.wav", pair))
    hum = samples + 1e-5 * pair[:, 1]
    soundfile.write(tmp_path / "hum.wav", hum, RATE, subtype="FLOAT")
    assert "nearly silent, -9" in _reason(tmp_path / "hum.wav", strict=True)


def test_one_sample_is_not_silence(tmp_path):
    for position in (0, -1):
        samples = np.zeros(5 * RATE)
        samples[position] = 2**-15
        path = _write(tmp_path / "x.wav", samples)
        with pytest.warns(audio.FlawWarning, match="nearly silent, -90 dB"):
            assert audio.read(path, sample_rate=RATE).any()


def test_too_short(tmp_path):
    path = _write(tmp_path / "x.wav", _noise(1.0))
    assert len(audio.read(path, sample_rate=16_000, minimum_seconds=1.0)) == 16_000
    assert _reason(path, minimum_seconds=1.02) == "too short: 1.000 s, at least 1.02 s needed"
    assert _reason(_write(tmp_path / "none.wav", _noise(0))) == "no samples"


def test_what_lacks_a_moment_is_lengthened(tmp_path):
    path = _write(tmp_path / "x.wav", _noise(1.0, 16_000), 16_000)
    samples = audio.read(path, sample_rate=16_000, minimum_seconds=1.00506)
    assert len(samples) == 16_081
    np.testing.assert_array_equal(samples[:16_000], audio.read(path, sample_rate=16_000))
    assert not samples[16_000:].any()
    raw = bytes(range(250)) * 128
    options = {"rate": 16_000, "sample_rate": 16_000, "minimum_seconds": 1.00506}
    assert sum(map(len, audio.raw_blocks(io.BytesIO(raw), "s16le", **options))) == 16_081


CHANNELS = {"first": 0, "1": 0, "2": 1, "3": 2}


@pytest.mark.parametrize("channel", [*CHANNELS, "mix"])
def test_a_channel_is_chosen(tmp_path, channel):
    samples = _noise(1, 16_000, 3).astype(np.float32)
    path = _write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    expected = samples.mean(1) if channel == "mix" else samples[:, CHANNELS[channel]]
    np.testing.assert_array_equal(audio.read(path, sample_rate=16_000, channel=channel), expected)


@pytest.mark.parametrize("channel", ["", "0", "-1", "left", "1.0", "²"])
def test_no_channel(tmp_path, channel):
    with pytest.raises(ValueError, match="channel must be first, mix or a number from 1, got "):
        audio.read(tmp_path / "x.wav", sample_rate=16_000, channel=channel)


def test_a_channel_that_is_not_there_or_not_heard(tmp_path):
    left = _noise(1, 16_000, 1)
    path = _write(tmp_path / "x.wav", left, 16_000)
    assert _reason(path, channel="2") == "channel 2 is not there, it has 1"
    path = _write(tmp_path / "x.wav", np.concatenate([0 * left, left], 1), 16_000)
    assert _reason(path).endswith("the first channel is 0; another has sound (--channel)")
    path = _write(tmp_path / "x.wav", np.concatenate([left, -left], 1), 16_000, subtype="FLOAT")
    assert "the mix of its channels is 0" in _reason(path, channel="mix")
    path = _write(tmp_path / "x.wav", np.concatenate([1e-3 * left, left], 1), 16_000)
    assert _reason(path, strict=True) == "the first channel is 60 dB below another (--channel)"
    with pytest.warns(audio.FlawWarning, match=r"x\.wav: the first channel is 60 dB below"):
        audio.read(path, sample_rate=16_000)
    path = _write(tmp_path / "x.wav", 1e-5 * left, 16_000, subtype="FLOAT")
    assert "nearly silent, -102 dB" in _reason(path, strict=True)


def test_many_flaws_are_told_in_short(tmp_path):
    told = []
    tell = audio._Teller(tmp_path, False, told.append)
    for i in range(9):
        tell("damaged", float(i), 0.5)
    tell.end()
    assert [flaw.start for flaw in told[:-1]] == [0, 1, 2, 3, 4]
    assert told[-1].text == "damaged in 4 more places: 2.00 s lost"


def test_too_short_is_known_before_the_first_block(tmp_path):
    path = _write(tmp_path / "x.wav", _noise(1.0))
    with pytest.raises(audio.AudioError, match="too short"):
        next(audio.blocks(path, sample_rate=16_000, minimum_seconds=2, block_seconds=0.1))


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff.wav")
    _write(tmp_path / "x.wav", _noise(1.0)).rename(path)
    assert len(audio.read(path, sample_rate=16_000)) == 16_000
    path.write_text("no")
    assert "not audio" in _reason(path)


@pytest.mark.parametrize("encoding", audio.RAW)
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_raw_samples_come_in_blocks(encoding, rate):
    dtype, scale = audio.RAW[encoding]
    sent = (_noise(7, rate, 1)[:, 0] * scale).astype(dtype)
    parts = list(
        audio.raw_blocks(
            io.BytesIO(sent.tobytes()), encoding, rate=rate, sample_rate=16_000, block_seconds=1
        )
    )
    whole = sent.astype(np.float32) / np.float32(scale)
    expected = whole if rate == 16_000 else soxr.resample(whole, rate, 16_000, quality="HQ")
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert [len(part) for part in parts] == 7 * [16_000]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "got 0 bytes"),
        (bytes(3), "raw f32le samples expected, got 3 bytes"),
        (bytes(8_000), "too short: 0.125 s, at least 1 s needed"),
        (np.full(20_000, np.nan, "<f4").tobytes(), "NaN"),
    ],
    ids=["empty", "short", "too short", "nan"],
)
def test_raw_samples_that_are_none(data, reason):
    with pytest.raises(audio.AudioError, match=reason):
        list(
            audio.raw_blocks(
                io.BytesIO(data), "f32le", rate=16_000, sample_rate=16_000, minimum_seconds=1
            )
        )


def test_a_raw_stream_that_ends_within_a_sample_is_used_and_that_is_told():
    data, flaws, options = bytes(32_001), [], {"rate": 16_000, "sample_rate": 16_000}
    parts = audio.raw_blocks(io.BytesIO(data), "s16le", **options, report=flaws.append)
    assert sum(map(len, parts)) == 16_000
    assert [flaw.text for flaw in flaws] == ["cut: 1 of 2 bytes of its last sample, at 1.00 s"]
    with pytest.raises(audio.AudioError, match="last sample"):
        list(audio.raw_blocks(io.BytesIO(data), "s16le", **options, strict=True))


def test_a_raw_stream_is_not_read_ahead():
    class Endless(io.RawIOBase):
        def read(self, count=-1):
            assert 0 < count <= 1 << 20
            return bytes(count)

    blocks = audio.raw_blocks(Endless(), "s16le", rate=16_000, sample_rate=16_000, block_seconds=10)
    assert len(next(blocks)) == 160_000


def test_absurd_sample_rate(tmp_path):
    path = _write(tmp_path / "x.wav", _noise(1.0), 1)
    assert "sample rate" in _reason(path)


def test_wav_from_a_pipe(tmp_path):
    path = _write(tmp_path / "x.wav", _noise(1, 16_000, 1), 16_000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(audio.read(path, sample_rate=16_000)) == 16_000


def test_an_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(audio.AudioError("a.wav", "bad")))
    assert (error.path, error.reason, str(error)) == (Path("a.wav"), "bad", "a.wav: bad")


@pytest.mark.parametrize(
    "options", [{"sample_rate": 0}, {"sample_rate": 8_000, "block_seconds": 0.0}]
)
def test_options(options):
    with pytest.raises(ValueError, match="got 0"):
        audio.blocks("x.wav", **options)


def test_memory_is_bounded(tmp_path):
    """Five minutes at 48 kHz are 115 MB of float32 stereo; reading them by blocks takes a fraction
    of it.
    """
    path = tmp_path / "long.flac"
    minute = _noise(60, 48_000)
    with soundfile.SoundFile(
        path, "w", 48_000, 2, format="FLAC", subtype="PCM_16", compression_level=0
    ) as file:
        for _ in range(5):
            file.write(minute)
    program = (
        "import resource, sys; from seqhash import audio\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "blocks = audio.blocks(sys.argv[1], sample_rate=16_000, block_seconds=10)\n"
        "count = sum(map(len, blocks))\n"
        "print(count, peak() - before, 'jax' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", program, str(path)]
    out = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    count, mebibytes, has_jax = out.split()
    assert int(count) == 5 * 60 * 16_000
    assert int(mebibytes) < 40  # measured 6 to 12
    assert has_jax == "False"


def test_real_files(corpora):
    for file in sorted(corpora.glob("covers*/audio/*"))[::40]:
        whole, rate = soundfile.read(file, dtype="float32", always_2d=True)
        expected = (
            whole[:, 0]
            if rate == 16_000
            else soxr.resample(whole[:, 0], rate, 16_000, quality="HQ")
        )
        np.testing.assert_array_equal(audio.read(file, sample_rate=16_000), expected)
