"""Shazam's landmarks (Wang: An industrial-strength audio search algorithm, ISMIR 2003).

*Peaks.* A cell of the spectrogram that no other in a region around it exceeds, and that stands
``prominence`` dB above the region's mean. Of the peaks around each instant the strongest
``density`` a second remain: their rank decides, so no threshold has to settle and no gain matters.
Near its ends an excerpt has nearly all of a recording's peaks, and
more: there is less to compete with.

*Landmarks.* Each peak, the anchor, is paired with the first ``fan_out`` peaks of its target zone,
which lies ahead of it, in the order of time, then frequency. The two bins and the frames between
are the hash, 10 bits each; next to it stands the anchor's frame. Amplitudes are dropped. A query is
analysed at ``shifts`` grids inside one frame step, since its frames do not lie on the reference's,
and more densely: that costs the index nothing.

*Matching.* All reference landmarks with a hash of the query are looked up. A true match has many at
one offset, reference time - query time. The histogram of offsets, for each recording, has bins two
frame steps wide that begin one step apart, so that a match on a border lies whole in a bin too; a
reference landmark counts once in a bin, by however many shifts it was found.

*Significance.* Hashes that agree by accident fall on all offsets, at a rate that the recording's
other bins show. The score is -log10 of how many bins of the whole collection are expected to be as
full as the best, were the counts Poisson with that rate. They are not quite: one tone that two
recordings share makes several landmarks agree at once. So counts and rates are divided by
``clump``; with 3 about one clip in a hundred that is not there scores over 2 on ``covers-real``, of
which two works were left out.

The paper gives neither the size of the transform nor region, zone or density: these are our choice,
made on ``covers-real``. All of it is numpy: peaks are few, and their number depends on the audio.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqhash.codes import check_samples
from seqhash.index.searcher import Match

BITS = 10  # of each part of a hash
BLOCK = 512  # frames analysed at a time
BATCH = 64  # clips looked up at a time
HITS = 2**21  # agreeing hashes of a batch, about
CANDIDATES = 10  # recordings that a clip is answered with at most
# of a match's landmarks lie before its start, and after its end: some are aligned by accident
ENDS = 0.02
BYTES = 8  # of a landmark: a hash, and a frame on the time axis of the collection
APART = 1 << 40  # frames between two grids of one time axis: no zone reaches across


@dataclass(frozen=True)
class WangConfig:
    """How to analyse and accept. In brackets what public implementations take, at their rates:
    audfprint; dejavu.
    """

    # Hz of the samples [11,025; 44,100; the paper's 8,000 carries the same band as ours]
    sample_rate: int = 16_000
    frame_length: int = 1024  # samples: 64 ms [46 ms; 93 ms]
    frame_step: int = 256  # samples: 16 ms [23 ms; 46 ms]
    low_hz: float = 0.0
    high_hz: float = 4_000.0  # [5,500; 22,050]
    region_frames: int = (
        5  # a peak is the maximum of so many frames before and after [adaptive; 10]
    )
    region_bins: int = 10  # and of so many bins below and above [adaptive; 10]
    prominence: float = 6.0  # dB above the mean of that region
    range_db: float = (
        90.0  # levels so far below full scale, taken from the loudest sample, are silence [120; -]
    )
    density: float = 30.0  # peaks a second [20; as many as there are]
    density_seconds: float = 1.0  # around a peak, in which it must be among the strongest
    fan_out: int = 5  # landmarks of an anchor [3; 4]
    zone_start: int = 2  # frames from the anchor to its target zone [2; 0]
    zone_frames: int = 63  # and to its last frame: 1.0 s [1.4 s; 9.3 s]
    zone_bins: int = 31  # of the zone, below and above the anchor: 0.5 kHz [0.6 kHz; all]
    shifts: int = 4  # grids that a query is analysed at [4; 1]
    query_density: float = 40.0  # peaks a second of a query
    query_fan_out: int = 7
    clump: float = 3.0  # landmarks that agree by accident as one
    false_positive_rate: float = (
        0.01  # clips that are not there and answered all the same: score >= -log10 of it
    )

    def __post_init__(self) -> None:
        for name in (
            "frame_step",
            "region_frames",
            "region_bins",
            "zone_start",
            "fan_out",
            "query_fan_out",
            "shifts",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in (
            "sample_rate",
            "density",
            "query_density",
            "density_seconds",
            "range_db",
            "clump",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.frame_step % self.shifts or self.frame_step > self.frame_length:
            raise ValueError(
                f"shifts must divide frame_step, which is at most {self.frame_length} samples."
            )
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise ValueError(
                f"The band must lie between 0 and {self.sample_rate / 2:g} Hz, half of the rate."
            )
        if self.bins.start >= self.bins.stop or self.bins.stop > 1 << BITS:
            raise ValueError(
                f"A hash has room for the bins 1 to {(1 << BITS) - 1}, got {self.bins}: "
                "see frame_length."
            )
        if not self.zone_start <= self.zone_frames < 1 << BITS:
            raise ValueError(
                f"zone_frames must be from zone_start to {(1 << BITS) - 1}, got {self.zone_frames}."
            )
        if not 0 < self.false_positive_rate < 1:
            raise ValueError(
                f"false_positive_rate must be between 0 and 1, got {self.false_positive_rate}."
            )

    @property
    def bins(self) -> range:
        """Bins of the transform that may hold a peak: inside the band, without 0 Hz."""
        hz = self.sample_rate / self.frame_length
        return range(max(1, math.ceil(self.low_hz / hz)), math.ceil(self.high_hz / hz))

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.frame_step


DEFAULT = WangConfig()
PAPER = WangConfig(
    fan_out=10, query_fan_out=10, query_density=30.0, shifts=1
)  # queries are analysed as references are
SPARSE = WangConfig(density=20.0, query_density=20.0, fan_out=3, query_fan_out=3)  # as audfprint's


class Peaks(NamedTuple):
    """Peaks of one clip, ordered by (grid, frame, bin)."""

    grid: np.ndarray  # int64 (peaks,): which of the shifts
    frame: np.ndarray  # int64 (peaks,): of its grid
    bin: np.ndarray  # int64 (peaks,): of the transform, bin * sample_rate / frame_length Hz
    level: np.ndarray  # float32 (peaks,): dB


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Landmarks of a collection, in memory, sorted by (hash, position). Made by ``add`` or
    ``from_fingerprints``.
    """

    config: WangConfig
    hashes: np.ndarray  # uint32 (landmarks,)
    positions: np.ndarray  # uint32 (landmarks,): frames on one time axis of all recordings
    starts: (
        np.ndarray
    )  # int64 (recordings + 1,): recording r has the frames starts[r] to starts[r + 1] of that axis

    @property
    def bytes_per_second(self) -> float:
        """Of audio, measured."""
        return BYTES * len(self.hashes) * self.config.frame_rate / max(1, int(self.starts[-1]))


# --------------------------------------------------------------------------------- samples to peaks


def find_peaks(
    samples: np.ndarray, *, shifts: int, density: float, config: WangConfig = DEFAULT
) -> Peaks:
    """The peaks of a clip, so many a second, on each of ``shifts`` grids: frame f of grid g begins
    at f + g / shifts.

    For the samples see ``fingerprint``.
    """
    samples = check_samples(samples)
    loudest = float(np.abs(samples).max(initial=0))
    frames = (
        len(samples) - config.frame_length - config.frame_step // shifts * (shifts - 1)
    ) // config.frame_step + 1
    if frames < 1 or loudest == 0:
        none = np.zeros(0, np.int64)
        return Peaks(none, none, none, np.zeros(0, np.float32))
    rows = max(1, BLOCK // shifts)
    parts = [
        _local_maxima(samples, loudest, low, frames, shifts, config)
        for low in range(0, frames, rows)
    ]
    time, place, level = (np.concatenate(part) for part in zip(*parts, strict=True))
    kept = np.lexsort((place, time))
    kept = kept[_without_plateaus(time[kept], place[kept], level[kept], config)]
    count, radius = (
        round(density * config.density_seconds),
        round(config.density_seconds * config.frame_rate / 2),
    )
    kept = kept[strongest(time[kept], level[kept], radius=radius, count=max(1, count))]
    return Peaks(time[kept] // APART, time[kept] % APART, place[kept], level[kept])


def _local_maxima(
    samples: np.ndarray, loudest: float, low: int, frames: int, shifts: int, config: WangConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima in a block of frames from low on: (time, bin, level) of each, time = grid *
    APART + frame.
    """
    high = min(low + max(1, BLOCK // shifts), frames)
    first, last = max(0, low - config.region_frames), min(frames, high + config.region_frames)
    level = _levels(samples, loudest, first, last, shifts, config)
    best = running_maximum(
        running_maximum(level, config.region_bins, axis=2), config.region_frames, axis=0
    )
    frame, grid, place = np.nonzero((level == best)[low - first : high - first])
    frame += low - first
    heights = level[frame, grid, place]
    clear = heights > _mean_around(level, frame, grid, place, config) + config.prominence
    return (grid * APART + frame + first)[clear], (place + config.bins.start)[clear], heights[clear]


def _levels(
    samples: np.ndarray, loudest: float, first: int, last: int, shifts: int, config: WangConfig
) -> np.ndarray:
    """dB of the frames first to last at all grids, float32 (frames, grids, bins)."""
    length, step = config.frame_length, config.frame_step // shifts
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)
    framed = np.lib.stride_tricks.sliding_window_view(samples, length)[::step][
        first * shifts : last * shifts
    ]
    spectrum = np.fft.rfft(framed * window[None], axis=1)[:, config.bins.start : config.bins.stop]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    full_scale = (loudest * length / 4) ** 2  # of a sine as large as the loudest sample
    decibels = 10 * np.log10(np.maximum(power / full_scale, 10 ** (-config.range_db / 10)))
    return decibels.astype(np.float32).reshape(last - first, shifts, -1)


def running_maximum(values: np.ndarray, radius: int, *, axis: int) -> np.ndarray:
    """Maximum over 2 radius + 1 neighbours along an axis, by doubling the span; ends have fewer
    neighbours.
    """
    # 3.4 times as fast as scipy.ndimage.maximum_filter1d on a block of a query's levels.
    count, width, span = values.shape[axis], 2 * radius + 1, 1
    padding = [(radius, radius) if i == axis else (0, 0) for i in range(values.ndim)]
    wide = np.moveaxis(np.pad(values, padding, constant_values=-np.inf), axis, 0)
    while 2 * span <= width:
        wide = np.maximum(wide[:-span], wide[span:])
        span *= 2
    return np.moveaxis(np.maximum(wide[:count], wide[width - span : width - span + count]), 0, axis)


def _mean_around(
    level: np.ndarray, frame: np.ndarray, grid: np.ndarray, place: np.ndarray, config: WangConfig
) -> np.ndarray:
    """Mean level of the regions around some cells, float64 (cells,), from sums over rectangles that
    begin at 0, 0.
    """
    sums = np.pad(level.cumsum(axis=0, dtype=np.float64).cumsum(axis=2), ((1, 0), (0, 0), (1, 0)))
    top, bottom = (
        np.maximum(frame - config.region_frames, 0),
        np.minimum(frame + config.region_frames + 1, len(level)),
    )
    left = np.maximum(place - config.region_bins, 0)
    right = np.minimum(place + config.region_bins + 1, level.shape[2])
    inside = (
        sums[bottom, grid, right]
        - sums[top, grid, right]
        - sums[bottom, grid, left]
        + sums[top, grid, left]
    )
    return inside / ((bottom - top) * (right - left))


def _lags(time: np.ndarray, radius: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs (i, i + lag) of sorted times at most ``radius`` apart: (lag, i) for all lags there
    are.
    """
    for lag in range(1, len(time)):
        near = np.flatnonzero(time[lag:] - time[:-lag] <= radius)
        if not len(near):
            return
        yield lag, near


def _without_plateaus(
    time: np.ndarray, place: np.ndarray, level: np.ndarray, config: WangConfig
) -> np.ndarray:
    """Of equal maxima in one region the first, bool (peaks,): a steady tone has one in each
    frame.
    """
    kept = np.ones(len(time), bool)
    for lag, near in _lags(time, config.region_frames):
        same = level[near] == level[near + lag]
        kept[near[same & (np.abs(place[near] - place[near + lag]) <= config.region_bins)] + lag] = (
            False
        )
    return kept


def strongest(time: np.ndarray, level: np.ndarray, *, radius: int, count: int) -> np.ndarray:
    """Peaks that fewer than ``count`` others within ``radius`` of their time exceed, bool (peaks,);
    time is sorted.

    Of equals the earlier is the stronger.
    """
    exceeded = np.zeros(len(time), np.int64)
    for lag, near in _lags(time, radius):
        later = level[near + lag] > level[near]
        exceeded[near] += later
        exceeded[near + lag] += ~later
    return exceeded < count


# ------------------------------------------------------------------------------- peaks to landmarks


def pack(anchor: np.ndarray, target: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Hashes, uint32 (landmarks,): bin of the anchor, bin of the target, frames between, 10 bits
    each.
    """
    parts = [np.asarray(part, np.int64) for part in (anchor, target, frames)]
    if any(len(part) and not 0 <= part.min() <= part.max() < 1 << BITS for part in parts):
        raise ValueError(f"A hash has room for 0 to {(1 << BITS) - 1} in each of its parts.")
    return (parts[0] << 2 * BITS | parts[1] << BITS | parts[2]).astype(np.uint32)


def unpack(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bin of the anchor, bin of the target, frames between) of hashes, int64 each."""
    hashes, part = np.asarray(hashes, np.int64), (1 << BITS) - 1
    return hashes >> 2 * BITS, hashes >> BITS & part, hashes & part


def pair(
    peaks: Peaks, *, fan_out: int, config: WangConfig = DEFAULT
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks as (anchor, target), indices of peaks."""
    time = peaks.grid * APART + peaks.frame
    taken = np.zeros(len(time), np.int64)
    parts = [np.zeros((2, 0), np.int64)]
    for lag, near in _lags(time, config.zone_frames):
        inside = (time[near + lag] - time[near] >= config.zone_start) & (taken[near] < fan_out)
        anchor = near[
            inside & (np.abs(peaks.bin[near + lag] - peaks.bin[near]) <= config.zone_bins)
        ]
        taken[anchor] += 1
        parts.append(np.stack([anchor, anchor + lag]))
    anchor, target = np.concatenate(parts, axis=1)
    return anchor, target


def fingerprint(
    samples: np.ndarray, *, query: bool = False, config: WangConfig = DEFAULT
) -> np.ndarray:
    """The landmarks of a recording: uint32 (landmarks, 2), hash and time of the anchor, ordered by
    (time, hash).

    None where the clip is silent, or shorter than a frame and the way to a zone.

    Args:
      samples: float32 (samples,) in [-1, 1] at the config's rate.
      query: as a clip is looked up, not as a reference is stored: denser, and at all shifts.

    Returns:
      Times are in frames; those of a query in frames / shifts.

    Raises:
      ValueError: the samples are not finite mono floats.
    """
    shifts, fan_out = (config.shifts, config.query_fan_out) if query else (1, config.fan_out)
    density = config.query_density if query else config.density
    peaks = find_peaks(samples, shifts=shifts, density=density, config=config)
    anchor, target = pair(peaks, fan_out=fan_out, config=config)
    hashes = pack(peaks.bin[anchor], peaks.bin[target], peaks.frame[target] - peaks.frame[anchor])
    time = peaks.frame[anchor] * shifts + peaks.grid[anchor]
    return np.stack([hashes, time.astype(np.uint32)], axis=1)[np.lexsort((hashes, time))]


# ----------------------------------------------------------------------------------- the collection


def add(recordings: Sequence[np.ndarray], *, config: WangConfig = DEFAULT) -> Landmarks:
    """The collection of some recordings: float32 (samples,) in [-1, 1] each."""
    prints = [fingerprint(samples, config=config) for samples in recordings]
    return from_fingerprints(
        prints, [len(samples) // config.frame_step + 1 for samples in recordings], config=config
    )


def from_fingerprints(
    fingerprints: Sequence[np.ndarray], frames: Sequence[int], *, config: WangConfig
) -> Landmarks:
    """The collection of recordings whose landmarks are at hand.

    Args:
      fingerprints: uint32 (landmarks, 2) of each, by ``fingerprint``.
      frames: that each recording has.

    Raises:
      ValueError: a landmark lies past the frames, or there are more than 2^32 frames in all.
    """
    starts = np.cumsum([0, *frames])
    if starts[-1] >= 1 << 32:
        raise ValueError(
            f"A collection holds fewer than 2^32 frames, got {starts[-1]}: make two of it."
        )
    for number, (one, count) in enumerate(zip(fingerprints, frames, strict=True)):
        if one[:, 1].max(initial=0) >= max(1, count):
            raise ValueError(
                f"Recording {number} has {count} frames, but a landmark at frame {one[:, 1].max()}."
            )
    marks = np.concatenate([np.zeros((0, 2), np.uint32), *fingerprints])
    hashes, positions = (
        marks[:, 0],
        marks[:, 1] + np.repeat(starts[:-1], [len(one) for one in fingerprints]),
    )
    order = np.lexsort((positions, hashes))
    return Landmarks(config, hashes[order], positions[order].astype(np.uint32), starts)


# ----------------------------------------------------------------------------------------- matching


class Hits(NamedTuple):
    """Reference landmarks with a hash of a query, (hits,) each, ordered by clip."""

    clip: np.ndarray  # of the batch
    query: np.ndarray  # landmark of the batch's queries
    reference: np.ndarray  # landmark of the collection
    recording: np.ndarray
    offset: np.ndarray  # reference time - query time, frame steps / shifts; of the recording


class Bins(NamedTuple):
    """The fullest bin of the histogram of each clip and recording that share a hash, ordered by
    (clip, recording).
    """

    clip: np.ndarray
    recording: np.ndarray
    begin: np.ndarray  # of the bin: offset in frames, inclusive; it is two frames wide
    landmarks: np.ndarray  # of the reference in it, int64
    total: np.ndarray  # in all bins of the recording; each landmark is in two


def identify(
    index: Landmarks, clips: Sequence[np.ndarray], *, all_candidates: bool = False
) -> list[list[Match]]:
    """The recordings that each clip is from, best first: at most one alignment of each, CANDIDATES
    in all.

    In a ``Match``, start and end are those of the aligned landmarks, all but ENDS; distance is the
    number of the query's landmarks, of all shifts, that are not aligned, bit_error_rate their
    share; path and title are empty.

    Args:
      clips: float32 (samples,) in [-1, 1] each. A silent or very short one has no landmarks, and no
        match.
      all_candidates: also the recordings whose score is too low to be accepted.
    """
    queries = [fingerprint(clip, query=True, config=index.config) for clip in clips]
    least = -math.inf if all_candidates else -math.log10(index.config.false_positive_rate)
    return [
        answer
        for batch in _batches(index, queries)
        for answer in _identify(index, queries[batch], least)
    ]


def _batches(index: Landmarks, queries: list[np.ndarray]) -> Iterator[slice]:
    """Clips that are looked up together: BATCH of them, fewer where they have many hits."""
    hits = [int(np.subtract(*_places(index, query[:, 0])[::-1]).sum()) for query in queries]
    first = total = 0
    for number, count in enumerate(hits):
        if number > first and (total + count > HITS or number - first == BATCH):
            yield slice(first, number)
            first, total = number, 0
        total += count
    if hits:
        yield slice(first, len(hits))


def _places(index: Landmarks, hashes: np.ndarray) -> list[np.ndarray]:
    """Where the landmarks with each hash begin and end."""
    return [np.searchsorted(index.hashes, hashes, side=side) for side in ("left", "right")]


def _identify(index: Landmarks, queries: list[np.ndarray], least: float) -> list[list[Match]]:
    """The answers of a batch."""
    config, lengths = index.config, np.diff(index.starts)
    hits = _look_up(index, queries)
    spans = np.array([1 + int(query[:, 1].max(initial=0)) // config.shifts for query in queries])
    best = fullest(hits, lengths, span=int(spans.max()), shifts=config.shifts)
    bins = lengths[best.recording] + spans[best.clip] + 1
    tests = lengths.sum() + len(lengths) * (spans[best.clip] + 1)
    scores = score(best.landmarks, best.total - 2 * best.landmarks, bins, tests, clump=config.clump)
    answers = []
    for low, high in itertools.pairwise(np.searchsorted(best.clip, range(len(queries) + 1))):
        ranked = low + np.argsort(-scores[low:high], kind="stable")[:CANDIDATES]
        chosen = ranked[scores[ranked] >= least]
        answers.append(
            [_match(index, queries, hits, best, which, float(scores[which])) for which in chosen]
        )
    return answers


def _look_up(index: Landmarks, queries: list[np.ndarray]) -> Hits:
    """All reference landmarks with the hashes of a batch."""
    marks = np.concatenate(queries)
    low, high = _places(index, marks[:, 0])
    count = high - low
    query = np.repeat(np.arange(len(marks)), count)
    reference = np.arange(len(query)) + np.repeat(low - (np.cumsum(count) - count), count)
    clip = np.repeat(np.arange(len(queries)), [len(one) for one in queries])[query]
    position = index.positions[reference].astype(np.int64)
    recording = np.searchsorted(index.starts, position, side="right") - 1
    offset = (position - index.starts[recording]) * index.config.shifts - marks[query, 1]
    return Hits(clip, query, reference, recording, offset)


def fullest(hits: Hits, lengths: np.ndarray, *, span: int, shifts: int) -> Bins:
    """The histogram of offsets, and of each clip and recording its fullest bin (the first of
    equals).

    Args:
      lengths: frames of each recording.
      span: of the queries in frames, more than any query time; offsets are in frames / ``shifts``.

    Raises:
      ValueError: clips, bins and landmarks have more combinations than 63 bits hold.
    """
    origins = np.concatenate([[0], np.cumsum(lengths + span + 2)])  # first cell of each recording
    size = 1 << int(hits.reference.max(initial=0)).bit_length()
    if (int(hits.clip.max(initial=0)) + 1) * int(origins[-1]) * size >= 1 << 63:
        raise ValueError(
            "The collection is too large for one histogram: split it, or ask with fewer clips."
        )
    cell = hits.clip * origins[-1] + origins[hits.recording] + hits.offset // shifts + span
    keys = np.sort(np.concatenate([cell, cell + 1]) * size + np.tile(hits.reference, 2))
    cell = keys[np.diff(keys, prepend=-1) != 0] // size
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    cell, count = cell[first], np.diff(first, append=len(cell))
    clip, cell = np.divmod(cell, origins[-1])
    recording = np.searchsorted(origins, cell, side="right") - 1
    group = clip * len(lengths) + recording
    first = np.flatnonzero(np.diff(group, prepend=-1))
    if not len(first):
        return Bins(first, first, first, first, first)
    most = np.maximum.reduceat(count, first)
    candidates = np.flatnonzero(count == np.repeat(most, np.diff(first, append=len(group))))
    best = candidates[np.unique(group[candidates], return_index=True)[1]]
    begin = cell[best] - origins[recording[best]] - span - 1
    return Bins(clip[best], recording[best], begin, most, np.add.reduceat(count, first))


def score(
    count: np.ndarray, others: np.ndarray, bins: np.ndarray, tests: np.ndarray, *, clump: float
) -> np.ndarray:
    """-log10 of how many of the ``tests`` bins of a collection are expected to be as full by
    accident, float64.

    It is negative where that is more than one. ``others`` are landmarks in the other ``bins`` of
    the recording, to which one is added; all are divided by ``clump``.
    """
    return -log10_tail(count / clump, (others + 1) / bins / clump) - np.log10(tests)


def log10_tail(count: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """log10 of P(X >= count) of a Poisson count X; the regularised gamma function where count is no
    integer.

    By the series rate^c e^-rate (1 / c! + rate / (c + 1)! + ...) for all c = count > 0. Where the
    rate is above the
    count, nothing is significant: it is then taken for the count.
    """
    count = np.asarray(count, np.float64)
    rate = np.minimum(np.maximum(rate, 1e-30), count)
    product, tail = np.ones_like(count), np.zeros_like(count)
    for term in range(1, 40 + 10 * math.isqrt(int(count.max(initial=1)))):
        product = product * rate / (count + term)
        tail += product
    factorial = np.array([math.lgamma(one + 1) for one in count.tolist()])
    return (count * np.log(rate) - rate - factorial + np.log1p(tail)) / math.log(10)


def _match(
    index: Landmarks,
    queries: Sequence[np.ndarray],
    hits: Hits,
    best: Bins,
    which: int,
    surety: float,
) -> Match:
    """The match of a bin."""
    config, clip, recording = index.config, int(best.clip[which]), int(best.recording[which])
    low, high = np.searchsorted(hits.clip, [clip, clip + 1])
    lag = hits.offset[low:high] - best.begin[which] * config.shifts
    inside = low + np.flatnonzero(
        (hits.recording[low:high] == recording) & (lag >= 0) & (lag < 2 * config.shifts)
    )
    aligned = np.unique(hits.query[inside]) - sum(len(one) for one in queries[:clip])
    times, frames = queries[clip][aligned, 1], unpack(queries[clip][aligned, 0])[2]
    step = config.frame_step / config.shifts / config.sample_rate
    start = float(np.quantile(times, ENDS, method="lower")) * step
    end = float(np.quantile(times + frames * config.shifts, 1 - ENDS, method="higher")) * step
    missing = len(queries[clip]) - len(aligned)
    ends = (
        start,
        end + config.frame_length / config.sample_rate,
        start + float(np.median(hits.offset[inside])) * step,
    )
    return Match(
        recording,
        "",
        "",
        *ends,
        distance=missing,
        bit_error_rate=missing / len(queries[clip]),
        score=surety,
    )
