"""The Philips fingerprint (Haitsma, Kalker: A highly robust audio fingerprinting system, ISMIR
2002).

Samples are low-passed and decimated by 3 to 5,333 Hz (the paper: 5 kHz). Frames of 0.372 s begin
every 1/32 of that, 11.6 ms, under a Hann window; E(n, m) is the energy of frame n in the m-th of 33
bands, equally wide in log frequency from 300 to 2000 Hz, which share no bin. Bit m of a code is the
sign of a difference in frequency and time:

    F(n, m) = 1  where  D(n, m) = E(n, m) - E(n, m + 1) - (E(n - 1, m) - E(n - 1, m + 1)) > 0,  else
    0

and |D(n, m)| is the bit's reliability. Code i compares frame i + 1 with frame i, so it begins i /
code_rate seconds in, and a recording's first frame has none. A code is uint32 (1,): the codes of a
recording are searched as any others.

Searches. *exhaustive*: all windows, by ``hamming``. *lookup*, the paper's: a window is compared
only where one of the query's codes is found exactly, or with some of its ``flips`` least reliable
bits flipped, in all combinations.

Thresholds. *paper*: a bit error rate of 0.35, chosen for blocks of 256 codes. *length*: the paper's
own model of false alarms, solved for the length that the query has. Bits of random pairs differ as
independent ones would, but with a spread (standard deviation) 3 times as large, so a window of b
bits has an error rate of at most r with probability Q((1 - 2 r) sqrt(b) / 3), Q the normal tail;
times the windows compared, that is how many are so near by accident.

Silence has no energy, no differences, and so code 0, which real audio never has. It is not looked
up, and in a query it
is replaced by fixed noise: silence counts as half wrong against anything, silence included.

One band is one semitone (33 in 2.74 octaves). With ``semitones`` the query is compared shifted by
whole bits as well; this is not in the paper.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_ndtr, ndtri

from seqhash.codes import check_samples, pack
from seqhash.index.searcher import Match, without_repeats
from seqhash.mfcc import frame, power_spectrum
from seqhash.search import hamming, planar
from seqhash.sizes import power_of_two, round_up

BANDS = 33  # of which the differences are one word
BITS = BANDS - 1
CHUNK = 64  # frames analysed at a time: 0.5 MB
HALF_WIDTH = 10  # of the low-pass filter, in decimated samples
KAISER = 8.0  # beta of its window: 80 dB
SPREAD = 3.0  # of bit error rates of random pairs, in deviations of independent bits; the paper's
LONGEST = 4096  # codes of a window at most: 48 s
NEIGHBOURS = 8  # windows of each block that are considered
PIECE = 2**20  # hits, or codes to compare, of the look-up at a time
NOISE = np.random.default_rng(2002).integers(
    0, 2**32, LONGEST, np.uint32
)  # in the place of a query's silence


@dataclass(frozen=True)
class HaitsmaConfig:
    """How to analyse, search and accept. The defaults make the strongest system, ``PAPER`` is the
    published one.
    """

    sample_rate: int = 16_000  # Hz of the samples
    decimation: int = 3  # 5,333 Hz; the paper's 5 kHz
    frame_length: int = 1984  # decimated samples: 0.372 s; the paper's 0.37 s
    frame_step: int = 62  # decimated samples: 1/32 of a frame, the paper's 11.6 ms
    fft_length: int = 2048  # of a frame, filled up with zeros
    low_hz: float = 300.0
    high_hz: float = 2000.0
    search: str = "exhaustive"  # or "lookup", the paper's
    # least reliable bits of a code that a look-up flips, in all combinations; the paper goes to 10
    flips: int = 0
    threshold: str = "length"  # or "paper"
    bit_error_rate: float = 0.35  # accepted where the threshold is the paper's
    false_positive_rate: float = 0.01  # of a whole search, where the threshold is not the paper's
    # codes compared as one; the paper's 256; 0: the whole query. A shorter query is a shorter block
    block: int = 0
    semitones: int = 0  # the query is also searched shifted up and down by up to so many bits

    def __post_init__(self) -> None:
        for name, allowed in (
            ("search", ("exhaustive", "lookup")),
            ("threshold", ("length", "paper")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}."
                )
        for name, highest in (("flips", 10), ("semitones", BITS // 2), ("block", LONGEST)):
            if not 0 <= getattr(self, name) <= highest:
                raise ValueError(f"{name} must be 0 to {highest}, got {getattr(self, name)}.")
        for name in ("bit_error_rate", "false_positive_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")
        if (
            min(self.decimation, self.frame_step) < 1
            or not self.frame_step <= self.frame_length <= self.fft_length
        ):
            raise ValueError(
                "decimation and frame_step must be at least 1, and step <= length <= fft_length."
            )
        if not 0 < self.low_hz < self.high_hz < self.rate / 2:
            raise ValueError(
                f"The bands must lie between 0 and {self.rate / 2:g} Hz, "
                "half of the decimated rate."
            )
        if (np.diff(self.band_edges) < 1).any():
            raise ValueError(
                "Some bands have no bin of the spectrum: give a larger fft_length, or wider bands."
            )

    @property
    def rate(self) -> float:
        """Decimated samples a second."""
        return self.sample_rate / self.decimation

    @property
    def code_rate(self) -> float:
        """Codes a second."""
        return self.rate / self.frame_step

    @property
    def band_edges(self) -> np.ndarray:
        """First bin of each band, and the bin after the last: int (bands + 1,)."""
        hz = np.geomspace(self.low_hz, self.high_hz, BANDS + 1)
        return np.round(hz * self.fft_length / self.rate).astype(int)


DEFAULT = HaitsmaConfig()
PAPER = HaitsmaConfig(search="lookup", flips=10, threshold="paper", block=256)
TRANSPOSED = HaitsmaConfig(semitones=2)


# --------------------------------------------------------------------------------- samples to codes


def frame_count(samples: int, config: HaitsmaConfig = DEFAULT) -> int:
    """Frames of so many samples; the codes are one fewer."""
    return max(0, (samples // config.decimation - config.frame_length) // config.frame_step + 1)


def band_energies(samples: jax.Array, *, config: HaitsmaConfig = DEFAULT) -> jax.Array:
    """E of a recording, up to a constant factor: float32 (samples,) -> (frames, bands). Pure; jit
    it as you like.
    """
    count = frame_count(samples.shape[0], config)
    frames = round_up(max(1, count), CHUNK)
    before, total = _padding(frames, config)
    padded = jnp.pad(
        samples.astype(jnp.float32), (before, max(0, total - before - samples.shape[0]))
    )[:total]
    return _chunked_energies(padded, jnp.int32(count), frames=frames, config=config)[:count]


def energy_differences(energies: jax.Array) -> jax.Array:
    """D of band energies (frames, bands): (frames - 1, bands - 1)."""
    across = energies[:, :-1] - energies[:, 1:]
    return across[1:] - across[:-1]


def to_words(signed: jax.Array) -> jax.Array:
    """Codes of differences: (codes, 32) -> uint32 (codes, 1)."""
    return pack(signed > 0)


def differences(samples: np.ndarray, *, config: HaitsmaConfig = DEFAULT) -> np.ndarray:
    """D of a recording: samples, float32 (samples,) in [-1, 1] -> float32 (codes, 32), as
    ``fingerprint``.

    Its sign is the bit, its size the bit's reliability.
    """
    return _analyse(samples, config)[0]


def fingerprint(samples: np.ndarray, *, config: HaitsmaConfig = DEFAULT) -> np.ndarray:
    """Codes of a recording: samples, float32 (samples,) in [-1, 1] -> uint32 (codes, 1), bit m
    being F(n, m).

    One program serves all lengths up to a power of two. Samples too few for two frames have no
    codes.

    Raises:
      ValueError: the samples are not finite mono floats.
    """
    return _analyse(samples, config)[1]


def _analyse(samples: np.ndarray, config: HaitsmaConfig) -> tuple[np.ndarray, np.ndarray]:
    """(differences, codes) of a recording."""
    samples = check_samples(samples)
    count = frame_count(len(samples), config)
    if count < 2:
        return np.zeros((0, BITS), np.float32), np.zeros((0, 1), np.uint32)
    frames = max(CHUNK, power_of_two(count))
    before, total = _padding(frames, config)
    padded = np.zeros(total, np.float32)
    used = samples[: total - before]
    padded[before : before + len(used)] = used
    signed, words = _program(padded, np.int32(count), frames=frames, config=_analysis(config))
    return np.asarray(signed)[: count - 1], np.asarray(words)[: count - 1]


@functools.partial(jax.jit, static_argnames=("frames", "config"))
def _program(
    padded: jax.Array, count: jax.Array, *, frames: int, config: HaitsmaConfig
) -> tuple[jax.Array, jax.Array]:
    signed = energy_differences(_chunked_energies(padded, count, frames=frames, config=config))
    return signed, to_words(signed)


def _chunked_energies(
    padded: jax.Array, count: jax.Array, *, frames: int, config: HaitsmaConfig
) -> jax.Array:
    """Energies (frames, bands), CHUNK frames at a time; only chunks that hold one of ``count`` are
    visited.
    """
    step, low, high = config.frame_step, config.band_edges[0], config.band_edges[-1]
    hops = -(-config.frame_length // step)  # of a frame
    advance = step * config.decimation
    low_pass = jnp.asarray(_low_pass(config), jnp.float32)
    overlap = (
        -(-low_pass.shape[0] // advance) - 1
    )  # advances beyond its own that a step of decimated samples reads
    turns = 2 * np.pi * np.arange(config.frame_length) / config.frame_length
    hann, bands = (
        jnp.asarray(0.5 - 0.5 * np.cos(turns), jnp.float32),
        jnp.asarray(_bands(config), jnp.float32),
    )

    def one_chunk(index: jax.Array, energies: jax.Array) -> jax.Array:
        piece = jax.lax.dynamic_slice_in_dim(
            padded, index * (CHUNK * advance), (CHUNK + hops - 1 + overlap) * advance
        )
        pieces = frame(piece, frames=CHUNK + hops - 1, length=low_pass.shape[0], step=advance)
        decimated = jnp.matmul(pieces, low_pass, precision="highest").reshape(-1)
        windowed = (
            frame(decimated, frames=CHUNK, length=config.frame_length, step=step) * hann[None]
        )
        power = power_spectrum(windowed, fft_length=config.fft_length)[:, low:high]
        energy = jnp.matmul(power, bands, precision="highest")
        return jax.lax.dynamic_update_slice_in_dim(energies, energy, index * CHUNK, 0)

    chunks = (count + CHUNK - 1) // CHUNK
    return jax.lax.fori_loop(0, chunks, one_chunk, jnp.zeros((frames, BANDS), jnp.float32))


def _padding(frames: int, config: HaitsmaConfig) -> tuple[int, int]:
    """Zeros before the samples, and the padded length, of so many frames (a multiple of CHUNK)."""
    advance = config.frame_step * config.decimation
    hops = -(-config.frame_length // config.frame_step)
    overlap = -(-len(_low_pass(config)) // advance) - 1
    return _half_width(config), (frames + hops - 1 + overlap) * advance


def _analysis(config: HaitsmaConfig) -> HaitsmaConfig:
    """The config with only what decides a bit, so that other options do not make a program compile
    again.
    """
    names = (
        "sample_rate",
        "decimation",
        "frame_length",
        "frame_step",
        "fft_length",
        "low_hz",
        "high_hz",
    )
    return HaitsmaConfig(**{name: getattr(config, name) for name in names})


def _half_width(config: HaitsmaConfig) -> int:
    """Samples that the low-pass filter reads before and after its own: its delay is nil."""
    return HALF_WIDTH * config.decimation if config.decimation > 1 else 0


@functools.lru_cache(maxsize=16)
def _low_pass(config: HaitsmaConfig) -> np.ndarray:
    """Filter and decimation of one step as a table: float64 (samples read, frame_step).

    A windowed sinc; what would fold into the bands is 80 dB down.
    """
    half, step = _half_width(config), config.frame_step
    taps = np.sinc(np.arange(-half, half + 1) / config.decimation) * np.kaiser(2 * half + 1, KAISER)
    table = np.zeros(((step - 1) * config.decimation + len(taps), step))
    for j in range(step):
        table[j * config.decimation : j * config.decimation + len(taps), j] = taps / taps.sum()
    return table


def _bands(config: HaitsmaConfig) -> np.ndarray:
    """Which bin is in which band: float64 (bins from the first band's first to the last one's last,
    bands).
    """
    edges = config.band_edges
    bins = np.arange(edges[0], edges[-1])
    return (
        np.searchsorted(edges, bins, side="right")[:, None] - 1 == np.arange(BANDS)[None]
    ).astype(float)


# --------------------------------------------------------------------------------------- collection


@dataclass(eq=False)
class Fingerprints:
    """Codes of recordings, one after another, in memory. Made by ``add`` or ``from_codes``."""

    config: HaitsmaConfig
    words: np.ndarray  # uint32 (rows, 1)
    starts: (
        np.ndarray
    )  # int64 (recordings + 1,): recording r has the rows starts[r] to starts[r + 1]
    _databases: dict[int, planar.Database] = field(default_factory=dict, repr=False)
    _tables: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def database(self, shift: int) -> planar.Database:
        """For the exhaustive search of queries that are shifted by so many bits."""
        if shift not in self._databases:
            self._databases[shift] = planar.build(self.words & shared_bits(shift), self.starts)
        return self._databases[shift]

    def table(self, shift: int) -> tuple[np.ndarray, np.ndarray]:
        """For look-ups of such queries: codes other than silence's, uint32 sorted, and their rows,
        int64.
        """
        if shift not in self._tables:
            rows = np.flatnonzero(self.words[:, 0])
            codes = self.words[rows, 0] & shared_bits(shift)
            order = np.argsort(codes, kind="stable")
            self._tables[shift] = codes[order], rows[order]
        return self._tables[shift]


def add(recordings: Sequence[np.ndarray], *, config: HaitsmaConfig = DEFAULT) -> Fingerprints:
    """The collection of some recordings: float32 (samples,) in [-1, 1] each."""
    return from_codes(
        [fingerprint(samples, config=config) for samples in recordings], config=config
    )


def from_codes(codes: Sequence[np.ndarray], *, config: HaitsmaConfig = DEFAULT) -> Fingerprints:
    """The collection of recordings whose codes are at hand: uint32 (codes, 1) each."""
    words = np.concatenate([np.zeros((0, 1), np.uint32), *codes])
    return Fingerprints(config, words, np.cumsum([0, *map(len, codes)]))


# --------------------------------------------------------------------------------- how near is near


def score(bit_error_rate: float, *, bits: int, tries: int) -> float:
    """-log10 of how many of ``tries`` random windows of so many bits are expected to be at least as
    near.

    It is negative where that is more than one, so that it ranks the unlikely too.
    """
    deviations = (1 - 2 * bit_error_rate) * math.sqrt(bits) / SPREAD
    return -float(log_ndtr(-deviations)) / math.log(10) - math.log10(tries)


def limit(bits: int, *, tries: int, config: HaitsmaConfig = DEFAULT) -> float:
    """The largest bit error rate that is accepted of a window of so many bits, the nearest of
    ``tries``.
    """
    if config.threshold == "paper":
        return config.bit_error_rate
    deviations = -ndtri(config.false_positive_rate / tries)
    return 0.5 - SPREAD * deviations / (2 * math.sqrt(bits))


# ------------------------------------------------------------------------------------------- search


class _Block(NamedTuple):
    """Codes of a clip that are compared as one."""

    clip: int
    first: int  # code of the clip
    words: np.ndarray  # uint32 (n, 1)
    reliability: np.ndarray  # float32 (n, 32)


def identify(
    index: Fingerprints,
    clips: Sequence[np.ndarray],
    *,
    config: HaitsmaConfig | None = None,
    all_candidates: bool = False,
) -> list[list[Match]]:
    """Matches of each clip, best first; none where it is not there.

    ``Match.recording`` numbers the recordings as they were added, ``offset`` is the time in the
    recording that sounds at ``start`` of the clip. Codes are 11.6 ms apart, so it is within 6 ms of
    the truth where the alignment is right.

    Args:
      index: of ``add``.
      clips: float32 (samples,) in [-1, 1] each, of any lengths. One too short for a code has no
        match, nor has silence.
      config: how to search and accept, where it is not as the index was made; its analysis must be
        the index's.
      all_candidates: keep matches that the threshold rejects.

    Raises:
      ValueError: a clip is not finite mono floats, or the config analyses otherwise than the
        index's.
    """
    config = index.config if config is None else config
    if _analysis(config) != _analysis(index.config):
        raise ValueError(
            "The clips would not be analysed as the recordings of the index were: use its config."
        )
    blocks = [block for clip, samples in enumerate(clips) for block in _cut(clip, samples, config)]
    counts = np.bincount(np.array([block.clip for block in blocks], int), minlength=len(clips))
    shifts = range(-config.semitones, config.semitones + 1)
    matches: list[list[Match]] = [[] for _ in clips]
    longest = np.diff(index.starts).max(initial=0)
    for length in sorted({len(block.words) for block in blocks if len(block.words) <= longest}):
        group = [block for block in blocks if len(block.words) == length]
        words = np.stack([block.words for block in group])
        words = np.where(words == 0, NOISE[None, :length, None], words)
        for shift in shifts:
            queries, bits = shifted(words, shift) & shared_bits(shift), length * (BITS - abs(shift))
            found = _search(index, group, queries, shift, config)
            for block, distances, rows in zip(group, found.distance, found.row, strict=True):
                tries = len(index.words) * int(counts[block.clip]) * len(shifts)
                highest = 1.0 if all_candidates else limit(bits, tries=tries, config=config)
                near = (rows >= 0) & (distances <= highest * bits)
                matches[block.clip] += _matches(
                    index, block, distances[near], rows[near], bits, tries
                )
    return [
        without_repeats(sorted(found, key=lambda m: (-m.score, m.recording, m.offset)))
        for found in matches
    ]


def _cut(clip: int, samples: np.ndarray, config: HaitsmaConfig) -> Iterator[_Block]:
    """The blocks of a clip: one after another, the last one up to the end; none of silence
    alone.
    """
    signed, words = _analyse(samples, config)
    count, reliability = len(words), np.abs(signed)
    length = min(count, config.block or LONGEST)
    for first in sorted({*range(0, count - length + 1, max(1, length)), count - length}):
        inside = slice(first, first + length)
        if words[inside].any():
            yield _Block(clip, first, words[inside], reliability[inside])


def _search(
    index: Fingerprints,
    blocks: list[_Block],
    queries: np.ndarray,
    shift: int,
    config: HaitsmaConfig,
) -> hamming.Neighbours:
    """The nearest windows of blocks of one length, by the words they are searched as."""
    if config.search == "exhaustive":
        return hamming.search(index.database(shift), queries, NEIGHBOURS)
    audible = np.stack([block.words[:, 0] != 0 for block in blocks])
    reliability = np.stack([block.reliability for block in blocks])
    return _look_up(index, queries, audible, reliability, shift, config.flips)


def _look_up(
    index: Fingerprints,
    queries: np.ndarray,
    audible: np.ndarray,
    reliability: np.ndarray,
    shift: int,
    flips: int,
) -> hamming.Neighbours:
    """The nearest of the windows that share a code with the query where it is audible, flipped bits
    allowed.

    Args:
      queries: uint32 (queries, n, 1).
      audible: bool (queries, n).
      reliability: float32 (queries, n, 32), of the bits before they were shifted.
    """
    distances = np.full((len(queries), NEIGHBOURS), hamming.NOWHERE, np.int32)
    rows = np.full(distances.shape, -1, np.int64)
    there = ((int(shared_bits(shift)) >> np.arange(BITS)) & 1)[None] == 1
    for number, (query, heard, reliable) in enumerate(
        zip(queries, audible, reliability, strict=True)
    ):
        places = np.flatnonzero(heard)
        moved = np.where(there, np.roll(reliable[places], -shift, axis=1), np.inf)
        codes = query[places] ^ flip_masks(moved, flips)
        begins = _aligned(index, codes, places, shift, len(query))
        distance = _distances(index.words, query[:, 0], begins, shared_bits(shift))
        best = np.lexsort((begins, distance))[:NEIGHBOURS]
        distances[number, : len(best)], rows[number, : len(best)] = distance[best], begins[best]
    return hamming.Neighbours(distances, rows, np.zeros(len(queries), bool))


def _aligned(
    index: Fingerprints, codes: np.ndarray, places: np.ndarray, shift: int, length: int
) -> np.ndarray:
    """Rows, sorted, of the windows that have one of the codes (places, any) at its place of the
    query.
    """
    table, rows = index.table(shift)
    low = np.searchsorted(table, codes, side="left")
    count = np.searchsorted(table, codes, side="right") - low
    hit = count.ravel() > 0
    place, low, count = np.repeat(places, codes.shape[1])[hit], low.ravel()[hit], count.ravel()[hit]
    found = np.zeros(len(index.words), bool)
    for piece in np.split(
        np.arange(len(low)), np.flatnonzero(np.diff(np.cumsum(count) // PIECE)) + 1
    ):
        inside = np.arange(count[piece].sum()) - np.repeat(
            np.cumsum(count[piece]) - count[piece], count[piece]
        )
        begins = rows[np.repeat(low[piece], count[piece]) + inside] - np.repeat(
            place[piece], count[piece]
        )
        found[begins[begins >= 0]] = True
    begins = np.flatnonzero(found)
    ends = index.starts[np.searchsorted(index.starts, begins, side="right")]
    return begins[begins + length <= ends]


def _distances(
    words: np.ndarray, query: np.ndarray, begins: np.ndarray, mask: np.uint32
) -> np.ndarray:
    """Bits that differ from a query (n,) in the windows at rows, int64 (windows,)."""
    pieces = [np.zeros(0, np.int64)]
    for low in range(0, len(begins), step := max(1, PIECE // len(query))):
        rows = begins[low : low + step, None] + np.arange(len(query))[None]
        pieces.append(
            np.bitwise_count((words[rows, 0] & mask) ^ query[None]).sum(axis=1, dtype=np.int64)
        )
    return np.concatenate(pieces)


def flip_masks(reliability: np.ndarray, flips: int) -> np.ndarray:
    """All combinations of the least reliable bits: float (codes, 32) -> uint32 (codes, 2^flips) to
    be xored.
    """
    weakest = np.argsort(reliability, axis=1, kind="stable")[:, :flips].astype(np.uint32)
    masks = np.zeros((len(reliability), 1), np.uint32)
    for bit in weakest.T:
        masks = np.concatenate([masks, masks | (np.uint32(1) << bit)[:, None]], axis=1)
    return masks


def shared_bits(shift: int) -> np.uint32:
    """Mask of the bits that a query has after it was shifted."""
    return np.uint32(
        (2**BITS - 1) >> shift if shift > 0 else (2**BITS - 1) << -shift & (2**BITS - 1)
    )


def shifted(words: np.ndarray, shift: int) -> np.ndarray:
    """Bit m + shift becomes bit m: undoes so many semitones up. Bits from outside the word are
    0.
    """
    return words >> np.uint32(shift) if shift >= 0 else words << np.uint32(-shift)


def _matches(
    index: Fingerprints,
    block: _Block,
    distances: np.ndarray,
    rows: np.ndarray,
    bits: int,
    tries: int,
) -> list[Match]:
    """One match for each window found."""
    rate, last = index.config.code_rate, block.first + len(block.words)
    return [
        Match(
            recording=int(recording),
            path="",
            title="",
            start=block.first / rate,
            end=last / rate + index.config.frame_length / index.config.rate,
            offset=float(position / rate),
            distance=int(distance),
            bit_error_rate=float(distance / bits),
            score=score(float(distance / bits), bits=bits, tries=tries),
        )
        for distance, recording, position in zip(
            distances, *planar.locate(index.starts, rows), strict=True
        )
    ]
