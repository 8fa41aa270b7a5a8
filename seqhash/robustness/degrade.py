"""What happens to audio in the world: noise, rooms, codecs, telephones, speed, pitch, drop-outs
(paper, V; no jax).

Every degradation is a pure ``f(rng, samples, *, options) -> samples`` of float32 (samples,) at
``SAMPLE_RATE``; ``registry`` gives the strengths of the robustness report by name, and ``chain``
joins several. What holds for all:

- **Random** is only what is drawn from ``rng``, so a fresh generator of one seed gives one result.
  The input is not changed, and the result shares no memory with it. NaN, infinity or a second axis
  is a ValueError.
- **Level.** A result that would leave [-1, 1] is scaled down as a whole until its peak is 1, never
  clipped (``clip`` alone clips); nothing is scaled up to fill the range. ``room``, ``equalise``,
  ``compress``, ``tempo`` and ``pitch`` give back the RMS of their input before that rule. Codecs
  keep the level they come out with: constant-rate MP3 is 0.45 dB softer, GSM about 0.7 dB. What
  peaks above 0.7 goes into a codec softer and is made as much louder again.
- **SNR** is of RMS over the whole clip, silence in it included. Nothing is added to digital silence
  at any SNR, and it comes out of every degradation as silence. An empty clip stays empty.
- **Time.** The direct sound stays where it was, delays of rooms, filters and codecs are taken out,
  and the length is kept, but for ``speed`` and ``tempo``: round(samples / factor), from the same
  start. So what is heard t seconds into any query lies ``time_scale`` x t seconds into the clip.
"""

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from seqhash.songbook import synth

SAMPLE_RATE = synth.SAMPLE_RATE  # Hz, of all audio in this folder: 16 kHz
SNR_FAMILIES = ("white noise", "noise", "mix")  # their strength is an SNR in dB
TELEPHONE = (300.0, 3_400.0)  # Hz
# a stretch of noise below this part of its file's RMS is drawn again: amplified, it would be hiss
_FAINT = 0.1
_ATTACK, _RELEASE = 0.005, 0.1  # seconds, of the compressor
_TAPS = 1_023  # of the linear-phase filters


@dataclass(frozen=True)
class Degradation:
    """A named degradation at one strength."""

    name: str
    # clean, white noise, noise, mix, room, codec, band, level, speed, tempo, pitch or chain
    family: str
    # dB (noise, mix: SNR), kbit/s, Hz, %, semitones; of a chain the number of its parts
    strength: float
    apply: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    time_scale: float = 1.0  # reference seconds per second of the degraded query


def chain(*degradations: Degradation, name: str = "") -> Degradation:
    """One after the other. Every part draws from a generator of its own, so one part's draws do not
    move another's.
    """
    if not degradations:
        raise ValueError("chain needs at least one degradation, got none.")
    name = name or "+".join(part.name for part in degradations)
    scale = math.prod(part.time_scale for part in degradations)
    return Degradation(name, "chain", len(degradations), partial(_apply_all, degradations), scale)


def _apply_all(
    parts: Sequence[Degradation], rng: np.random.Generator, samples: np.ndarray
) -> np.ndarray:
    for part, seed in zip(parts, rng.integers(1 << 63, size=len(parts)), strict=True):
        samples = part.apply(np.random.default_rng(int(seed)), samples)
    return samples


def white_noise(rng: np.random.Generator, samples: np.ndarray, *, snr: float) -> np.ndarray:
    """Gaussian white noise, ``snr`` dB below the clip."""
    samples = _checked(samples)
    return _added(samples, rng.standard_normal(len(samples)), snr)


def noise(
    rng: np.random.Generator, samples: np.ndarray, *, noises: Sequence[np.ndarray], snr: float
) -> np.ndarray:
    """A random stretch of one of ``noises`` (repeated if it is short), ``snr`` dB below the clip.

    Stretches softer than a tenth of that noise's RMS are drawn again. Other recordings are mixed in
    in the same way.
    """
    samples = _checked(samples)
    source = noises[int(rng.integers(len(noises)))]
    return _added(samples, _stretch(source, len(samples), rng), snr)


def _stretch(source: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    least = _FAINT * _rms(source)
    for _ in range(20):
        start = int(rng.integers(len(source) if count >= len(source) else len(source) - count + 1))
        stretch = np.take(source, np.arange(start, start + count), mode="wrap")
        if _rms(stretch) >= least:
            return stretch
    start = int(np.argmax(np.abs(source)))  # a noise that is nearly always silent, at its loudest
    return np.take(source, np.arange(start, start + count), mode="wrap")


def _added(samples: np.ndarray, other: np.ndarray, snr: float) -> np.ndarray:
    level = _rms(samples) * 10 ** (-snr / 20) / max(_rms(other), 1e-30)
    return _fit(samples + level * other.astype(np.float64))


def room(
    rng: np.random.Generator, samples: np.ndarray, *, rooms: Sequence[np.ndarray]
) -> np.ndarray:
    """The clip in one of ``rooms`` (impulse responses): the direct sound stays in place, the tail
    is cut at the end.
    """
    samples = _checked(samples)
    response = rooms[int(rng.integers(len(rooms)))]
    return _fit(_at_level(_filtered(samples, response, direct_sound(response)), samples))


def direct_sound(response: np.ndarray) -> int:
    """Index of the direct sound: the largest value within 1 ms of the first at -20 dB from the peak
    (ISO 3382).
    """
    size = np.abs(response)
    first = int(np.argmax(size >= 0.1 * size.max()))
    return first + int(np.argmax(size[first : first + SAMPLE_RATE // 1000]))


def echo(
    rng: np.random.Generator, samples: np.ndarray, *, delay: float, level: float
) -> np.ndarray:
    """The clip once more, ``delay`` seconds later and ``level`` dB (negative) softer."""
    samples = _checked(samples)
    late = round(delay * SAMPLE_RATE)
    out = samples.astype(np.float64)
    out[late:] += 10 ** (level / 20) * samples[: max(0, len(samples) - late)]
    return _fit(out)


def equalise(rng: np.random.Generator, samples: np.ndarray, *, decibels: float) -> np.ndarray:
    """Octave bands from 62.5 Hz to 8 kHz, each raised or lowered by up to ``decibels``; see
    ``equaliser``.
    """
    import scipy.signal

    samples = _checked(samples)
    centres, gains = equaliser(rng, decibels=decibels)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, _TAPS + 2)
    octaves = np.log2(np.maximum(frequencies, 1.0))
    curve = 10 ** (np.interp(octaves, np.log2(centres), gains) / 20)
    taps = scipy.signal.firwin2(_TAPS, frequencies, curve, window="hann", fs=SAMPLE_RATE)
    return _fit(_at_level(_filtered(samples, taps, _TAPS // 2), samples))


def equaliser(rng: np.random.Generator, *, decibels: float) -> tuple[np.ndarray, np.ndarray]:
    """The centres in Hz and the gains in dB (bands,) that ``equalise`` draws; straight lines over
    log frequency.
    """
    return 62.5 * 2.0 ** np.arange(8), rng.uniform(-decibels, decibels, 8)


def telephone(
    rng: np.random.Generator, samples: np.ndarray, *, codec: "Codec | None" = None
) -> np.ndarray:
    """300 to 3400 Hz at 8 kHz, and through ``codec`` where one is given.

    The filter has half amplitude at the edges and is 74 dB down 45 Hz beyond them.
    """
    import scipy.signal

    samples = _checked(samples)
    band = {"window": "blackman", "pass_zero": False, "scale": False, "fs": SAMPLE_RATE}
    narrow = _filtered(samples, scipy.signal.firwin(_TAPS, TELEPHONE, **band), _TAPS // 2)
    if codec is None:
        return resample(rng, _fit(narrow), rate=8_000)
    return transcode(rng, _fit(narrow), codec=codec)


def resample(rng: np.random.Generator, samples: np.ndarray, *, rate: int) -> np.ndarray:
    """Down to ``rate`` Hz and up again (soxr, HQ: flat to 0.91 of the half rate)."""
    samples = _checked(samples)
    low = _resampled(samples, SAMPLE_RATE, rate)
    return _fit(_length(_resampled(low, rate, SAMPLE_RATE), len(samples)))


def gain(rng: np.random.Generator, samples: np.ndarray, *, decibels: float) -> np.ndarray:
    """Louder or softer; louder only until the peak is 1."""
    return _fit(10 ** (decibels / 20) * _checked(samples).astype(np.float64))


def clip(rng: np.random.Generator, samples: np.ndarray, *, share: float) -> np.ndarray:
    """The largest ``share`` of the samples (0 to 1) cut to the size of the next one; the rest is as
    it was.
    """
    samples = _checked(samples)
    over = int(share * len(samples))
    if not over:
        return samples.copy()
    limit = np.partition(np.abs(samples), len(samples) - over - 1)[len(samples) - over - 1]
    return np.clip(samples, -limit, limit)


def compress(
    rng: np.random.Generator, samples: np.ndarray, *, threshold: float, ratio: float
) -> np.ndarray:
    """Dynamic compression: levels above the threshold rise by 1 dB per ``ratio`` dB.

    ``threshold`` is in dB relative to the clip's RMS, so the effect does not depend on how loud the
    recording is. The level is measured over 4 ms and followed with 5 ms when it rises, 100 ms when
    it falls.
    """
    samples = _checked(samples)
    if not samples.any():
        return samples.copy()
    block = SAMPLE_RATE // 250
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % block)).reshape(-1, block)
    levels = 10 * np.log10(np.mean(padded**2, axis=1) / _rms(samples) ** 2 + 1e-9)
    level, held = levels[0], np.empty_like(levels)
    for i, now in enumerate(levels):
        level += (now - level) * -np.expm1(
            -block / SAMPLE_RATE / (_ATTACK if now > level else _RELEASE)
        )
        held[i] = level
    decibels = (1 / ratio - 1) * np.maximum(held - threshold, 0)
    centres = (np.arange(len(levels)) + 0.5) * block
    curve = 10 ** (np.interp(np.arange(len(samples)), centres, decibels) / 20)
    return _fit(_at_level(samples * curve, samples))


def gaps(
    rng: np.random.Generator, samples: np.ndarray, *, share: float, seconds: float = 0.1
) -> np.ndarray:
    """Drop-outs: ``share`` of the clip (0 to 1, to a sample) is zero, in gaps of about ``seconds``
    at random places.
    """
    samples = _checked(samples)
    lost = round(share * len(samples))
    count = max(1, round(lost / (seconds * SAMPLE_RATE)))
    borders = np.sort(
        rng.integers(len(samples) - lost + 1, size=count)
    )  # where in what is kept a gap comes
    lengths = np.diff(np.round(np.linspace(0, lost, count + 1)).astype(int))
    starts = borders + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    out = samples.copy()
    for start, length in zip(starts, lengths, strict=True):
        out[start : start + length] = 0
    return out


def speed(rng: np.random.Generator, samples: np.ndarray, *, factor: float) -> np.ndarray:
    """Played ``factor`` times as fast by resampling (soxr): time and pitch change together."""
    samples = _checked(samples)
    return _fit(
        _length(
            _resampled(samples, factor * SAMPLE_RATE, SAMPLE_RATE), round(len(samples) / factor)
        )
    )


def tempo(rng: np.random.Generator, samples: np.ndarray, *, factor: float) -> np.ndarray:
    """``factor`` times as fast at the same pitch: librosa's phase vocoder, which also smears
    attacks.
    """
    import librosa  # late: it takes seconds to load

    samples = _checked(samples)
    padded = np.pad(samples, (0, max(0, 2_048 - len(samples))))  # librosa's window
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa 1.0 warns about its own calls
        out = librosa.effects.time_stretch(padded, rate=factor)
    return _fit(_at_level(_length(out, round(len(samples) / factor)), samples))


def pitch(rng: np.random.Generator, samples: np.ndarray, *, semitones: float) -> np.ndarray:
    """Higher or lower in the same time: ``tempo`` undone by ``speed``, as in librosa's
    pitch_shift.
    """
    factor = 2 ** (semitones / 12)
    shifted = speed(rng, tempo(rng, samples, factor=1 / factor), factor=factor)
    return _fit(_at_level(_length(shifted, len(samples)), _checked(samples)))


class Codec(NamedTuple):
    """How soundfile writes it; at the other rates and levels libsndfile has no or other bit
    rates.
    """

    container: str
    subtype: str
    rate: int  # Hz
    kilobits: float  # per second of audio, as measured on music, without the file's header
    level: float | None = None  # compression_level
    mode: str | None = None  # bitrate_mode


# libsndfile 1.2.2, measured on 10 excerpts of music; 25 kbit/s (19 to 27) is Vorbis at its lowest
# quality.
CODECS = {
    "mp3_32k": Codec("MP3", "MPEG_LAYER_III", 16_000, 32, 0.85, "CONSTANT"),
    "mp3_16k": Codec("MP3", "MPEG_LAYER_III", 16_000, 16, 0.95, "CONSTANT"),
    "mp3_8k": Codec("MP3", "MPEG_LAYER_III", 16_000, 8, 0.97, "CONSTANT"),
    "vorbis_25k": Codec("OGG", "VORBIS", 16_000, 25, 1.0),
    "opus_16k": Codec(
        "OGG", "OPUS", 16_000, 16, 0.964
    ),  # Opus has 256 - 250 x level, and Ogg's pages add 1
    "opus_8k": Codec("OGG", "OPUS", 16_000, 8, 0.992),
    "gsm": Codec("WAV", "GSM610", 8_000, 13),
}
ULAW = Codec("WAV", "ULAW", 8_000, 64)


def transcode(rng: np.random.Generator, samples: np.ndarray, *, codec: Codec) -> np.ndarray:
    """Encoded and decoded again at the codec's sample rate; its delay is measured once and taken
    out.

    Raises:
      ValueError: this libsndfile was built without the codec; the wheels of soundfile have them
        all.
    """
    samples = _checked(samples)
    if not samples.any():
        return samples.copy()
    sent = _resampled(samples, SAMPLE_RATE, codec.rate)
    louder = max(
        1.0, float(np.abs(sent).max()) / 0.7
    )  # Opus, GSM and mu-law would clip what overshoots
    received = louder * _round_trip(sent / np.float32(louder), codec, _delay(codec))
    return _fit(_length(_resampled(received, codec.rate, SAMPLE_RATE), len(samples)))


def encode(samples: np.ndarray, codec: Codec) -> bytes:
    """The file, from float32 (samples,) in [-1, 1] at the codec's rate."""
    container, subtype, rate, _, level, mode = codec
    file = io.BytesIO()
    try:
        soundfile.write(
            file,
            samples,
            rate,
            subtype,
            format=container,
            compression_level=level,
            bitrate_mode=mode,
        )
    except (soundfile.SoundFileError, ValueError) as error:
        raise ValueError(
            f"cannot write {container} {subtype} ({error}); the soundfile wheel's libsndfile can."
        ) from error
    return file.getvalue()


def _round_trip(samples: np.ndarray, codec: Codec, delay: int) -> np.ndarray:
    tail = (
        codec.rate // 4
    )  # longer than any delay, so the end is coded like the rest; two GSM frames are 320 samples
    padded = np.pad(samples, (0, tail + -(len(samples) + tail) % 320))
    decoded, _ = soundfile.read(io.BytesIO(encode(padded, codec)), dtype="float32")
    return _length(decoded[delay:], len(samples))


@lru_cache(maxsize=64)
def _delay(codec: Codec) -> int:
    """Samples by which the decoded signal comes late, by cross-correlation (1105 in MP3 without an
    Info header).
    """
    count = codec.rate
    probe = _coloured(np.random.default_rng(0), count, 6.0)
    size = 4 * count
    spectra = [np.fft.rfft(signal, size) for signal in (probe, _round_trip(probe, codec, 0))]
    return int(np.argmax(np.fft.irfft(spectra[1] * spectra[0].conj(), size)[: count // 4]))


def synthetic_noises(seed: int, *, seconds: float = 10.0) -> list[np.ndarray]:
    """Pink and brown noise, wind, a crowd and an engine, RMS 0.1; float32 (samples,) each."""
    rng = np.random.default_rng([seed, 1])
    count = round(seconds * SAMPLE_RATE)
    pink, brown, gusts = (_coloured(rng, count, slope) for slope in (3.0, 6.0, 5.0))
    crowd = sum(
        _formant(rng, count) * _swell(rng, count, 4.0) ** 2 for _ in range(6)
    )  # noise in syllables
    turning = np.cumsum(rng.uniform(25, 45) * (1 + 0.2 * _swell(rng, count, 0.3))) / SAMPLE_RATE
    engine = 2 * brown + sum(
        np.sin(2 * np.pi * k * turning + rng.uniform(0, 6.28)) / k for k in range(1, 16)
    )
    made = [pink, brown, gusts * _swell(rng, count, 0.5), crowd, engine]
    return [(0.1 / _rms(part) * part).astype(np.float32) for part in made]


def synthetic_rooms(seed: int, *, count: int = 8) -> list[np.ndarray]:
    """Rooms of evenly spread RT60 (0.2 to 1.2 s) and random direct-to-reverberant ratio (-3 to 6
    dB).
    """
    rng = np.random.default_rng([seed, 2])
    return [
        synthetic_room(rng, rt60=rt60, direct_db=rng.uniform(-3, 6))
        for rt60 in np.linspace(0.2, 1.2, count)
    ]


def synthetic_room(rng: np.random.Generator, *, rt60: float, direct_db: float) -> np.ndarray:
    """A pulse of 0.9 after 2 ms, then, 3 ms later, noise that decays by 60 dB in ``rt60`` seconds;
    float32 (samples,).

    ``direct_db`` is the energy of the pulse over that of the tail, in dB.
    """
    start, tail = SAMPLE_RATE * 2 // 1000, SAMPLE_RATE * 5 // 1000
    time = np.arange(round(1.15 * rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    decay = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    decay *= 0.9 * 10 ** (-direct_db / 20) / np.sqrt(np.sum(decay**2))
    response = np.concatenate([np.zeros(tail), decay])
    response[start] = 0.9
    return response.astype(np.float32)


def synthetic_music(seed: int, *, count: int = 4, seconds: float = 10.0) -> list[np.ndarray]:
    """Tunes that wander over a scale above held fifths, on four instruments; RMS 0.1, float32
    (samples,) each.
    """
    rng = np.random.default_rng([seed, 3])
    players = ("piano", "organ", "trumpet", "strings")
    return [
        _tune(rng, players[i % len(players)], round(seconds * SAMPLE_RATE)) for i in range(count)
    ]


def _tune(rng: np.random.Generator, instrument: str, count: int) -> np.ndarray:
    scale = np.concatenate([np.array([0, 2, 4, 5, 7, 9, 11]) + octave for octave in (0, 12)])
    beat, tonic = rng.uniform(0.2, 0.4), int(rng.integers(58, 66))
    places = np.cumsum(rng.integers(-2, 3, int(count / SAMPLE_RATE / beat) + 1)) % len(scale)
    events = [
        synth.Event(i * beat, 0.9 * beat, float(tonic + scale[at]), 0.8)
        for i, at in enumerate(places)
    ]
    for i in range(0, len(places), 4):
        root = tonic - 12 + int(rng.choice([0, -3, 5, -5]))
        events += [
            synth.Event(i * beat, 4 * beat, float(max(root + step, 40)), 0.5) for step in (0, 7)
        ]
    part = synth.play(rng, instrument, events, samples=count)
    return (0.1 / _rms(part) * part).astype(np.float32)


def _coloured(rng: np.random.Generator, count: int, slope: float) -> np.ndarray:
    """Noise that falls by ``slope`` dB per octave above 30 Hz, peak 0.9, float32."""
    shape = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 30.0) ** (
        -slope / (20 * np.log10(2))
    )
    out = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)
    return (0.9 / np.abs(out).max() * out).astype(np.float32)


def _swell(rng: np.random.Generator, count: int, hertz: float) -> np.ndarray:
    """A random curve from 0 to 1 with ``hertz`` turns a second."""
    points = rng.uniform(0, 1, max(2, round(2 * hertz * count / SAMPLE_RATE)))
    return np.interp(np.linspace(0, len(points) - 1, count), np.arange(len(points)), points)


def _formant(rng: np.random.Generator, count: int) -> np.ndarray:
    octaves = np.log2(
        np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 1.0) / rng.uniform(300, 900)
    )
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * np.exp(-(octaves**2)), count)


CHAINS = {
    "bar": ("room", "noise_5db", "telephone"),  # a phone in a bar
    "car": ("noise_5db", "gsm"),
    "hall": ("room", "noise_10db"),
    "radio": ("compress", "equalise", "noise_20db", "mp3_32k"),
    "upload": ("pitch_+1", "tempo_+5%", "opus_16k"),  # altered so as not to be found
}


def registry(
    noises: Sequence[np.ndarray] | None = None,
    rooms: Sequence[np.ndarray] | None = None,
    others: Sequence[np.ndarray] | None = None,
) -> dict[str, Degradation]:
    """The named degradations of the report, mildest first within a family.

    Args:
      noises: float32 (samples,) each, at 16 kHz; ``synthetic_noises(0)`` by default.
      rooms: impulse responses in the same form; ``synthetic_rooms(0)`` by default.
      others: recordings to mix in, not those that are asked for; ``synthetic_music(0)`` by default.

    Raises:
      ValueError: a list is empty, or an entry is silent, not one-dimensional or not finite.
    """
    noises = _sources("noises", synthetic_noises(0) if noises is None else noises)
    rooms = _sources("rooms", synthetic_rooms(0) if rooms is None else rooms)
    others = _sources("others", synthetic_music(0) if others is None else others)
    table = {entry.name: entry for entry in _entries(noises, rooms, others)}
    return table | {
        name: chain(*(table[part] for part in parts), name=name) for name, parts in CHAINS.items()
    }


def _entries(
    noises: Sequence[np.ndarray], rooms: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> Iterator[Degradation]:
    yield Degradation("clean", "clean", 0.0, partial(gain, decibels=0.0))
    for snr in (20, 10, 5, 0, -5):
        yield Degradation(f"white_noise_{snr}db", "white noise", snr, partial(white_noise, snr=snr))
    for snr in (20, 10, 5, 0, -5):
        yield Degradation(f"noise_{snr}db", "noise", snr, partial(noise, noises=noises, snr=snr))
    for snr in (12, 6, 0):
        yield Degradation(f"mix_{snr}db", "mix", snr, partial(noise, noises=others, snr=snr))
    yield Degradation("room", "room", 0.0, partial(room, rooms=rooms))
    yield Degradation("echo", "room", -3.0, partial(echo, delay=0.25, level=-3.0))
    for name, codec in CODECS.items():
        yield Degradation(name, "codec", codec.kilobits, partial(transcode, codec=codec))
    for name, rate in (("via_11k", 11_025), ("resample_8k", 8_000), ("resample_4k", 4_000)):
        yield Degradation(name, "band", rate, partial(resample, rate=rate))
    yield Degradation("telephone", "band", 8_000.0, telephone)
    yield Degradation("telephone_ulaw", "band", 8_000.0, partial(telephone, codec=ULAW))
    yield Degradation("equalise", "band", 12.0, partial(equalise, decibels=12.0))
    yield Degradation("gain_-20db", "level", -20.0, partial(gain, decibels=-20.0))
    yield Degradation("compress", "level", 8.0, partial(compress, threshold=-12.0, ratio=8.0))
    for percent in (10, 30):
        yield Degradation(f"clip_{percent}%", "level", percent, partial(clip, share=percent / 100))
    for percent in (20, 50):
        yield Degradation(f"gaps_{percent}%", "level", percent, partial(gaps, share=percent / 100))
    for percent in (-10, -4, -2, 2, 4, 5, 10):
        factor = 1 + percent / 100
        yield Degradation(
            f"speed_{percent:+}%", "speed", percent, partial(speed, factor=factor), factor
        )
    for percent in (-10, -5, 5, 10):
        factor = 1 + percent / 100
        yield Degradation(
            f"tempo_{percent:+}%", "tempo", percent, partial(tempo, factor=factor), factor
        )
    for semitones in (-2, -1, 1, 2):
        yield Degradation(
            f"pitch_{semitones:+}", "pitch", semitones, partial(pitch, semitones=semitones)
        )


NAMES = (*(entry.name for entry in _entries((), (), ())), *CHAINS)  # what ``registry`` has


def chosen(names: Sequence[str]) -> list[str]:
    """Names of degradations, of all where they are "all"; ValueError where there is no such one."""
    names = list(NAMES) if list(names) == ["all"] else list(names)
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"Unknown degradation {unknown[0]!r}; there are {', '.join(NAMES)}.")
    return names


def described(degradation: Degradation) -> str:
    """What it does, in a few words."""
    parts = " + ".join(CHAINS.get(degradation.name, ()))
    return parts or f"{degradation.family}, {degradation.strength:g}"


def _checked(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1:
        raise ValueError(f"samples must be one-dimensional (mono), got shape {samples.shape}.")
    if not np.isfinite(samples).all():
        raise ValueError("samples must be finite, got NaN or infinity.")
    return samples


def _sources(what: str, sources: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    checked = tuple(_checked(source) for source in sources)
    silent = [i for i, source in enumerate(checked) if not source.any()]
    if silent or not checked:
        raise ValueError(
            f"{what} must be sounds, got "
            + (f"silence at {silent}." if silent else "an empty list.")
        )
    return checked


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def _at_level(samples: np.ndarray, model: np.ndarray) -> np.ndarray:
    return _rms(model) / max(_rms(samples), 1e-30) * samples


def _fit(samples: np.ndarray) -> np.ndarray:
    peak = float(np.abs(samples).max(initial=0.0))
    return (samples / peak if peak > 1 else samples).astype(np.float32)


def _filtered(samples: np.ndarray, taps: np.ndarray, delay: int) -> np.ndarray:
    """Convolution without its first ``delay`` samples, as long as the input; float64."""
    import scipy.signal  # late: it takes most of a second to load

    whole = scipy.signal.fftconvolve(samples.astype(np.float64), taps.astype(np.float64))
    return whole[delay : delay + len(samples)]


def _resampled(samples: np.ndarray, source_rate: float, rate: float) -> np.ndarray:
    if source_rate == rate or not len(samples):
        return samples
    return soxr.resample(samples.astype(np.float32), source_rate, rate, quality="HQ")


def _length(samples: np.ndarray, count: int) -> np.ndarray:
    return np.pad(samples[:count], (0, max(0, count - len(samples))))
