"""How a scan runs on a processor. Nothing here changes an answer, only the time that it takes.

On a CPU a program runs on one core, and batches of queries are answered by threads. XLA turns an
unrolled elementwise minimum of popcounts into the loop one would write by hand (xor, vpopcnt, add,
min over 16 lanes); a ``reduce`` over the database would materialise the distances instead, and cost
up to 100 times as much. The numbers were measured there.
"""

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from seqhash import parallel
from seqhash.search import planar
from seqhash.sizes import by_eighths, power_of_two, round_up

# popcounts in one elementwise program; past about 200 LLVM gives up on vectors: 10 times slower
TERMS = 144
ADDED = 36  # the same where bits are added before they are counted
UNROLLED = 15  # codes of a window at most that has a program of its own; ...
LOOPED = 16  # ... longer ones share a loop over so many popcounts, whatever their length, ...
LENGTH = 64  # ... up to so many codes, then up to twice as many
LITTLE = 2**22  # popcounts of a query that are not worth compiling a program of its own length
FEW = 8  # queries that are scanned one by one at most
QUERIES = 128  # queries of a batch at most
THREAD_POPCOUNTS = 2**24  # half a millisecond, which a thread's start does not spoil
FEW_CODES = 6  # from so many on the progressive scan leaves out whole codes
ROUGH = 36  # words of a window that a rough scan compares at most
SLACK = 6  # blocks selected beyond k, so that the certificate rarely fails
CANDIDATES = 2**23  # rows verified at a time
# Of the programs that scan, on a CPU, where this jaxlib knows them. XLA prefers vectors of 256
# bits: a tenth slower. And it would share each tile among all cores, which is slower than one core
# alone: here a core has batches of its own.
CPU_OPTIONS: dict[str, Any] = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
}


class Plan(NamedTuple):
    """Shape of a scan: static, so that one program serves all queries that share it.

    A block is ``strands * tiles`` rows that lie ``lanes`` apart; ``lanes`` of them side by side are
    a group. A tile is ``strands * lanes`` neighbouring rows, which all queries of a batch meet
    while they are in the first-level cache.
    """

    offsets: tuple[int, ...]  # codes of the window that are compared; where looped, past its end
    words: int  # of each of them, the first
    columns: int  # of the queries that are scanned: the database's words, and perhaps their weights
    at_once: int  # codes in one elementwise program
    one_by_one: bool  # each query meets all rows, instead of each tile all queries
    strands: int  # rows of a block in one tile
    lanes: int  # blocks side by side
    tiles: int  # that a group of blocks spans
    blocks: int  # of a shard
    adders: bool  # few words are counted, after most were added bit by bit

    @property
    def looped(self) -> bool:
        """Whether a loop of run-time length goes over the codes of the window."""
        return self.at_once < len(self.offsets)

    @property
    def tile(self) -> int:
        """Rows of a tile."""
        return self.strands * self.lanes

    @property
    def block(self) -> int:
        """Rows of a block."""
        return self.strands * self.tiles

    @property
    def group(self) -> int:
        """Rows of a group of blocks."""
        return self.tile * self.tiles

    def begin(self, block: Int32[jax.Array, "*some"]) -> Int32[jax.Array, "*some"]:
        """First row of blocks, which are numbered in the order of it."""
        return block // self.lanes * self.group + block % self.lanes


def choose(
    database: planar.Database,
    n: int,
    k: int,
    *,
    queries: int,
    partial: bool = False,
    rough: bool = False,
    weighted: bool = False,
) -> Plan:
    """The scan of windows of n codes for k neighbours.

    Args:
      queries: of a batch.
      partial: compare a part of the window only, which ``has_part``.
      rough: compare a part that proves nothing: more of the codes, and whatever their bits weigh.
      weighted: the queries' bits are weighted, so that each word is counted twice.
    """
    words, adders, looped = database.words, _adds(database), False
    weighted = weighted and not rough
    columns = words * (3 if weighted else 1)
    most = _most_terms(database) // (2 if weighted else 1)
    if rough:
        offsets = _spread(n, max(1, ROUGH // words))
    elif partial and n >= FEW_CODES:
        offsets = _probes(n)
    elif partial:
        offsets, words = tuple(range(n)), -(-3 * words // 4)
    else:
        little = LOOPED <= n * words <= LITTLE / max(1, database.rows)
        looped = little or n > UNROLLED or n * words > most
        offsets = tuple(range(power_of_two(max(n, LENGTH)) if looped else n))
    terms = len(offsets) * words
    # Selecting among the blocks costs N / block, verifying some of them selected * block * terms:
    # measured, the sum is least near this root.
    root = (database.capacity / (5 * selected_blocks(k) * terms)) ** 0.5
    block = max(32, power_of_two(round(root)))
    blocks = database.capacity // block
    if looped:  # one strand, whose lanes take a quarter of the first-level cache
        at_once = power_of_two(max(1, LOOPED // words) + 1) // 2
        lanes = 512 if database.capacity % (512 * block * database.scale) == 0 else 128
        lanes *= database.scale
        return Plan(offsets, words, columns, at_once, False, 1, lanes, block, blocks, adders)
    strands = min(16, power_of_two(max(1, most // terms) + 1) // 2)
    few = 1 if adders else min(FEW, 2 * len(offsets))
    one_by_one = database.on_cpu and database.full and queries <= few
    # 16 lanes are one vector: then the queries' words are read where they are used, and leave the
    # registers free. But a tile of few rows is worth its copy only where many queries meet it.
    vector = one_by_one or (database.on_cpu and not adders and queries > FEW)
    lanes = (16 if vector else max(16, 128 // strands)) * database.scale
    tiles = block // strands
    return Plan(
        offsets, words, columns, len(offsets), one_by_one, strands, lanes, tiles, blocks, adders
    )


def has_part(database: planar.Database, n: int) -> bool:
    """Whether there is a part of a window of n codes for a progressive scan."""
    if n < FEW_CODES:
        return database.words > 2
    return len(_probes(n)) * database.words <= _most_terms(database)


def part_pays(n: int, k: int, *, queries: int) -> bool:
    """Whether to scan a part of the window first where nobody says: near duplicates are asked for,
    and it saves enough."""
    return k == 1 and (n >= FEW_CODES or queries > 4 * QUERIES)


def selected_blocks(k: int) -> int:
    """Blocks that are selected at first, for k neighbours."""
    return round_up(k + SLACK, 8) if k <= 64 else power_of_two(k + SLACK)


def kept(k: int) -> int:
    """Candidates that a shard answers with, for k neighbours."""
    return round_up(k + SLACK, 8)


def batch_size(database: planar.Database, n: int, *, queries: int) -> int:
    """Queries of a batch: on a CPU few enough that every core has some, where they are worth a
    thread.
    """
    if database.mesh is not None or not database.on_cpu:
        return max(1, min(queries, QUERIES))
    popcounts = n * database.words * max(1, database.rows)  # of a query
    size = min(QUERIES, max(-(-queries // parallel.cores()), -(-THREAD_POPCOUNTS // popcounts), 1))
    parts = max(1, -(-queries // size))
    even = max(1, -(-queries // parts))
    pads_little = 4 * parts * power_of_two(even) <= 5 * queries
    return even if pads_little else size  # one program


def retried(queries: int) -> int:
    """Queries to pad to where a few of a batch are searched again: few numbers, few programs."""
    return next((size for size in (1, 8, 32) if size >= queries), QUERIES)


def padded(queries: np.ndarray, plan: Plan, *, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(codes that are scanned, whole windows) of queries, uint32 (queries, n, words): their number
    a power of two, their length that of a program.
    """
    count, n, words = queries.shape
    length = max(by_eighths(n), plan.offsets[-1] + 1)
    whole = np.zeros((power_of_two(max(count, least)), length, words), np.uint32)
    whole[:count, :n] = queries
    return whole[:, plan.offsets, : plan.columns], whole


class Program:
    """``jax.jit`` with the options of the platform that its arguments are on.

    Shapes that are new are compiled by one thread at a time: several would all trace the same
    program, each of them as many times slower.
    """

    def __init__(self, function: Callable[..., Any], *, static_argnames: tuple[str, ...]) -> None:
        self.function, self.static_argnames = function, static_argnames
        self.compiling, self.compiled = threading.Lock(), set[Any]()
        self.jitted: dict[str, Any] = {}  # by platform

    def __call__(self, platform: str, *arguments: Any, **static: Any) -> Any:
        key = (platform, *map(np.shape, arguments), *static.values())
        if key not in self.compiled:
            with self.compiling:
                if platform not in self.jitted:
                    self.jitted[platform] = jax.jit(
                        self.function,
                        static_argnames=self.static_argnames,
                        compiler_options=compiler_options(platform),
                    )
                if key not in self.compiled:
                    result = self.jitted[platform](*arguments, **static)
                    self.compiled.add(key)
                    return result
        return self.jitted[platform](*arguments, **static)


def compiler_options(platform: str) -> dict[str, Any] | None:
    """Of the programs that scan on it: names that are no API, so only those that are known."""
    if platform != "cpu":
        return None
    if _are_known(*CPU_OPTIONS):
        return CPU_OPTIONS
    return {name: value for name, value in CPU_OPTIONS.items() if _are_known(name)}


@functools.cache
def _are_known(*names: str) -> bool:
    """Whether this jaxlib compiles for a CPU with some of CPU_OPTIONS."""
    nothing = jax.device_put(np.int32(0), jax.devices("cpu")[0])
    options = {name: CPU_OPTIONS[name] for name in names}
    try:
        jax.jit(lambda x: x).lower(nothing).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return False
    return True


@functools.cache
def counts_vectors() -> bool:
    """Whether the CPU counts the bits of a vector in one instruction, VPOPCNT."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "avx512_vpopcntdq" in info.read_text()


def _adds(database: planar.Database) -> bool:
    """Whether bits are better added before they are counted."""
    return database.on_cpu and not counts_vectors()


def _most_terms(database: planar.Database) -> int:
    """Popcounts in one elementwise program at most."""
    return ADDED if _adds(database) else TERMS


def _probes(n: int) -> tuple[int, ...]:
    """Codes of a window of n for the progressive scan: a quarter of them and one, evenly spread.

    With 10 % of the bits flipped so many still tell the window from all strangers; with 15 % it
    would be a third.
    """
    return _spread(n, max(3, _rounded(n) // 4 + 1))


def _spread(n: int, most: int) -> tuple[int, ...]:
    """So many codes of a window of n, all of them if there are no more, evenly spread."""
    length = _rounded(n)
    return tuple(int(j) for j in np.linspace(0, length - 1, min(most, length)))


def _rounded(n: int) -> int:
    """Codes of a window of n that are chosen from: one program for each eight lengths."""
    return n if n < 16 else n // 8 * 8
