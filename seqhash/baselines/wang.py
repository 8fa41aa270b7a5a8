"""Shazam landmarks (draft)"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BITS = 10
BLOCK = 2048


@dataclass(frozen=True)
class WangConfig:
    sample_rate: int = 16_000
    frame_length: int = 1024
    frame_step: int = 256
    low_hz: float = 0.0
    high_hz: float = 4_000.0
    region_frames: int = 5
    region_bins: int = 10
    prominence: float = 6.0
    by_prominence: bool = False
    density: float = 20.0
    density_seconds: float = 1.0
    query_density: float = 20.0
    fan_out: int = 5
    query_fan_out: int = 5
    zone_start: int = 2
    zone_frames: int = 63
    zone_bins: int = 31
    shifts: int = 4
    range_db: float = 90.0
    common: int = 0


class Peaks(NamedTuple):
    frame: np.ndarray
    bin: np.ndarray
    strength: np.ndarray


def running_maximum(values, radius, axis):
    values = np.moveaxis(values, axis, 0)
    n = len(values)
    pad = np.full((radius, *values.shape[1:]), -np.inf, values.dtype)
    wide = np.concatenate([pad, values, pad])
    width, span = 2 * radius + 1, 1
    while 2 * span <= width:
        wide = np.maximum(wide[:-span], wide[span:])
        span *= 2
    rest = width - span
    out = np.maximum(wide[:n], wide[rest : rest + n])
    return np.moveaxis(out, 0, axis)


def running_mean(values, radius, axis):
    values = np.moveaxis(values, axis, 0)
    n = len(values)
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    low, high = np.maximum(np.arange(n) - radius, 0), np.minimum(np.arange(n) + radius + 1, n)
    out = (total[high] - total[low]) / (high - low).reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    return np.moveaxis(out, 0, axis)


def find_peaks(samples, config, shifts, density):
    step = config.frame_step // shifts
    frames = (
        1 + (len(samples) - config.frame_length - (shifts - 1) * step) // config.frame_step
        if len(samples) >= config.frame_length + (shifts - 1) * step
        else 0
    )
    loudest = np.abs(samples).max(initial=0)
    if frames <= 0 or loudest == 0:
        e = np.zeros(0, np.int64)
        return Peaks(e, e, np.zeros(0))
    window = np.hanning(config.frame_length + 1)[:-1].astype(np.float32)
    floor = (loudest * window.sum() / 2) ** 2 * 10 ** (-config.range_db / 10)
    lo = int(np.ceil(config.low_hz * config.frame_length / config.sample_rate))
    hi = int(config.high_hz * config.frame_length / config.sample_rate)
    framed = np.lib.stride_tricks.sliding_window_view(samples, config.frame_length)[::step][: frames * shifts]
    parts = []
    halo = config.region_frames
    for begin in range(0, frames, BLOCK):
        first, last = max(0, begin - halo), min(frames, begin + BLOCK + halo)
        spectrum = np.fft.rfft(framed[first * shifts : last * shifts] * window)[:, lo:hi]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        level = (10 * np.log10(np.maximum(power, floor))).reshape(-1, shifts, hi - lo).astype(np.float32)
        best = running_maximum(running_maximum(level, config.region_bins, 2), config.region_frames, 0)
        is_peak = level == best
        mean = running_mean(running_mean(level, config.region_bins, 2), config.region_frames, 0)
        is_peak &= level > mean + config.prominence
        is_peak[: begin - first] = False
        is_peak[min(frames, begin + BLOCK) - first :] = False
        frame, phase, bin_ = np.nonzero(is_peak)
        s = level[is_peak] - (mean[is_peak] if config.by_prominence else 0)
        parts.append((frame + first, phase, bin_, s))
    frame, phase, bin_, strength = (np.concatenate(p) for p in zip(*parts))
    spacing = 1 << 40
    time = phase.astype(np.int64) * spacing + frame
    order = np.lexsort((bin_, time))
    time, bin_, strength = time[order], bin_[order], strength[order]
    radius = round(config.density_seconds / 2 * config.sample_rate / config.frame_step)
    keep = strongest(time, strength, radius, max(1, round(density * config.density_seconds)))
    return Peaks(time[keep], bin_[keep], strength[keep])


def strongest(time, strength, radius, count):
    stronger = np.zeros(len(time), np.int64)
    lag = 1
    while lag < len(time):
        near = time[lag:] - time[:-lag] <= radius
        if not near.any():
            break
        later = strength[lag:] > strength[:-lag]
        stronger[:-lag] += near & later
        stronger[lag:] += near & ~later
        lag += 1
    return stronger < count


def pair(time, bin_, config, fan_out):
    count = np.zeros(len(time), np.int64)
    lag, out = 1, []
    while lag < len(time):
        dt = time[lag:] - time[:-lag]
        near = dt <= config.zone_frames
        if not near.any():
            break
        ok = (
            near
            & (dt >= config.zone_start)
            & (np.abs(bin_[lag:] - bin_[:-lag]) <= config.zone_bins)
            & (count[:-lag] < fan_out)
        )
        i = np.flatnonzero(ok)
        count[i] += 1
        out.append((i, i + lag))
        lag += 1
    if not out:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return tuple(np.concatenate(p) for p in zip(*out))


def pack(f1, f2, dt):
    return ((f1.astype(np.int64) << 20) | (f2.astype(np.int64) << 10) | dt).astype(np.uint32)


def landmarks(samples, config, query):
    shifts = config.shifts if query else 1
    p = find_peaks(np.asarray(samples, np.float32), config, shifts, config.query_density if query else config.density)
    a, b = pair(p.frame, p.bin, config, config.query_fan_out if query else config.fan_out)
    h = pack(p.bin[a], p.bin[b], p.frame[b] - p.frame[a])
    phase, frame = p.frame[a] >> 40, p.frame[a] & ((1 << 40) - 1)
    fine = frame * shifts + phase
    return h, fine


class WIndex(NamedTuple):
    hashes: np.ndarray
    positions: np.ndarray
    starts: np.ndarray
    seconds: float


def add(recordings, config):
    hs, ps, starts = [], [], [0]
    for samples in recordings:
        h, f = landmarks(samples, config, False)
        hs.append(h)
        ps.append(f + starts[-1])
        starts.append(starts[-1] + len(samples) // config.frame_step + 1)
    h, p = np.concatenate(hs), np.concatenate(ps)
    o = np.lexsort((p, h))
    return WIndex(h[o], p[o], np.array(starts), sum(map(len, recordings)) / config.sample_rate)


def candidates(index, clip, config):
    """per recording best: (recording, count, offset s, hits_in_recording, bins_in_rec, nquery, total)"""
    h, fine = landmarks(clip, config, True)
    lo = np.searchsorted(index.hashes, h, "left")
    hi = np.searchsorted(index.hashes, h, "right")
    n = hi - lo
    if config.common:
        n = np.where(n > config.common, 0, n)
    total = n.sum()
    q = np.repeat(np.arange(len(h)), n)
    ref = np.arange(total) - np.repeat(np.cumsum(n) - n, n) + lo[q]
    pos = index.positions[ref]
    rec = np.searchsorted(index.starts, pos, "right") - 1
    S = config.shifts
    span = len(clip) // config.frame_step + 2
    axis = (pos + rec * (span + 4) + span) * S - fine[q]  # fine
    b = axis // S
    key = np.concatenate([b, b - 1]) * (1 << 32) + np.concatenate([ref, ref])
    key = np.unique(key)
    bins, cnt = np.unique(key >> 32, return_counts=True)
    origin = index.starts[:-1] + np.arange(len(index.starts) - 1) * (span + 4)
    r = np.searchsorted(origin, bins + 2, "right") - 1
    hits_r = np.bincount(r, cnt, minlength=len(origin))
    best = np.full(len(origin), -1)
    o = np.argsort(cnt, kind="stable")
    best[r[o]] = o  # last (largest) wins
    have = np.flatnonzero(best >= 0)
    k = cnt[best[have]]
    off = (bins[best[have]] - origin[have] - span + 1) * config.frame_step / config.sample_rate
    nb = np.diff(index.starts)[have] + span
    return have, k, off, hits_r[have], nb, len(h)


_LOGFACT = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 200000)))])


def log_tail(k, lam):
    """ln P(X >= k), X Poisson(lam)"""
    k = np.asarray(k, float)
    lam = np.maximum(np.asarray(lam, float), 1e-12)
    logpmf = k * np.log(lam) - lam - _LOGFACT[k.astype(int)]
    j = np.arange(1, 400)
    terms = np.cumsum(np.log(lam)[..., None] - np.log(k[..., None] + j), axis=-1)
    s = np.log1p(np.exp(np.minimum(terms, 50)).sum(-1))
    return np.minimum(logpmf + s, 0)
