"""Notes -> samples: instruments as sums of partials with noise, and the room and microphone around
them. numpy alone.

Two physical models carry every pitched instrument. ``Struck`` (strings plucked or hit, bars, tines)
is a sum of modes that each decay at their own rate. ``Driven`` (bow, breath, reed, bellows) is a
harmonic sum over one phase that carries vibrato and drift, with a spectrum that brightens with the
envelope and with noise of the bow or the breath. Pitches are MIDI numbers, times seconds, samples
at ``SAMPLE_RATE``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 16_000  # Hz
_TOP = 7_600.0  # Hz; partials above it are left out, so nothing aliases
_BLOCK = (
    256  # samples; a decaying mode is (its values at block starts) x (its values within a block)
)
_LONGEST = 4.0  # seconds a struck note rings


class Event(NamedTuple):
    start: float  # seconds
    duration: float  # seconds
    pitch: float  # MIDI number
    loudness: float  # 0 to 1


@dataclass(frozen=True)
class Struck:
    """A body that is set going once. Its modes are at f * ratios, or at harmonics stretched by
    ``stiffness``.
    """

    family: str
    low: int  # lowest and highest comfortable pitch
    high: int
    ring: float  # seconds until the first mode of A3 has fallen by 60 dB
    shorter: float = 0.5  # ring scales with (220 / f) ** shorter
    damping: float = 0.6  # decay rate of a mode grows by this factor per kHz above the first
    tilt: float = 1.1  # amplitude of harmonic k is k ** -tilt
    place: float = 0.0  # where it is plucked or hit, a fraction of the string; 0: no comb
    stiffness: float = 0.0  # inharmonicity B: f_k = k f sqrt(1 + B k^2)
    ratios: tuple[float, ...] = ()  # of bars and tines
    gains: tuple[float, ...] = ()
    strings: tuple[tuple[float, float, float], ...] = (
        (1.0, 0.0, 1.0),
    )  # amplitude, detuning in cents, ring factor
    body: tuple[tuple[float, float], ...] = ()  # resonances: Hz, dB
    thump: float = 0.02  # level of the attack noise
    thump_hz: float = 1_500.0
    release: float = 0.12  # seconds to damp it at the end of the note
    rolled: bool = False  # long notes are tremolo (mandolin)


@dataclass(frozen=True)
class Driven:
    """A tone that is kept going."""

    family: str
    low: int
    high: int
    tilt: float = 1.0  # of the full tone; the soft tone is ``dull`` steeper
    dull: float = 0.8
    even: float = 1.0  # amplitude of even harmonics (a clarinet has few)
    body: tuple[tuple[float, float], ...] = ()
    attack: float = 0.05  # seconds
    release: float = 0.08
    vibrato: float = 0.0  # cents
    vibrato_hz: float = 5.5
    tremor: float = 0.0  # amplitude modulation that goes with the vibrato
    scoop: float = 0.0  # cents below the pitch at the onset
    noise: float = 0.01  # level of bow or breath noise
    noise_hz: float = 2_500.0
    chiff: float = 0.0  # extra noise at the onset
    voices: tuple[float, ...] = (0.0,)  # cents: reeds of an accordion, players of an ensemble
    harmonics: int = 30


Instrument = Struck | Driven

_VIOLIN = ((280, 5.0), (460, 6.0), (700, 2.0), (1_200, -4.0), (2_600, 7.0), (4_500, -3.0))
_GUITAR = ((100, 5.0), (200, 4.0), (400, 2.0), (2_500, 2.0))
_HAMMERS = ((0.75, -0.7, 0.35), (0.35, 0.7, 1.2))  # a prompt sound and an aftersound

# fmt: off
INSTRUMENTS: dict[str, Instrument] = {
    "violin": Driven("bowed", 55, 93, dull=0.5, body=_VIOLIN, attack=0.06, release=0.1, vibrato=16,
        vibrato_hz=5.6, tremor=0.12, scoop=12, noise=0.035, noise_hz=3_000, chiff=0.05),
    "fiddle": Driven("bowed", 55, 90, tilt=0.85, dull=0.4, body=_VIOLIN, attack=0.025, release=0.05,
        vibrato=5, vibrato_hz=5.2, tremor=0.05, scoop=18, noise=0.06, noise_hz=3_200, chiff=0.12),
    "cello": Driven("bowed", 36, 69, tilt=1.05, dull=0.5,
        body=((220, 5.0), (600, 4.0), (1_500, 3.0)), attack=0.08, release=0.14, vibrato=14,
        vibrato_hz=5.0, tremor=0.1, scoop=10, noise=0.03),
    "strings": Driven("bowed", 40, 88, tilt=1.15, dull=0.4, body=_VIOLIN, attack=0.12, release=0.22,
        vibrato=10, vibrato_hz=5.4, tremor=0.05, noise=0.02, noise_hz=3_000, voices=(-9, -3, 4, 8),
        harmonics=18),
    "flute": Driven("wind", 60, 96, tilt=2.1, dull=1.0, even=0.8, body=((800, 3.0),), release=0.07,
        vibrato=10, vibrato_hz=5.0, tremor=0.15, scoop=-8, noise=0.05, noise_hz=2_200, chiff=0.08,
        harmonics=9),
    "whistle": Driven("wind", 72, 98, tilt=2.6, even=0.7, attack=0.02, release=0.04, vibrato=4,
        vibrato_hz=4.8, tremor=0.08, scoop=14, noise=0.05, noise_hz=4_000, chiff=0.12, harmonics=6),
    "clarinet": Driven("wind", 50, 89, tilt=1.1, dull=1.0, even=0.12, body=((1_500, 3.0),),
        attack=0.04, release=0.06, vibrato=3, vibrato_hz=5, tremor=0.03, scoop=6, noise=0.012,
        noise_hz=2_000, chiff=0.03),
    "oboe": Driven("wind", 58, 88, tilt=0.9, dull=0.5, body=((1_000, 9.0), (2_900, 5.0)),
        attack=0.04, release=0.06, vibrato=9, tremor=0.08, scoop=4, noise=0.012, noise_hz=3_000,
        chiff=0.03),
    "saxophone": Driven("wind", 49, 81, even=0.9, body=((500, 3.0), (1_100, 4.0)), attack=0.04,
        release=0.07, vibrato=9, vibrato_hz=5.0, tremor=0.1, scoop=25, noise=0.03, chiff=0.08),
    "trumpet": Driven("brass", 54, 84, tilt=0.8, dull=1.5, body=((1_200, 6.0), (2_200, 3.0)),
        attack=0.035, release=0.07, vibrato=6, vibrato_hz=5.2, tremor=0.06, scoop=15, noise=0.008),
    "horn": Driven("brass", 41, 77, tilt=1.5, dull=1.2, body=((450, 6.0),), attack=0.07,
        release=0.12, vibrato=3, vibrato_hz=5.0, tremor=0.03, scoop=10, noise=0.008, noise_hz=1_200,
        harmonics=16),
    "accordion": Driven("reed", 48, 88, tilt=0.85, dull=0.2, even=0.8,
        body=((900, 3.0), (2_400, 4.0)), attack=0.03, release=0.05, vibrato_hz=5, noise=0.008,
        chiff=0.02, voices=(-8, 0, 8)),
    "harmonica": Driven("reed", 57, 89, tilt=0.8, dull=0.5, even=0.9,
        body=((1_300, 5.0), (2_800, 4.0)), attack=0.03, release=0.05, vibrato=8, tremor=0.25,
        scoop=20, noise=0.03, chiff=0.03),
    "organ": Driven("reed", 36, 91, tilt=1.2, dull=0.0, even=1.4, attack=0.03, release=0.06,
        vibrato_hz=5, noise=0.008, chiff=0.04, voices=(-1, 1), harmonics=10),
    "choir": Driven("wind", 45, 81, tilt=1.2, dull=0.5, body=((450, 8.0), (800, 6.0), (2_700, 5.0)),
        attack=0.12, release=0.2, vibrato=14, vibrato_hz=5.2, tremor=0.06, scoop=20, noise=0.03,
        voices=(-8, 3, 6), harmonics=20),
    "piano": Struck("keys", 33, 96, ring=9.0, shorter=0.55, damping=0.7, tilt=1.15, place=0.12,
        stiffness=3e-4, strings=_HAMMERS, body=((120, 3.0), (1_800, -2.0)), thump=0.05,
        thump_hz=400),
    "bright piano": Struck("keys", 36, 96, ring=7.0, shorter=0.55, damping=0.5, tilt=0.85,
        place=0.12, stiffness=4e-4, strings=((0.6, -1.2, 0.4), (0.3, 1.4, 1.1)), thump=0.07,
        thump_hz=900),
    "honky-tonk piano": Struck("keys", 40, 96, ring=6.0, shorter=0.6, damping=0.5, tilt=0.9,
        place=0.14, stiffness=5e-4, strings=((0.5, -11, 0.6), (0.5, 11, 0.6)), thump=0.06,
        thump_hz=700),
    "electric piano": Struck("keys", 40, 91, ring=7.0, shorter=0.4, damping=2.5,
        ratios=(1, 2, 3, 6.8), gains=(1, 0.35, 0.12, 0.25), thump=0.03, thump_hz=600),
    "harpsichord": Struck("keys", 41, 89, ring=5.0, damping=0.35, tilt=0.55, place=0.09,
        stiffness=5e-5, strings=((1, -1.5, 1), (0.6, 1.5, 1)), thump=0.08, thump_hz=3_000,
        release=0.08),
    "steel guitar": Struck("plucked", 40, 84, ring=6.0, tilt=0.85, place=0.18, stiffness=8e-5,
        body=_GUITAR, thump=0.05, thump_hz=2_500),
    "nylon guitar": Struck("plucked", 40, 84, ring=4.0, shorter=0.6, damping=1.3, tilt=1.15,
        place=0.25, stiffness=2e-5, body=_GUITAR, thump=0.04, thump_hz=900),
    "banjo": Struck("plucked", 48, 88, ring=1.4, shorter=0.3, damping=0.35, tilt=0.6, place=0.08,
        stiffness=4e-5, body=((350, 5.0), (800, 6.0), (3_000, 4.0)), thump=0.12, thump_hz=2_500),
    "mandolin": Struck("plucked", 55, 91, ring=2.4, shorter=0.4, damping=0.45, tilt=0.8, place=0.12,
        stiffness=6e-5, strings=((1, -3, 1), (0.9, 3, 1)), body=((400, 4.0), (2_800, 4.0)),
        thump=0.06, thump_hz=3_000, rolled=True),
    "harp": Struck("plucked", 36, 96, ring=5.0, shorter=0.6, damping=1.0, tilt=1.3, place=0.4,
        stiffness=2e-5, body=((200, 3.0),), thump_hz=700, release=0.6),
    "dulcimer": Struck("plucked", 52, 91, ring=4.5, shorter=0.4, damping=0.4, tilt=0.8, place=0.1,
        stiffness=1e-4, strings=((1, -4, 1), (1, 2, 1), (0.8, 6, 1)), thump=0.08, thump_hz=2_000,
        release=0.8),
    "vibraphone": Struck("mallet", 53, 89, ring=8.0, shorter=0.4, damping=2.0, ratios=(1, 4, 10),
        gains=(1, 0.25, 0.08), thump=0.03, thump_hz=1_000, release=0.4),
    "marimba": Struck("mallet", 48, 96, ring=1.6, shorter=0.7, damping=2.0, ratios=(1, 3.93, 9.6),
        gains=(1, 0.3, 0.1), thump=0.08, thump_hz=700, release=0.5),
    "bass": Struck("plucked", 28, 55, ring=3.5, damping=3.0, tilt=1.2, place=0.2, stiffness=5e-5,
        body=((90, 4.0),), thump=0.05, thump_hz=500, release=0.08),
}
# fmt: on


@dataclass(frozen=True)
class Room:
    """What lies between the players and the file."""

    wet: float = 0.15  # reverberant amplitude against the direct sound
    rt60: float = 0.8  # seconds, below 2 kHz; above it half
    low_db: float = 0.0  # shelf below 250 Hz
    high_db: float = 0.0  # shelf above 2.5 kHz
    colour: tuple[tuple[float, float], ...] = field(default=())  # bumps of the microphone: Hz, dB
    band: float = 7_900.0  # Hz; upper limit
    squeeze: float = 0.0  # compression: gain is level ** -squeeze
    rms_db: float = -20.0  # dBFS, before the limiter
    noise_db: float = -70.0  # dBFS of the noise floor


def hertz(pitch: float) -> float:
    """Equal temperament, A4 = 440 Hz."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def play(
    rng: np.random.Generator, instrument: str, events: Iterable[Event], *, samples: int
) -> np.ndarray:
    """One player's part, float32 (samples,); what would ring beyond the end is cut."""
    out = np.zeros(samples, np.float32)
    model = INSTRUMENTS[instrument]
    hiss = (
        _band_noise(rng, model.noise_hz) if isinstance(model, Driven) else np.zeros(0, np.float32)
    )
    rung: dict[tuple[float, int, int], np.ndarray] = {}
    for event in events:
        begin = max(0, round(event.start * SAMPLE_RATE))
        if isinstance(model, Struck):
            key = (event.pitch, round(3 * event.loudness), int(rng.integers(2)))
            if key not in rung:
                rung[key] = _ring(rng, model, event.pitch, event.loudness)
            tone = _damped(rng, model, rung[key], event)
        else:
            tone = _drive(rng, model, event, hiss)
        end = min(samples, begin + len(tone))
        out[begin:end] += tone[: max(0, end - begin)]
    return out


def drums(
    rng: np.random.Generator, events: Iterable[tuple[float, str, float]], *, samples: int
) -> np.ndarray:
    """Hits (start in seconds, "kick" | "snare" | "brush" | "hat" | "shaker", loudness), float32
    (samples,).
    """
    out = np.zeros(samples, np.float32)
    hits = {kind: _drum(rng, kind) for kind in ("kick", "snare", "brush", "hat", "shaker")}
    for start, kind, loudness in events:
        begin = max(0, round(start * SAMPLE_RATE))
        hit = hits[kind][: max(0, samples - begin)]
        out[begin : begin + len(hit)] += np.float32(loudness) * hit
    return out


def record(rng: np.random.Generator, dry: np.ndarray, room: Room) -> np.ndarray:
    """The mix as it is heard in the room, through the microphone, at the file's level: float32
    within (-1, 1).
    """
    tail = round(min(1.3 * room.rt60, 3.0) * SAMPLE_RATE)
    size = 1 << int(np.ceil(np.log2(len(dry) + tail)))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(dry, size)
    spectrum *= 1 + room.wet * np.fft.rfft(_reverberation(rng, room.rt60, tail), size)
    spectrum *= 10 ** (_equalizer(frequencies, room) / 20)
    wet = np.fft.irfft(spectrum, size)[: len(dry)]
    wet = _compress(wet, room.squeeze)
    wet *= 10 ** (room.rms_db / 20) / max(float(np.sqrt(np.mean(wet**2))), 1e-9)
    wet += 10 ** (room.noise_db / 20) * rng.standard_normal(len(wet))
    over = np.abs(wet) > 0.7  # a soft knee: 0.7 + 0.28 tanh
    wet[over] = np.sign(wet[over]) * (0.7 + 0.28 * np.tanh((np.abs(wet[over]) - 0.7) / 0.28))
    return wet.astype(np.float32)


def _bells(
    frequencies: np.ndarray, bells: tuple[tuple[float, float], ...], width: float
) -> np.ndarray:
    """dB at each frequency of resonances (Hz, dB) that are ``width`` octaves wide."""
    octaves = np.log2(np.maximum(frequencies, 10.0))
    total = np.zeros_like(octaves)
    for centre, db in bells:
        total += db * np.exp(-(((octaves - np.log2(centre)) / width) ** 2))
    return total


def _ring(rng: np.random.Generator, model: Struck, pitch: float, loudness: float) -> np.ndarray:
    """A struck note that nobody damps."""
    first = hertz(pitch)
    if model.ratios:
        ratios, gains = np.array(model.ratios, float), np.array(model.gains, float)
        gains = gains * ratios ** (0.8 * (loudness - 0.7))  # harder is brighter
    else:
        k = np.arange(1, 41, dtype=float)
        ratios = k * np.sqrt((1 + model.stiffness * k**2) / (1 + model.stiffness))
        comb = (
            np.abs(np.sin(np.pi * k * model.place * rng.uniform(0.9, 1.1))) + 0.03
            if model.place
            else 1.0
        )
        gains = comb * k ** (-model.tilt - 1.2 * (0.7 - loudness))
    kept = ratios * first < _TOP
    ratios, gains = ratios[kept], gains[kept]
    gains = gains * 10 ** (_bells(ratios * first, model.body, 0.4) / 20)
    ring = model.ring * (220.0 / first) ** model.shorter
    rates = 6.91 / ring * (1 + model.damping * (ratios - 1) * first / 1000)
    modes, amplitudes = [], []
    for amplitude, cents, longer in model.strings:
        frequency = ratios * first * 2 ** (cents / 1200)
        modes.append((-rates / longer + 2j * np.pi * frequency) / SAMPLE_RATE)
        amplitudes.append(amplitude * gains * np.exp(1j * rng.uniform(-0.6, 0.6, len(ratios))))
    tone = _decays(
        np.concatenate(amplitudes),
        np.concatenate(modes),
        int(min(_LONGEST, 1.2 * ring) * SAMPLE_RATE),
    )
    tone[:24] *= np.linspace(0, 1, 24, dtype=np.float32)
    tone *= np.float32(0.25 / np.sqrt(np.sum(gains**2)))
    noise = _band_noise(rng, model.thump_hz, 1600) * np.exp(
        -np.arange(1600) / (0.012 * SAMPLE_RATE)
    )
    tone[: min(1600, len(tone))] += (model.thump * loudness * noise[: len(tone)]).astype(np.float32)
    return tone


def _decays(amplitudes: np.ndarray, modes: np.ndarray, samples: int) -> np.ndarray:
    """imag of the sum of a exp(m n), float32 (samples to the next whole block,).

    Each mode is an outer product of its values at the blocks' starts and within a block, and ends
    80 dB down. No matrix
    product: threads of BLAS in every worker cost more than they give.
    """
    total = np.zeros((-(-samples // _BLOCK), _BLOCK), np.float32)
    within = np.arange(_BLOCK)
    for amplitude, mode in zip(amplitudes, modes, strict=True):
        blocks = min(len(total), int(9.21 / -mode.real / _BLOCK) + 1)
        starts = (amplitude * np.exp(mode * _BLOCK * np.arange(blocks))).astype(np.complex64)
        values = np.exp(mode * within).astype(np.complex64)
        total[:blocks] += np.outer(starts.real, values.imag)
        total[:blocks] += np.outer(starts.imag, values.real)
    return total.ravel()


def _damped(rng: np.random.Generator, model: Struck, tone: np.ndarray, event: Event) -> np.ndarray:
    """A ringing note, cut to its duration; on a mandolin, struck again and again if it is long."""
    release = round(model.release * SAMPLE_RATE)
    length = min(len(tone), round(event.duration * SAMPLE_RATE) + release)
    note = tone[:length].copy()
    if model.rolled and event.duration > 0.5:
        stroke = round(rng.uniform(0.075, 0.095) * SAMPLE_RATE)
        for begin in range(stroke, length - stroke, stroke):
            span = min(2 * stroke, length - begin)
            note[begin : begin + span] *= np.linspace(1, 0.5, span, dtype=np.float32)
            note[begin:] += np.float32(0.45 * rng.uniform(0.7, 1)) * tone[: length - begin]
    fade = min(release, length)
    note[length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32) ** 2
    return np.float32(event.loudness) * note


def _drive(rng: np.random.Generator, model: Driven, event: Event, hiss: np.ndarray) -> np.ndarray:
    """A note that is bowed or blown for as long as it lasts."""
    length = max(round((event.duration + model.release) * SAMPLE_RATE), 64)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    attack = model.attack * rng.uniform(0.8, 1.3)
    rise = np.minimum(t / min(attack, 0.5 * event.duration + 0.01), 1)
    fall = np.clip((event.duration + model.release - t) / model.release, 0, 1)
    swell = 1 + 0.25 * np.sin(np.pi * np.minimum(t / max(event.duration, 0.3), 1)) * (
        event.duration > 0.4
    )
    envelope = (rise * (2 - rise) * fall**1.5 * swell).astype(np.float32)
    tone = np.zeros(length, np.float32)
    for cents in model.voices:
        tone += _voice(rng, model, event, t, envelope, cents)
    start = int(rng.integers(0, len(hiss) - length)) if length < len(hiss) else 0
    noise = np.resize(hiss[start : start + length], length)
    burst = 0.35 * model.noise + 0.5 * model.chiff * np.exp(-t / 0.03)
    tone = tone / np.float32(np.sqrt(len(model.voices))) + (burst * envelope * noise).astype(
        np.float32
    )
    return np.float32(event.loudness) * tone


def _voice(
    rng: np.random.Generator,
    model: Driven,
    event: Event,
    t: np.ndarray,
    envelope: np.ndarray,
    cents: float,
) -> np.ndarray:
    """One reed or player: harmonics of one phase."""
    wobble = np.sin(
        2 * np.pi * (model.vibrato_hz * rng.uniform(0.92, 1.08) * t + rng.uniform()),
        dtype=np.float32,
    )
    wobble *= np.clip((t - 0.12) / 0.25, 0, 1)
    drift = rng.normal(0, 1.0) * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * t)
    bend = cents + model.vibrato * wobble + drift - model.scoop * np.exp(-t / 0.04)
    first = hertz(event.pitch)
    phase = np.cumsum(2 * np.pi * first / SAMPLE_RATE * 2 ** (bend.astype(np.float64) / 1200))
    z = np.exp(1j * np.remainder(phase, 2 * np.pi)).astype(np.complex64)
    k = np.arange(1, max(2, min(model.harmonics, int(_TOP / first)) + 1), dtype=float)
    bright = (
        k**-model.tilt
        * np.where(k % 2 == 0, model.even, 1.0)
        * 10 ** (_bells(k * first, model.body, 0.4) / 20)
    )
    bright *= rng.uniform(0.85, 1.15, len(k))
    bright /= np.sqrt(np.sum(bright**2))
    turn = np.exp(1j * rng.uniform(0, 2 * np.pi, len(k)))
    soft = bright * k**-model.dull
    dark, edge = _series(soft * turn, z).imag, _series((bright - soft) * turn, z).imag
    force = envelope * np.float32(0.3 + 0.9 * event.loudness)
    return (
        np.float32(0.25)
        * envelope
        * (1 + np.float32(model.tremor) * wobble)
        * (dark + force * edge)
    )


def _series(coefficients: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Sum of c_k z^k for k = 1, 2, ... by Horner's rule, complex64."""
    total = np.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= z
        total += np.complex64(coefficient)
    return total * z


def _band_noise(
    rng: np.random.Generator, centre: float, samples: int = 4 * SAMPLE_RATE
) -> np.ndarray:
    """Noise of RMS 1, 1.2 octaves wide, float32."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 1.0) / centre)
    noise = np.fft.irfft(spectrum * np.exp(-((octaves / 1.2) ** 2)), samples)
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def _drum(rng: np.random.Generator, kind: str) -> np.ndarray:
    """One hit."""
    t = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    centre, fade = {
        "snare": (2_000, 0.06),
        "brush": (3_500, 0.09),
        "hat": (6_500, 0.025),
        "shaker": (5_500, 0.04),
    }.get(kind, (200, 0.01))
    noise = _band_noise(rng, centre, len(t)) * np.exp(-t / fade)
    if kind == "kick":
        hit = (
            np.sin(2 * np.pi * (52 * t + 3.0 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.11)
            + 0.1 * noise
        )
    elif kind == "snare":
        hit = 0.35 * noise + 0.4 * np.sin(2 * np.pi * 190 * t) * np.exp(-t / 0.05)
    else:
        hit = 0.25 * noise * (1 - np.exp(-t / (0.02 if kind == "brush" else 0.004)))
    return (0.5 * hit).astype(np.float32)


def _reverberation(rng: np.random.Generator, rt60: float, samples: int) -> np.ndarray:
    """Impulse response of unit energy without the direct sound: six reflections over exponentially
    decaying noise.
    """
    t = np.arange(samples) / SAMPLE_RATE
    low, high = np.exp(-6.91 * t / rt60), np.exp(-6.91 * t / (0.5 * rt60))
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    crossover = 1 / (1 + (np.fft.rfftfreq(samples, 1 / SAMPLE_RATE) / 2_000) ** 4)
    response = (
        np.fft.irfft(spectrum * crossover, samples) * low
        + np.fft.irfft(spectrum * (1 - crossover), samples) * high
    )
    response[: round(rng.uniform(0.008, 0.025) * SAMPLE_RATE)] = 0
    for delay in rng.uniform(0.004, 0.035, 6):
        response[min(round(delay * SAMPLE_RATE), samples - 1)] += rng.choice([-1, 1]) * rng.uniform(
            2, 5
        )
    return response / np.sqrt(np.sum(response**2))


def _equalizer(frequencies: np.ndarray, room: Room) -> np.ndarray:
    """dB at each frequency: two shelves, the microphone's bumps, and the ends of the band."""
    f = np.maximum(frequencies, 1.0)
    shelves = room.low_db / (1 + (f / 250) ** 2) + room.high_db / (1 + (2_500 / f) ** 2)
    ends = -10 * np.log10(1 + (45 / f) ** 4) - 10 * np.log10(1 + (f / room.band) ** 12)
    return shelves + ends + _bells(f, room.colour, 0.7)


def _compress(samples: np.ndarray, squeeze: float) -> np.ndarray:
    """Gain ``level ** -squeeze``, where level is the RMS of the 100 ms around, against that of the
    whole.
    """
    window = SAMPLE_RATE // 10
    power = np.cumsum(np.concatenate([np.zeros(1), samples**2]))
    at = np.arange(len(samples))
    upper, lower = np.minimum(at + window // 2, len(samples)), np.maximum(at - window // 2, 0)
    level = np.sqrt((power[upper] - power[lower]).clip(0) / window)
    mean = np.sqrt(np.mean(samples**2)) + 1e-12
    return samples * np.maximum(level / mean, 0.1) ** -squeeze
