import functools
import importlib.util
import itertools
import json
import re
import shutil
import sys

import numpy as np
import pytest
import soundfile
from absl import flags
from absl.testing import flagsaver

from experiments import benchmark, benchmark_search
from seqhash.config import Config
from seqhash.search import hamming, planar
from tests.processes import Running, run_module

pytestmark = pytest.mark.slow


call = functools.partial(run_module, "experiments.benchmark")


def test_flop_of_a_step_by_hand():
    # 100 frames through 4 gates of (13 + 128) x 128, through 4 of 128 x 128, and the read-out; 2
    # FLOP; three passes.
    by_hand = 3 * 100 * 2 * (4 * 141 * 128 + 4 * 128 * 128 + 128 * 13)
    assert benchmark._step_flop() == by_hand
    assert Config().train.batch_size == 128  # what the benchmark says it measures


@pytest.fixture
def quick():
    with flagsaver.flagsaver():
        flags.FLAGS(["benchmark", "--rounds=3", "--seconds=2", "--steps=16", "--quick"])
        yield


@pytest.mark.parametrize(
    "system",
    [
        "ours, stream",
        "ours, jitted mfcc",
        "librosa",
        "python_speech_features",
        "ours, bands",
        "librosa, melspectrogram",
    ],
)
def test_a_measurement_gives_a_rate(quick, system):
    assert benchmark.SYSTEMS[system]() > 1


@pytest.mark.parametrize("system", ["ours, files", "fpcalc"])
def test_files_are_read_by_both(quick, tmp_path, system):
    tone = np.sin(np.arange(30 * 22_050) / 20) * np.linspace(0.1, 1, 30 * 22_050)
    soundfile.write(tmp_path / "tone.ogg", tone, 22_050)
    flags.FLAGS["audio"].value = str(tmp_path)
    rate = benchmark.SYSTEMS[system]()
    assert (rate is None and "fpcalc" in system and not shutil.which("fpcalc")) or rate > 10


def test_files_have_to_be_named():
    done = call("files")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: files needs --audio, a manifest or a folder of recordings.\n"


def test_a_train_measurement_gives_a_rate():
    done = call("train", "--system=ours", "--steps=16", "--quick")
    assert done.status == 0, done.err
    assert float(done.out) > 10


def measure(platform: str) -> None:
    flags.FLAGS(["benchmark", "--seconds=2"])
    print(benchmark._measure("mfcc", "ours, stream", {"JAX_PLATFORMS": platform}, True))


def test_a_system_is_measured_in_a_process_of_its_own():
    assert float(Running(measure, "cpu").ended().out) > 1
    failed = Running(measure, "none").ended()
    assert (failed.status, "ValueError: ours, stream failed, see above." in failed.err) == (
        1,
        True,
    )


@pytest.mark.parametrize(
    ("name", "rows", "ours", "other", "rate", "ratio"),
    [
        ("mfcc", 4, "ours, stream", "librosa", 10, "3.00"),
        ("bands", 3, "ours", "librosa's mel spectrogram", 10, "3.00"),
        ("train", 6, "ours, one core", "torch, one core", None, "not installed"),
    ],
)
def test_tables_have_medians_and_ratios_to_ours(
    quick, monkeypatch, capsys, name, rows, ours, other, rate, ratio
):
    """Ours takes 100, 20 and 30; torch is not there, all others take 10."""
    rounds = {name: iter([100.0, 20.0, 30.0]) for name in ("ours", "ours, stream", "ours, bands")}

    def measure(_, system, environment, pinned):
        return (
            None
            if system == "torch"
            else next(rounds[system])
            if pinned and not environment
            else 10.0
        )

    rounds |= {other: itertools.repeat(10.0) for other in benchmark.SYSTEMS.keys() - rounds.keys()}
    monkeypatch.setattr(benchmark, "_measure", measure)
    result = getattr(benchmark, f"_benchmark_{name}")()
    assert (result["rates"][ours], result["rates"][other]) == (30, rate)
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| ")
    ][1:]
    assert len(table) == rows
    shown = {row[0]: row[-2] for row in table}
    assert (shown[ours], shown[other]) == ("1.00", ratio)


def test_an_unknown_benchmark_is_said():
    done = call("everything")
    assert done.status == 2
    assert "name one of mfcc, bands, files, train, search, index" in done.err


def test_search_measures_checks_and_writes_json(tmp_path):
    if importlib.util.find_spec("faiss") is None:
        pytest.skip("needs faiss-cpu, in the extra dev")
    done = call("search", "--quick", "--rounds=1", f"--output={tmp_path / 'out.json'}")
    assert done.status == 0, done.err
    result = json.loads((tmp_path / "out.json").read_text())["one core"]
    assert result["cores"] == 1
    single, windows = result["exact"]
    assert (single["equal"], windows["equal"]) == ("to FAISS's", "to numpy's (2 checked)")
    assert all(0.001 < row[name] < 10_000 for row in result["exact"] for name in ("ours", "faiss"))
    assert all(
        row["floor"] is None or 0.001 < row["floor"] < row["faiss"] for row in result["exact"]
    )
    proven = {
        row["mode"]: row["recall"]
        for row in result["sublinear"]["modes"]
        if row["mode"].startswith("proven")
    }
    assert proven == {"proven, one query": 1, "proven, batched": 1}
    assert all(0.5 < row["weighted"] / row["plain"] < 50 for row in result["weighted"])
    assert "| n=1, Q=1, N=1e5, k=10 " in done.out
    assert re.search(r"\| proven, batched +\| +1\.0000 \|", done.out)


def test_index_measures_and_writes_json(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 40_000), 16_000)
    done = call(
        "index", "--quick", "--rounds=1", f"--audio={tmp_path}", f"--output={tmp_path / 'out.json'}"
    )
    assert done.status == 0, done.err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["synthetic"]["codes"] == 200 * 960
    assert 16 < result["synthetic"]["bytes_a_code"] < 20
    assert result["synthetic"]["memory_a_code"] == 16
    assert result["audio"]["hours"] == pytest.approx(2.5 / 3600)
    assert all(value >= 0 for value in result["audio"].values())
    assert "192,000 codes" in done.out


def test_search_says_what_is_not_there(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(benchmark_search.shutil, "which", lambda name: None)
    result = benchmark_search.measure(rounds=1, quick=True, sublinear=False)
    benchmark_search.show(result)
    printed = capsys.readouterr().out
    assert "FAISS is not installed" in printed
    assert printed.count("| not installed | not measured |") == 2
    assert printed.count("to numpy's") == 2
    assert all(row["weighted"] > 0 < row["plain"] for row in result["weighted"])


def test_weighted_distances_by_brute_force():
    words = np.random.default_rng(0).integers(0, 2**32, (1_920, 4), np.uint32)
    query = np.random.default_rng(1).integers(0, 2**32, (2, 12), np.uint32)
    windows = words[np.arange(1_919)[:, None] + np.arange(2)]
    distances = hamming.code_distances(query, windows).sum(axis=1)
    inside = np.arange(1_919) != 959  # the last window of the first recording ends there
    found = benchmark_search._nearest(words, query, 5)
    np.testing.assert_array_equal(found, np.sort(distances[inside])[:5])


@pytest.mark.parametrize("faiss", [False, True])
def test_an_inexact_search_stops_the_benchmark(faiss):
    case = benchmark_search.Case(n=1, queries=3, rows=2_000, k=2, reach=None, aim=None)
    words = np.random.default_rng(0).integers(0, 2**32, (case.rows, 4), np.uint32)
    collection = benchmark_search._Collection(words, np.array([0, 960, 1920, 2000]), None, None)
    queries, _ = benchmark_search._queries(words, 3, 1)
    true = np.sort(np.bitwise_count(words[None] ^ queries).sum(axis=-1).astype(np.int32), axis=1)[
        :, :2
    ]
    calls = {"ours": lambda: hamming.Neighbours(true, true, true)}
    if faiss:
        calls["faiss"] = lambda: (true, None)
    assert benchmark_search._checked(case, queries, collection, calls)
    wrong = true + np.array([[0, 1], [0, 0], [0, 0]])
    calls["ours"] = lambda: hamming.Neighbours(wrong, true, true)
    with pytest.raises(RuntimeError, match=r"n=1, Q=3, N=2e3, k=2: our distances are not equal to"):
        benchmark_search._checked(case, queries, collection, calls)


def test_queries_are_windows_of_one_recording_with_a_tenth_flipped():
    words = np.random.default_rng(0).integers(0, 2**32, (5 * 960, 4), np.uint32)
    queries, rows = benchmark_search._queries(words, 400, 9)
    assert (rows // 960 == (rows + 8) // 960).all()
    distances = [
        np.bitwise_count(words[row : row + 9] ^ query).sum()
        for query, row in zip(queries, rows, strict=True)
    ]
    assert np.mean(distances) == pytest.approx(0.1 * 1152, rel=0.02)  # 4 standard deviations


@pytest.mark.parametrize("n", [1, 9])
def test_the_floor_does_the_work(n):
    floor = benchmark_search._compiled_floor()
    if floor is None:
        pytest.skip("no compiler, or no vector popcount")
    begins = 5_008  # of windows: whole vectors, not whole tiles
    words = np.random.default_rng(0).integers(0, 2**32, (begins + n - 1, 4), np.uint32)
    queries = np.random.default_rng(1).integers(0, 2**32, (3, n, 4), np.uint32)
    database = planar.build(words, np.array([0, len(words)]))
    minima = benchmark_search._floor_call(floor, database, queries)().min(
        axis=0
    )  # of each core's part
    windows = words[np.arange(begins)[:, None] + np.arange(n)]
    expected = [np.bitwise_count(windows ^ query).sum(axis=(1, 2)).min() for query in queries]
    assert minima.tolist() == expected
