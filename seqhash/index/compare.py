"""Two recordings against each other: the alignment at which their codes agree best, and a picture
of where they differ.

**Which alignment is best.** At each lag, the overlap of n codes has a bit error rate e. The
smallest e alone would be that of a few codes that agree by chance, so the lag with the largest
score

    (chance - e) * sqrt(n)

is chosen, where ``chance`` is the mean bit error rate over all pairs of codes of the two
recordings: what unrelated codes of these recordings differ by, which is below 1/2 where bits are
uneven. Less than ``LEAST_OVERLAP`` is no alignment, but for what is shorter itself: how a recording
begins and another one ends may agree beyond all scores where both are steady.

**What that says.** The scores at all lags of two recordings say how far unrelated parts of these
two agree by accident: a best score is counted in ``deviations`` of them (1.48 times their median
distance from the median).

===========  =======================================================================================
same         deviations are RELATED or more, at most SAME of ``chance`` differ, over nearly all of
             the shorter one; or all codes are equal
related      deviations are RELATED or more: they share a part, or one is the other in noise or in a
             room; or OTHERWISE or more, and one is the other transposed or at another tempo
unrelated    deviations are less than UNRELATED, and both are long enough to tell
cannot tell  all else: too short, too steady, or between
===========  =======================================================================================
"""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # numpy alone unless there is something to hash
    from matplotlib.figure import Figure

    from seqhash.codes import Hasher
    from seqhash.index.catalogue import Index
    from seqhash.index.searcher import Match


RELATED, UNRELATED = 8.0, 5.0  # deviations
OTHERWISE = 10.0  # that are needed for RELATED of what was played otherwise: a rhythm may fit then
SAME, NEARLY_ALL = 0.35, 0.9  # shares of ``chance``, and of the shorter one
LONG_ENOUGH = 10.0  # s of the shorter one, for the verdict that they are unrelated
STEADY = 0.25  # where any two codes differ in fewer bits, an agreement says nothing
LEAST_OVERLAP = 2.0  # s of an alignment
VARIANT_SECONDS = 10.0  # of the shorter one that are tried as played otherwise
TITLE_LETTERS = 80  # of a line above a picture


class Comparison(NamedTuple):
    """Best alignment of recording B under recording A; the overlap begins at ``start_a`` and
    ``start_b``.
    """

    start_a: float  # s into A
    start_b: float  # s into B; one of the two is 0 or, after a shift, near it
    codes: int  # of the overlap
    distance: int  # bits that differ
    bit_error_rate: float  # their share
    chance: float  # bit error rate of all pairs of codes
    score: float
    differences: np.ndarray  # bool (codes, bits): where the two differ
    deviations: float = 0.0  # of the scores at all lags that the best one is above their median
    pitch: float = 0.0  # semitones by which A lies above B
    tempo: float = 1.0  # times as fast as B that A is
    codes_a: int = 0  # that were compared, of A ...
    codes_b: int = 0  # ... and of B


def compare_codes(words_a: np.ndarray, words_b: np.ndarray, code_rate: float) -> Comparison:
    """The best alignment of two recordings' codes, over all lags of ``LEAST_OVERLAP`` or all of the
    shorter one. Ties: the longer overlap, then the smaller lag.

    Args:
      words_a, words_b: uint32 (codes_a, words), (codes_b, words), at least one code each.
      code_rate: codes a second.
    """
    words_a, words_b = _checked(words_a, "words_a"), _checked(words_b, "words_b")
    if words_a.shape[1] != words_b.shape[1]:
        raise ValueError(
            f"Codes of equal length expected, got {words_a.shape[1]} and {words_b.shape[1]} words."
        )
    if code_rate <= 0:
        raise ValueError(f"code_rate must be positive, got {code_rate}.")
    bits = 32 * words_a.shape[1]
    lags = np.arange(1 - len(words_b), len(words_a))  # code i of B lies under code i + lag of A
    least = min(len(words_a), len(words_b), LEAST_OVERLAP * code_rate)
    begin_a, begin_b = np.maximum(lags, 0), np.maximum(-lags, 0)
    counts = np.minimum(len(words_a) - begin_a, len(words_b) - begin_b)
    distances = np.array(
        [
            np.bitwise_count(words_a[a : a + n] ^ words_b[b : b + n]).sum(dtype=np.int64)
            for a, b, n in zip(begin_a, begin_b, counts, strict=True)
        ]
    )
    rates = distances / (counts * bits)
    chance = float(distances.sum() / (len(words_a) * len(words_b) * bits))
    scores = (chance - rates) * np.sqrt(counts)
    best = np.lexsort((lags, np.abs(lags), -counts, np.where(counts >= least, -scores, np.inf)))[0]
    usual = scores[counts >= least]
    middle = np.median(usual)
    deviation = 1.4826 * np.median(np.abs(usual - middle))
    one = _comparison(
        words_a,
        words_b,
        int(begin_a[best]),
        int(begin_b[best]),
        int(counts[best]),
        chance=chance,
        code_rate=code_rate,
    )
    above = float((scores[best] - middle) / deviation) if deviation > 0 else 0.0
    return one._replace(deviations=above, codes_a=len(words_a), codes_b=len(words_b))


def compare_variants(
    samples_a: np.ndarray, samples_b: np.ndarray, *, hasher: "Hasher", shifts: int
) -> Comparison:
    """``compare_samples``, and where that does not say that the two are related, the middle of A as
    if it had been transposed or played at another tempo than B: the comparison of the most
    deviations. Digital silence at their ends is left out.
    """
    begin_a, samples_a = _sounding(samples_a, hasher)
    begin_b, samples_b = _sounding(samples_b, hasher)
    found = _most_deviations(samples_a, samples_b, hasher=hasher, shifts=shifts)
    return found._replace(start_a=found.start_a + begin_a, start_b=found.start_b + begin_b)


def _sounding(samples: np.ndarray, hasher: "Hasher") -> tuple[float, np.ndarray]:
    """Where samples begin to sound, in s and on the grid of codes, and what sounds; all of them
    where that is too short for a code.
    """
    changes = np.flatnonzero(np.diff(samples))
    if not len(changes):
        return 0.0, samples
    begin = int(changes[0]) // hasher.hop * hasher.hop
    sounding = samples[begin : int(changes[-1]) + 2]
    if len(sounding) < hasher.shortest_seconds * hasher.sample_rate:
        return 0.0, samples
    return begin / hasher.sample_rate, sounding


def _most_deviations(
    samples_a: np.ndarray, samples_b: np.ndarray, *, hasher: "Hasher", shifts: int
) -> Comparison:
    best = compare_samples(samples_a, samples_b, hasher=hasher, shifts=shifts)
    if best.deviations >= RELATED or verdict(best, code_rate=hasher.code_rate) == "same":
        return best
    rate = hasher.sample_rate
    begin = max(0, len(samples_a) - round(VARIANT_SECONDS * rate)) // 2
    middle = samples_a[begin : begin + round(VARIANT_SECONDS * rate)]
    words_b = hasher.hash_samples(samples_b)
    for variant, codes in hasher.views([middle], weighted=False):
        for shift, words in enumerate(codes if variant.changed else []):
            later = begin / rate + shift / (hasher.code_rate * len(codes))
            one = compare_codes(words, words_b, hasher.code_rate)
            one = one._replace(pitch=variant.pitch, tempo=variant.tempo)
            if one.deviations > max(OTHERWISE, best.deviations):
                best = one._replace(start_a=one.start_a / variant.tempo + later)
    return best


def verdict(found: Comparison, *, code_rate: float) -> str:
    """``same``, ``related``, ``unrelated`` or ``cannot tell``: the table at the module's head.

    Args:
      found: of ``compare_codes`` or what calls it.
      code_rate: codes a second.
    """
    shorter = min(found.codes_a, found.codes_b)
    if found.distance == 0 and found.codes_a == found.codes_b == found.codes:
        return "same"
    if found.chance < STEADY:
        return "cannot tell"
    if found.deviations < RELATED:
        long_enough = shorter >= (LONG_ENOUGH - 1.0) * code_rate  # a code sees up to a second
        return "unrelated" if found.deviations < UNRELATED and long_enough else "cannot tell"
    all_along = found.codes >= NEARLY_ALL * shorter and found.pitch == 0 and found.tempo == 1
    near = found.bit_error_rate <= SAME * found.chance
    return "same" if all_along and near else "related"


def compare_samples(
    samples_a: np.ndarray, samples_b: np.ndarray, *, hasher: "Hasher", shifts: int
) -> Comparison:
    """``compare_codes`` of two recordings, with A hashed from several starts inside one hop.

    Codes that lie between each other's differ although the audio is the same; with 4 shifts of a
    hop of 0.25 s, one of them is at most 31 ms off.

    Args:
      samples_a, samples_b: float32 (samples,) at the hasher's rate.
      shifts: number of starts, evenly over a hop; 1 is A as it is.

    Returns:
      The comparison of the largest score, its ``start_a`` in seconds of A as it came.

    Raises:
      ValueError: a recording that has no code.
    """
    if shifts < 1:
        raise ValueError(f"shifts must be positive, got {shifts}.")
    words_b = hasher.hash_samples(samples_b)
    found = []
    for shift in [round(i * hasher.hop / shifts) for i in range(shifts)]:
        words_a = hasher.hash_samples(samples_a[shift:])
        # What is shorter than a segment after a shift is compared without it.
        if len(words_a) or not shift:
            one = compare_codes(words_a, words_b, hasher.code_rate)
            found.append(one._replace(start_a=one.start_a + shift / hasher.sample_rate))
    return max(found, key=lambda one: (one.score, one.deviations))


def compare_match(
    samples: np.ndarray,
    words: np.ndarray,
    *,
    start: float,
    end: float,
    offset: float,
    hasher: "Hasher",
    pitch: float = 0.0,
    tempo: float = 1.0,
) -> Comparison:
    """A query and the reference where it was found: the alignment is known, the picture is wanted.

    The query is hashed from the first moment that lies on the reference's grid of codes.

    Args:
      samples: float32 (samples,), the query, as A.
      words: uint32 (codes, words) of the whole reference, as B.
      start, end: s of the query that was found.
      offset: s of the reference at ``start``; below 0 where the query begins before it.
      hasher: of both; one with variants where the query was played otherwise.
      pitch, tempo: semitones by which the query lies above the reference, and times as fast.

    Raises:
      ValueError: not one code of the two lies there.
    """
    rate = hasher.code_rate
    first = math.ceil(max(offset, 0.0) * rate - 1e-6)  # code of the reference
    begin = max(start + (first / rate - offset) / tempo, 0.0)
    # A code's last frame goes on after where its segment ends.
    beyond = hasher.span - round(hasher.segment_seconds * hasher.sample_rate)
    found = samples[round(begin * hasher.sample_rate) : round(end * hasher.sample_rate) + beyond]
    codes, ahead = hasher.hash_samples(found), 1.0
    if len(codes) and (pitch != 0 or tempo != 1):
        views = {(v.pitch, v.tempo): c[0] for v, c in hasher.views([found], weighted=False)}
        if (pitch, tempo) not in views:  # a version of a work: its codes are played at its tempo
            ahead = tempo
        codes = views.get((pitch, tempo), views.get((pitch, 1.0), codes))
    beside = first + np.rint(np.arange(len(codes)) * ahead).astype(np.int64)
    tempo /= ahead  # of codes of A beside those of B
    words_a, words_b = _checked(codes, "The query's codes"), words[beside[beside < len(words)]]
    words_b = _checked(words_b, "The reference's codes there")
    chance = compare_codes(words_a, words, rate).chance
    count = min(len(words_a), len(words_b))
    one = _comparison(words_a, words_b, 0, 0, count, chance=chance, code_rate=rate)
    return one._replace(start_a=begin, start_b=first / rate, tempo=tempo)


def beside(
    samples: np.ndarray, words: np.ndarray, match: "Match", *, hasher: "Hasher"
) -> Comparison:
    """``compare_match`` of a match: of its recording, or of other codes at its place."""
    return compare_match(
        samples,
        words,
        start=match.start,
        end=match.end,
        offset=match.offset,
        hasher=hasher,
        pitch=match.pitch,
        tempo=match.tempo,
    )


def draw_differences(comparison: Comparison, *, title: str, code_rate: float) -> "Figure":
    """The bits that differ, black, over the overlap's time, and below them the bit error rate of
    each code.

    Args:
      comparison: what ``compare_codes`` found.
      title: above the picture.
      code_rate: codes a second.

    Returns:
      A ``matplotlib.figure.Figure``, made without pyplot: no window, nothing global.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    from seqhash import style  # late, for matplotlib

    codes, bits = comparison.differences.shape
    code_rate *= comparison.tempo  # of what was played faster
    end = comparison.start_a + codes / code_rate
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    matrix, rates = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    matrix.imshow(
        comparison.differences.T,
        aspect="auto",
        origin="lower",
        interpolation="nearest" if codes < 1200 else "antialiased",
        cmap="binary",
        vmin=0,
        vmax=1,
        extent=(comparison.start_a, end, 0, bits),
    )
    # A dollar in a name begins no formula.
    wrapped = textwrap.fill(style.shown(title), TITLE_LETTERS)
    matrix.set_title(wrapped, parse_math=False, fontfamily=style.fonts())
    matrix.set_ylabel("bit")
    if not comparison.distance:  # else the picture is white, as if something had failed
        matrix.text(0.5, 0.5, "no bit differs", transform=matrix.transAxes, ha="center")
    matrix.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    times = comparison.start_a + np.arange(codes + 1) / code_rate
    rates.stairs(comparison.differences.mean(axis=1), times, color=style.BLUE, linewidth=1.5)
    rates.axhline(comparison.chance, color=style.GREY, linestyle="--", linewidth=1.2)
    rates.annotate(
        "all pairs",
        (end, comparison.chance),
        ha="right",
        va="bottom",
        fontsize="small",
        color="#555555",
    )
    rates.set(
        xlabel="time in the first of the two (s)", ylabel="differ", xlim=(comparison.start_a, end)
    )
    rates.set_ylim(0, max(0.55, 1.05 * float(comparison.differences.mean(axis=1).max())))
    rates.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.tidy(rates)
    return figure


def differences_figure(
    comparison: Comparison, path: str | Path, *, title: str, code_rate: float
) -> Path:
    """Writes ``draw_differences`` as a PNG, into a folder that is made where it is missing; returns
    the path.
    """
    from seqhash import style  # late, for matplotlib

    return style.save(draw_differences(comparison, title=title, code_rate=code_rate), path)


def match_figure(
    match: "Match",
    index: "Index",
    samples: np.ndarray,
    path: str | Path,
    *,
    query: str,
    hasher: "Hasher",
) -> Path:
    """Writes the picture of where a recording was found in a query, as ``differences_figure``.

    Args:
      match: what ``identify`` found in ``index``.
      samples: float32 (samples,), the query; ``query`` is its name.

    Raises:
      ValueError: not one code of the two lies there.
    """
    (words,) = index.words_of([match.recording])
    found = beside(samples, words, match, hasher=hasher)
    name = match.title or Path(match.path).name
    title = f"{query} and {name}: {found.bit_error_rate:.1%} of bits differ"
    title = ", ".join(filter(None, (title, played(match.pitch, match.tempo))))
    return differences_figure(found, path, title=title, code_rate=hasher.code_rate)


def played(pitch: float, tempo: float) -> str:
    """How a query was played, in words, where not as its recording: "+0.8 semitones, +5% tempo"."""
    higher = f"{pitch:+.1f} semitones" if pitch else ""
    faster = f"{tempo - 1:+.0%} tempo" if tempo != 1 else ""
    return ", ".join(filter(None, (higher, faster)))


def _comparison(
    words_a: np.ndarray,
    words_b: np.ndarray,
    a: int,
    b: int,
    count: int,
    *,
    chance: float,
    code_rate: float,
) -> Comparison:
    """Of ``count`` codes from code a of A and code b of B."""
    differences = _bits(words_a[a : a + count] ^ words_b[b : b + count])
    rate = float(differences.mean())
    return Comparison(
        start_a=a / code_rate,
        start_b=b / code_rate,
        codes=count,
        distance=int(differences.sum()),
        bit_error_rate=rate,
        chance=chance,
        score=(chance - rate) * math.sqrt(count),
        differences=differences,
    )


def _checked(words: np.ndarray, name: str) -> np.ndarray:
    words = np.asarray(words)
    if words.ndim != 2 or words.dtype != np.uint32 or not words.size:
        raise ValueError(
            f"{name} must be uint32 (codes, words) with at least one code, "
            f"got {words.dtype} {words.shape}."
        )
    return words


def _bits(words: np.ndarray) -> np.ndarray:
    """uint32 (codes, words) -> bool (codes, 32 words), bit j of word i being bit 32 i + j."""
    little = np.ascontiguousarray(words, "<u4")
    return np.unpackbits(little.view(np.uint8), axis=1, bitorder="little").astype(bool)
