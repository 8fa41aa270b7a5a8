"""Exact and sub-linear search against FAISS and what the machine can do: ``python -m
experiments.benchmark search``.

Codes are uniform, in recordings of 960; a query is a window of them with 10 % of its bits flipped.
FAISS (``IndexBinaryFlat`` of faiss-cpu) searches the n codes of a window each by itself, and is
spared the sum over windows. All that is compared runs in one process on as many threads, in turn,
for several rounds; medians count: CPU time on one core, wall time on all, where ours has one device
and one shard a core.

The *floor* is a C loop over the same memory: one pass that reads it for a single code, else the
popcounts of all windows and their minimum. How much faster than FAISS it is, no exact scan can
surpass; only the progressive scan does, which looks at three of nine codes first.
"""

import ctypes
import functools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqhash import parallel, tables
from seqhash.search import hamming, multi_index, planar, rotations

Clock = Callable[[], float]

CODES = 960  # of a recording: 4 minutes
WORDS = 4
FLIPPED = 0.1  # of a query's bits
SHORTEST = 0.05  # seconds of a measurement: what is faster is called several times
CHECKED = 2  # queries held against numpy


# What the process has to be started with. FAISS's threads sleep while they wait: where they spin,
# and the machine is shared, they are slower on two cores than on one, up to 400 times.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}


class Case(NamedTuple):
    """One row of the table of exact search."""

    n: int
    queries: int
    rows: int
    k: int
    reach: float | None  # goals: times as fast as FAISS
    aim: float | None
    progressive: bool = False

    @property
    def name(self) -> str:
        """As the table has it."""
        scan = ", progressive" if self.progressive else ""
        return f"n={self.n}, Q={self.queries}, N={_power_of_ten(self.rows)}, k={self.k}{scan}"


CASES = (
    Case(n=1, queries=1, rows=10**6, k=10, reach=1.3, aim=1.7),
    Case(n=1, queries=1, rows=10**7, k=10, reach=1.5, aim=1.9),
    Case(n=1, queries=1024, rows=10**6, k=1, reach=7, aim=10),
    Case(n=1, queries=1024, rows=10**6, k=10, reach=6, aim=9),
    Case(n=1, queries=1024, rows=10**6, k=100, reach=3.5, aim=6),
    Case(n=9, queries=1, rows=10**6, k=10, reach=4, aim=7),
    Case(n=9, queries=64, rows=10**7, k=10, reach=8.5, aim=10),
    Case(n=9, queries=64, rows=10**7, k=1, reach=None, aim=20, progressive=True),
)
QUICK = (Case(1, 1, 10**5, 10, None, None), Case(9, 16, 10**5, 1, None, None, progressive=True))
WEIGHTED = (CASES[0], CASES[6])  # asked with weights too
QUICK_WEIGHTED = (QUICK[0], QUICK[1]._replace(progressive=False))
# asked in twelve rotations too, at most so many times as long: 3 s of a code of works, 10 s
TURNED = (
    Case(9, 1, 10**7, 1, 8, None, progressive=True),
    Case(9, 1, 10**7, 10, None, None),
    Case(37, 1, 10**7, 10, 12, 8),
)
QUICK_TURNED = (Case(9, 1, 10**5, 1, None, None, progressive=True),)
SUBLINEAR_GOALS = {  # times as fast as our own full scan
    "radius 1, one query": 25,
    "radius 1, batched": 60,
    "proven, one query": 4,
    "proven, batched": 4,
}


class _Collection(NamedTuple):
    words: np.ndarray  # uint32 (rows, WORDS)
    starts: np.ndarray  # int64 (recordings + 1,)
    database: planar.Database
    flat: Any  # of FAISS, or None where that is not installed


def measure(*, rounds: int, quick: bool, sublinear: bool) -> dict[str, Any]:
    """Both tables' numbers, on all the cores that this process may use; CPU time where it is
    one.
    """
    cores = parallel.cores()
    clock = time.process_time if cores == 1 else time.perf_counter
    collections: dict[int, _Collection] = {}
    floor, results = _compiled_floor(), []
    plain = QUICK_WEIGHTED if quick else WEIGHTED
    for case in QUICK if quick else CASES:
        if case.rows not in collections:
            collections[case.rows] = _collection(case.rows)
        results.append(_exact(case, collections[case.rows], floor, rounds, clock))
        print(f"{case.name}: ours {_shown(results[-1]['ours'])} ms", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "cores": cores,
        "rounds": rounds,
        "faiss": _faiss_version(),
        "exact": results,
        "weighted": [_weighted(case, collections[case.rows], rounds, clock) for case in plain],
        "turned": [
            _turned(case, collections[case.rows], rounds, clock)
            for case in (QUICK_TURNED if quick else TURNED)
        ],
    }
    if sublinear:
        result["sublinear"] = _sublinear(collections[max(collections)], rounds, clock, quick=quick)
    return result


def show(result: dict[str, Any]) -> None:
    """Prints what ``measure`` found."""
    clock = (
        "CPU time on one core" if result["cores"] == 1 else f"wall time on {result['cores']} cores"
    )
    how = f"ms of {clock}, medians of {result['rounds']} interleaved rounds"
    print(
        f"\nExact search of 128-bit codes, {how}; FAISS {result['faiss'] or 'is not installed'}\n"
    )
    head = ["case", "ours", "FAISS", "floor", "ratio", "floor's ratio", "reach", "aim"]
    table = [[*head, "distances equal"]]
    for row in result["exact"]:
        ours, faiss, floor = row["ours"], row["faiss"], row["floor"]
        times = [_shown(ours), _shown(faiss, "not installed"), _shown(floor, "not measured")]
        ratios = [_shown(faiss and faiss / ours), _shown(faiss and floor and faiss / floor)]
        goals = [_goal(row["reach"]), _goal(row["aim"])]
        table.append([row["case"], *times, *ratios, *goals, row["equal"]])
    print(tables.markdown(table))
    print(
        "\nThe floor is a pass that reads the codes once where n = Q = 1, "
        "else a loop of vector popcounts."
    )
    print(f"\nQueries whose bits weigh 0 to 3 against plain ones: {how}\n")
    table = [["case", "plain", "weighted", "times as long"]]
    for row in result["weighted"]:
        measured = (row["plain"], row["weighted"], row["weighted"] / row["plain"])
        table.append([row["case"], *map(_shown, measured)])
    print(tables.markdown(table, left=1))
    print(f"\nQueries in twelve rotations against one: {how}\n")
    table = [["case", "plain", "twelve rotations", "times as long", "at most", "aim"]]
    for row in result["turned"]:
        measured = (row["plain"], row["turned"], row["turned"] / row["plain"])
        table.append([row["case"], *map(_shown, measured), _goal(row["reach"]), _goal(row["aim"])])
    print(tables.markdown(table, left=1))
    if "sublinear" not in result:
        return
    found = result["sublinear"]
    print(f"\nMulti-index hashing against our full scan: {found['case']}; a query's {how}\n")
    head = ["mode", "recall@1", "proven by the tables", "ms", "full scan's ms", "ratio", "reach"]
    table = [head]
    for row in found["modes"]:
        shares = [f"{row['recall']:.4f}", f"{row['proven']:.4f}"]
        numbers = [_shown(value) for value in (row["ours"], row["flat"], row["flat"] / row["ours"])]
        table.append([row["mode"], *shares, *numbers, _goal(row["reach"])])
    print(tables.markdown(table, left=1))
    print(f"\nTables: {found['tables']}. Recall over {found['queries']} queries.")


def _shown(value: float | None, missing: str = "") -> str:
    return missing if value is None else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def _power_of_ten(value: int) -> str:
    return f"{value:.0e}".replace("e+0", "e")


def _goal(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


# -------------------------------------------------------------------------------------- collections


def _collection(rows: int) -> _Collection:
    words = np.random.default_rng(0).integers(0, 2**32, (rows, WORDS), np.uint32)
    starts = np.append(np.arange(0, rows, CODES), rows)
    return _Collection(words, starts, planar.build(words, starts), _faiss_index(words))


def _queries(words: np.ndarray, count: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of n codes with flipped bits, uint32 (count, n, WORDS), and the rows that they are
    from.
    """
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(words) // CODES, count) * CODES + rng.integers(
        0, CODES - n + 1, count
    )
    flips = np.packbits(rng.random((count, n, WORDS * 32)) < FLIPPED, axis=-1).view(np.uint32)
    return words[rows[:, None] + np.arange(n)] ^ flips, rows


def _faiss_index(words: np.ndarray) -> Any:
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(parallel.cores())
    index = faiss.IndexBinaryFlat(WORDS * 32)
    index.add(words.view(np.uint8))
    return index


def _faiss_version() -> str | None:
    try:
        import faiss
    except ImportError:
        return None
    return faiss.__version__


# ------------------------------------------------------------------------------------- exact search


def _exact(
    case: Case, collection: _Collection, floor: ctypes.CDLL | None, rounds: int, clock: Clock
) -> dict[str, Any]:
    """Times of one case, its answers checked."""
    queries, _ = _queries(collection.words, case.queries, case.n)
    codes = queries.reshape(-1, WORDS).view(np.uint8)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: hamming.search(
            collection.database, queries, case.k, progressive=case.progressive
        )
    }
    if collection.flat is not None:
        calls["faiss"] = lambda: collection.flat.search(codes, case.k)
    equal = _checked(case, queries, collection, calls)
    if floor is not None:
        calls["floor"] = _floor_call(floor, collection.database, queries)
    times = _times(calls, rounds, clock)
    milliseconds = {name: times.get(name) for name in ("ours", "faiss", "floor")}
    return {"case": case.name, **milliseconds, "reach": case.reach, "aim": case.aim, "equal": equal}


def _weighted(
    case: Case, collection: _Collection, rounds: int, clock: Clock
) -> dict[str, str | float]:
    """Times of plain queries and of the same ones with two planes of weights, answers checked."""
    queries, _ = _queries(collection.words, case.queries, case.n)
    shape = (*queries.shape[:-1], 2 * WORDS)
    planes = np.random.default_rng(2).integers(0, 2**32, shape, np.uint32)
    asked = {"plain": queries, "weighted": np.concatenate([queries, planes], axis=-1)}
    calls = {
        name: functools.partial(
            hamming.search, collection.database, query, case.k, progressive=False
        )
        for name, query in asked.items()
    }
    some = asked["weighted"][:CHECKED]
    expected = np.stack([_nearest(collection.words, query, case.k) for query in some])
    if not np.array_equal(calls["weighted"]().distance[: len(some)], expected):
        raise RuntimeError(f"{case.name}: our weighted distances are not equal to numpy's.")
    return {"case": case.name, **_times(calls, rounds, clock)}


def _turned(
    case: Case, collection: _Collection, rounds: int, clock: Clock
) -> dict[str, str | float | None]:
    """Times of plain queries and of the same ones in twelve rotations, answers checked."""
    queries, _ = _queries(collection.words, case.queries, case.n)
    keys = np.stack([np.roll(queries, turn, axis=-1) ^ np.uint32(turn) for turn in range(12)], 1)
    calls: dict[str, Callable[[], Any]] = {
        "plain": lambda: hamming.search(collection.database, queries, case.k, progressive=False),
        "turned": lambda: rotations.search(
            collection.database, keys, case.k, progressive=case.progressive
        ),
    }
    some = keys[:, :CHECKED]
    expected = np.concatenate([_nearest(collection.words, key, case.k) for key in some[0]])
    found = rotations.search(collection.database, some, case.k).distance[0]
    if not np.array_equal(found, np.sort(expected)[: case.k]):
        raise RuntimeError(f"{case.name}: our distances in rotations are not equal to numpy's.")
    times = _times(calls, rounds, clock)
    return {"case": case.name, **times, "reach": case.reach, "aim": case.aim}


def _times(calls: Mapping[str, Callable[[], Any]], rounds: int, clock: Clock) -> dict[str, float]:
    """Median milliseconds of a call of each, measured in turn."""
    repeats: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # compiles
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = clock()
            for _ in range(repeats.get(name, 1)):
                call()
            seconds = (clock() - start) / repeats.get(name, 1)
            if number:
                times[name].append(1e3 * seconds)
            else:
                repeats[name] = max(1, round(SHORTEST / max(seconds, 1e-6)))
    return {name: statistics.median(values) for name, values in times.items()}


def _checked(
    case: Case, queries: np.ndarray, collection: _Collection, calls: dict[str, Callable[[], Any]]
) -> str:
    """What ours was found equal to; RuntimeError where it is not."""
    found = calls["ours"]().distance
    if case.n == 1 and "faiss" in calls:
        expected, said = calls["faiss"]()[0], "to FAISS's"
    else:
        some = queries[:CHECKED]
        expected = np.stack([_nearest(collection.words, query, case.k) for query in some])
        said = f"to numpy's ({len(some)} checked)"
    if not np.array_equal(found[: len(expected)], expected):
        raise RuntimeError(f"{case.name}: our distances are not equal {said}.")
    return said


def _nearest(words: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Distances of the k nearest windows by brute force, int32 (k,); of a query (n, WORDS), or (n,
    3 WORDS) where its bits are weighted.
    """
    n, begins = len(query), len(words) - len(query) + 1
    distances = np.zeros(begins, np.uint16)
    bits, *planes = np.split(query, query.shape[1] // WORDS, axis=1)
    for code, word in np.ndindex(n, WORDS):
        different = words[code : code + begins, word] ^ bits[code, word]
        if not planes:
            distances += np.bitwise_count(different)
        for weight, plane in enumerate(planes, 1):
            distances += weight * np.bitwise_count(different & plane[code, word])
    inside = np.arange(begins) % CODES <= CODES - n
    return np.sort(np.partition(distances[inside], k - 1)[:k]).astype(np.int32)


# ---------------------------------------------------------------------------------------- the floor


def _compiled_floor() -> ctypes.CDLL | None:
    """The C loops, or None without a compiler or the processor's vector popcount."""
    info, compiler = Path("/proc/cpuinfo"), shutil.which("cc")
    if compiler is None or not info.exists() or "avx512_vpopcntdq" not in info.read_text():
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/floor.so"
        source = Path(__file__).with_name("search_floor.c")
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, str(source)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
        return ctypes.CDLL(library)  # stays mapped when its file is gone


def _floor_call(
    floor: ctypes.CDLL, database: planar.Database, queries: np.ndarray
) -> Callable[[], Any]:
    """Reads the codes, or finds each query's minimum among them: uint32 (cores, queries), a part of
    the rows a core.
    """
    planes, cores = np.asarray(database.planes)[0], parallel.cores()
    cuts = np.linspace(0, database.rows, cores + 1).astype(int)
    cuts[1:-1] -= cuts[1:-1] % 64  # rows that share no cache line
    ends = np.minimum(
        cuts[1:] + queries.shape[1] - 1, database.rows
    )  # of the windows that begin in a part
    minima = np.zeros((cores, len(queries)), np.uint32)

    def one(part: int) -> None:
        rows = ctypes.c_int64(int(ends[part] - cuts[part]))
        memory = (_pointer(planes[:, cuts[part] :]), rows, ctypes.c_int64(planes.shape[1]))
        if queries.shape[:2] == (1, 1):
            floor.read_pass(*memory)
        else:
            scan = {1: floor.scan_1, 9: floor.scan_9}[queries.shape[1]]
            scan(*memory, _pointer(queries), ctypes.c_int64(len(queries)), _pointer(minima[part]))

    def call() -> np.ndarray:
        parallel.map_all(one, range(cores))
        return minima

    return call


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


# -------------------------------------------------------------------------------- sub-linear search


def _sublinear(
    collection: _Collection, rounds: int, clock: Clock, *, quick: bool
) -> dict[str, Any]:
    """Multi-index hashing against our full scan, for one query at a time and for many."""
    words, starts, database, _ = collection
    queries, planted = _queries(words, 256 if quick else 2048, 9)
    tables = multi_index.build(words, starts)

    def flat(asked: np.ndarray) -> hamming.Neighbours:
        return hamming.search(database, asked, progressive=False)

    def radius_1(asked: np.ndarray) -> hamming.Neighbours:
        return multi_index.search(tables, asked, radius=1)

    def proven(asked: np.ndarray) -> hamming.Neighbours:
        return _proven(tables, database, asked)

    if not np.array_equal(flat(queries[:128]).row[:, 0], planted[:128]):
        raise RuntimeError("The full scan does not find the windows that the queries are from.")
    asked = {  # by each mode in a measurement: the slower the fewer
        "full scan, one query": (flat, queries[:4, None]),
        "full scan, batched": (flat, queries[None, :128]),
        "radius 1, one query": (radius_1, queries[:64, None]),
        "radius 1, batched": (radius_1, queries[None]),
        "proven, one query": (proven, queries[:64, None]),
        "proven, batched": (proven, queries[None]),
    }
    calls = {
        mode: functools.partial(_answer_all, search, batches)
        for mode, (search, batches) in asked.items()
    }
    times = {
        mode: value / asked[mode][1][..., 0, 0].size
        for mode, value in _times(calls, rounds, clock).items()
    }
    modes = []
    for mode, reach in SUBLINEAR_GOALS.items():
        name, how = mode.split(", ")
        by_tables = multi_index.search(tables, queries, radius=2) if name == "proven" else None
        found = radius_1(queries) if by_tables is None else proven(queries)
        shares = {
            "recall": float((found.row[:, 0] == planted).mean()),
            "proven": float((by_tables or found).exact.mean()),
        }
        row = {"mode": mode, "ours": times[mode], "flat": times[f"full scan, {how}"], **shares}
        modes.append(row | {"reach": None if quick else reach})
    beside = tables.nbytes / len(words)
    shape = f"{tables.substrings} of {tables.bits} bits, {beside:.1f} bytes a code beside the codes"
    case = f"n=9, N={_power_of_ten(len(words))}, k=1, {100 * FLIPPED:g} % of the bits flipped"
    return {"case": case, "queries": len(queries), "tables": shape, "modes": modes}


def _answer_all(search: Callable[[np.ndarray], hamming.Neighbours], batches: np.ndarray) -> None:
    for batch in batches:
        search(batch)


def _proven(
    tables: multi_index.Tables, database: planar.Database, queries: np.ndarray
) -> hamming.Neighbours:
    """By the tables where they prove the answer, by the scan where they do not."""
    found = multi_index.search(tables, queries, radius=2)
    rest = np.flatnonzero(~found.exact)
    if len(rest):
        for ours, scanned in zip(found, hamming.search(database, queries[rest]), strict=True):
            ours[rest] = scanned
    return found
