"""An exported hasher in numpy alone: the specification of the bits, and a way to use them where jax
is not wanted.

Float64 throughout, written to be read. It agrees with the compiled program except where a state
lies within float32 rounding of the threshold.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


def hash_samples(directory: str | Path, samples: np.ndarray) -> np.ndarray:
    """Words of a recording: float (samples,) in [-1, 1] at the config's sample rate -> uint32
    (codes, words).

    Args:
      directory: an exported hasher.
    """
    description = json.loads((Path(directory) / "hasher.json").read_text())
    with np.load(Path(directory) / "weights.npz") as stored:
        weights = {name: stored[name].astype(np.float64) for name in stored.files}
    thresholds = np.asarray(description["thresholds"], np.float32)
    states = states_of(description, weights, samples)
    unused = len(thresholds) - states.shape[1]  # of a ring of pitch classes, past its end
    return pack(np.pad(states, ((0, 0), (0, unused))) > thresholds)


def states_of(description: dict[str, Any], weights: Weights, samples: np.ndarray) -> np.ndarray:
    """H of every segment, or the states of every patch: float64 (codes, bits)."""
    config = description["config"]
    if config.get("encoder.front_end") == "bands":
        frames = bands(np.asarray(samples, np.float64), config)
        if config.get("encoder.kind", "autoencoder") == "autoencoder":
            size = config["model.layers"], config["model.hidden_size"]
            return lstm(weights, windows(frames, config), *size)
        return shared(weights, patches(frames, config), config)
    if config.get("encoder.front_end") == "harmony":
        return works(weights, harmony(np.asarray(samples, np.float64), config), config)
    cepstra = mfcc(np.asarray(samples, np.float64), config)
    starts = np.arange(0, len(cepstra) - config["segment.frames"] + 1, config["segment.hop"])
    segments = cepstra[starts[:, None] + np.arange(config["segment.frames"])]
    return lstm(
        weights,
        normalise(segments, cepstra, description),
        config["model.layers"],
        config["model.hidden_size"],
    )


def mfcc(samples: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Cepstra (frames, coeffs), as python_speech_features 0.6 defines them; of no samples none."""
    length, step, fft = (
        config["mfcc.frame_length"],
        config["mfcc.frame_step"],
        config["mfcc.fft_length"],
    )
    filters, coeffs, lifter = config["mfcc.filters"], config["mfcc.coeffs"], config["mfcc.lifter"]
    emphasised = np.append(samples[:1], samples[1:] - config["mfcc.preemphasis"] * samples[:-1])
    frames = 1 + max(0, -(-(len(samples) - length) // step)) if len(samples) else 0
    padded = np.pad(emphasised, (0, max(0, (frames - 1) * step + length - len(samples))))
    windows = padded[np.arange(frames)[:, None] * step + np.arange(length)]
    power = np.abs(np.fft.rfft(windows, fft)) ** 2 / fft
    low_mel, high_mel = (
        2595 * np.log10(1 + config[f"mfcc.{edge}_hz"] / 700) for edge in ("low", "high")
    )
    mel = np.linspace(low_mel, high_mel, filters + 2)
    edges = np.floor(
        (fft + 1) * 700 * (10 ** (mel / 2595) - 1) / config["mfcc.sample_rate"]
    ).astype(int)
    bank = np.zeros((filters, fft // 2 + 1))
    for j, (low, centre, high) in enumerate(zip(edges[:-2], edges[1:-1], edges[2:], strict=True)):
        bank[j, low:centre] = (np.arange(low, centre) - low) / (centre - low)
        bank[j, centre:high] = (high - np.arange(centre, high)) / (high - centre)
    bands, energy = power @ bank.T, power.sum(axis=1)
    tiny = np.finfo(np.float64).eps
    logs = np.log(np.where(bands == 0, tiny, bands))
    q, band = np.arange(coeffs), np.arange(filters)[:, None] + 0.5
    basis = np.sqrt(np.where(q == 0, 1, 2) / filters) * np.cos(np.pi * q * band / filters)
    cepstra = (logs @ basis) * (1 + lifter / 2 * np.sin(np.pi * q / lifter) if lifter else 1)
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstra


def normalise(segments: np.ndarray, cepstra: np.ndarray, description: dict[str, Any]) -> np.ndarray:
    """Standardised and clipped segments, (segments, frames, coeffs)."""
    kind, clip = (
        description["config"]["segment.normalisation"],
        description["config"]["segment.clip"],
    )
    if kind == "none" or not len(segments):
        return segments
    mean, std = np.array(description["mean"]), np.array(description["std"])
    if kind == "recording":
        mean, std = cepstra.mean(axis=0), np.sqrt(cepstra.var(axis=0) + 1e-6)
    if kind == "segment":
        mean, std = (
            segments.mean(axis=1, keepdims=True),
            np.sqrt(segments.var(axis=1, keepdims=True) + 1e-6),
        )
    scaled = (segments - mean) / std
    return np.clip(scaled, -clip, clip) if clip else scaled


def lstm(weights: Weights, segments: np.ndarray, layers: int, hidden_size: int) -> np.ndarray:
    """The final hidden state of the top cell: (segments, frames, coeffs) -> (segments, hidden)."""
    carry = [(np.zeros((len(segments), hidden_size)),) * 2 for _ in range(layers)]
    for values in np.moveaxis(segments, 1, 0):
        for layer in range(layers):
            c, h = carry[layer]
            i, f, g, o = (_gate(weights, f"cells_{layer}", gate, values, h) for gate in "ifgo")
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            values = _sigmoid(o) * np.tanh(c)
            carry[layer] = (c, values)
    return carry[-1][1]


def bands(samples: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Compressed powers of semitone bands, (frames, bands)."""
    length, step = config["bands.frame_length"], config["bands.frame_step"]
    frames = max(0, 1 + (len(samples) - length) // step)
    windows = samples[np.arange(frames)[:, None] * step + np.arange(length)]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    centred = hann * (windows - (windows @ hann)[:, None] / hann.sum())
    power = np.abs(np.fft.rfft(centred, config["bands.fft_length"])) ** 2
    return (power @ band_table(config)) ** config["bands.exponent"]


def band_table(config: dict[str, Any]) -> np.ndarray:
    """Triangles of equal width in log frequency, each of sum 1: (bins, bands)."""
    fft, rate = config["bands.fft_length"], config["bands.sample_rate"]
    octave = config["bands.bands_per_octave"]
    hz = np.arange(fft // 2 + 1)[:, None] * rate / fft
    middle = config["bands.low_hz"] * 2 ** (np.arange(config["bands.bands"]) / octave)
    below = np.maximum(middle - middle * 2 ** (-1 / octave), rate / fft)
    above = np.maximum(middle * 2 ** (1 / octave) - middle, rate / fft)
    slope = np.where(hz < middle, (middle - hz) / below, (hz - middle) / above)
    table = np.maximum(0, 1 - slope)
    return table / table.sum(axis=0)


def harmony(samples: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Roots of the magnitudes of semitones of a constant Q at the recording's tuning, (frames,
    semitones).
    """
    rate, octaves, low = (config[f"harmony.{n}"] for n in ("sample_rate", "octaves", "low_hz"))
    length, fft = config["harmony.frame_length"], config["harmony.fft_length"]
    thirds = {
        **{f"bands.{n}": config[f"harmony.{n}"] for n in ("sample_rate", "frame_step")},
        "bands.frame_length": length,
        "bands.fft_length": fft,
        "bands.bands_per_octave": 36,
        "bands.bands": 36 * octaves + 4,  # three below the first semitone's middle, three above
        "bands.low_hz": low * 2 ** (-3 / 36),
        "bands.exponent": 1.0,
    }
    power = bands(samples, thirds)
    first, count = 3 + 36 * max(0, octaves - 3), 36 * min(3, octaves)
    level = (power ** config["harmony.exponent"]).sum(axis=0)
    loud = [level[first + shift : first + shift + count - 2 : 3].sum() for shift in (-1, 0, 1)]
    tuning = int(np.argmax(loud)) - 1 if max(loud) > loud[1] else 0
    triangle = np.array([1, 2, 3, 2, 1]) / 3
    columns = 1 + 3 * np.arange(12 * octaves)[:, None] + np.arange(5)
    hz = low * 2 ** (np.arange(12 * octaves) / 12)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    tones = hann * np.exp(2j * np.pi * hz[:, None] * np.arange(length) / rate) / 2
    sines = np.abs(np.fft.fft(tones, fft)[:, : fft // 2 + 1]) ** 2 @ band_table(thirds)
    gain = sines[np.arange(len(hz))[:, None], columns] @ triangle
    return ((power[:, columns + tuning] @ triangle) / gain) ** config["harmony.exponent"]


def works(weights: Weights, semitones: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Functions that the twelve pitch classes share, of windows: (codes, 12 x bits)."""
    around, count = config["harmony.around"], semitones.shape[1]
    beside = np.pad(semitones, ((0, 0), (1, 1)))
    louder = (semitones >= beside[:, :-2]) & (semitones >= beside[:, 2:])
    partials = np.where(louder, semitones, 0)
    mean = np.stack(
        [semitones[:, max(0, i - around) : i + around + 1].mean(axis=1) for i in range(count)],
        axis=1,
    )
    heard = np.stack([partials, np.maximum(partials - mean, 0)], axis=1)
    steps, each, hop = (config[f"harmony.{name}"] for name in ("steps", "step_frames", "hop"))
    codes = max(0, (len(semitones) - steps * each) // hop + 1)
    rows = np.arange(codes)[:, None] * hop + np.arange(steps * each)
    cut = heard[rows].reshape(codes, steps, each, 2, count).mean(axis=2)
    cut = cut / (cut.mean(axis=(1, 3), keepdims=True) + 1e-9) - 1
    padded = np.pad(cut, ((0, 0), (0, 0), (0, 0), (11, 11)))
    rings = [
        shared(
            weights, padded[:, None, :, :, p : p + count + 11].reshape(codes, 1, steps, -1), config
        )
        for p in range(12)
    ]
    return np.concatenate(rings, axis=1).reshape(codes, -1)


def patches(frames: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """What each bit sees, divided by its mean: (codes, bits, patch frames, width)."""
    length, width, hop, edge, first, bits = (
        config[f"patch.{name}"] for name in ("frames", "width", "hop", "edge", "first", "bits")
    )
    if not len(frames):
        return np.zeros((0, bits, length, width))
    padded = np.pad(frames, ((edge, edge), (0, 0)), mode="edge")
    codes = max(0, (len(padded) - length) // hop + 1)
    rows = np.arange(codes)[:, None, None, None] * hop + np.arange(length)[:, None]
    columns = np.arange(bits)[:, None, None] + first - width // 2 + np.arange(width)
    cut = padded[rows, columns]
    return cut / (cut.mean(axis=(2, 3), keepdims=True) + 1e-12) - 1


def windows(frames: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """All that a code sees, divided by its mean: (codes, patch frames, seen bands)."""
    seen = config["patch.bits"] + config["patch.width"] - 1
    one = config | {"patch.bits": 1, "patch.width": seen}
    first = config["patch.first"] - config["patch.width"] // 2 + seen // 2
    return patches(frames, one | {"patch.first": first})[:, 0]


def shared(weights: Weights, cut: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """A function that all bands or pitch classes share, of patches: (codes, all bits)."""
    kind, rows = config["encoder.kind"], cut.reshape(-1, *cut.shape[2:])
    flat = rows.reshape(len(rows), cut.shape[2] * cut.shape[3])
    if kind == "lstm":
        state = lstm(weights, rows, 1, config["encoder.hidden"])
        states = state @ weights["readout/kernel"] + weights["readout/bias"]
    elif kind == "mlp":
        hidden = np.maximum(0, flat @ weights["hidden/kernel"] + weights["hidden/bias"])
        beside = hidden @ weights["readout/kernel"] + weights["readout/bias"]
        states = flat @ weights["kernel/kernel"] + beside
    else:
        states = flat @ weights["kernel"].reshape(flat.shape[1], -1)
    return states.reshape(len(cut), states.size // max(1, len(cut)))


def pack(bits: np.ndarray) -> np.ndarray:
    """bool (codes, bits) -> uint32 (codes, bits / 32), bit j of word i being bit 32 i + j."""
    return np.packbits(bits, axis=-1, bitorder="little").view("<u4").astype(np.uint32)


def _gate(
    weights: Weights, cell: str, gate: str, values: np.ndarray, hidden: np.ndarray
) -> np.ndarray:
    """Input and recurrent part of a gate, before its nonlinearity; the bias belongs to the
    recurrent part.
    """
    recurrent = hidden @ weights[f"{cell}/h{gate}/kernel"] + weights[f"{cell}/h{gate}/bias"]
    return values @ weights[f"{cell}/i{gate}/kernel"] + recurrent


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))
